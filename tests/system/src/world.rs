//! The world around a machine, in namespaces, and probes by packets.
//!
//! ```text
//!   machine (holm)              outside                        internet
//!   203.0.113.1  ───lan0══eth0─ 203.0.113.7 (a client)
//!   2001:db8:113::1             203.0.113.8 (a friend)
//!                               198.51.100.1 ─wan══eth0──────── 198.51.100.9 (a server)
//! ```
//!
//! The outside also has routes for the pool of floating addresses and, out of malice, for every private range: what
//! does not leak then is kept back by holm, not by a missing route.

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use sys::{
    netlink::{Netlink, Route, RouteTarget},
    netns::NetNs,
};

/// The machine's address towards the outside.
pub const MACHINE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// A client outside.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// Another one, whom some rules let pass.
pub const FRIEND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 8);
/// A server on the internet, port 80.
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
/// The same by IPv6.
pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 9);

const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// The namespaces and the server on the internet.
pub struct World {
    /// Where holm runs.
    pub machine: NetNs,
    /// Clients beside the machine.
    pub outside: NetNs,
    /// Beyond.
    pub internet: NetNs,
    callers: Arc<Mutex<Vec<IpAddr>>>,
    stop: Arc<AtomicBool>,
}

impl World {
    /// Makes the world. It goes when it is dropped and nothing runs in it any more.
    ///
    /// # Panics
    /// When a namespace, link or address cannot be made.
    pub fn new() -> Self {
        let [machine, outside, internet] = [(); 3].map(|()| NetNs::anonymous().expect("a network namespace"));
        for namespace in [&machine, &outside, &internet] {
            sys::sysctl::write(namespace, "net/ipv6/conf/default/accept_dad", "0").expect("sysctl");
            sys::sysctl::write(namespace, "net/ipv6/conf/all/accept_dad", "0").expect("sysctl");
            Netlink::open(namespace).expect("netlink").set_up("lo").expect("lo");
        }
        for name in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            sys::sysctl::write(&outside, name, "1").expect("sysctl");
        }
        cable(
            &machine,
            "lan0",
            &["203.0.113.1/24", "2001:db8:113::1/64"],
            &outside,
            "eth0",
            &["203.0.113.7/24", "203.0.113.8/24", "2001:db8:113::7/64", "2001:db8:113::8/64"],
        );
        cable(
            &outside,
            "wan",
            &["198.51.100.1/24", "2001:db8:99::1/64"],
            &internet,
            "eth0",
            &["198.51.100.9/24", "2001:db8:99::9/64"],
        );
        for (namespace, destination, gateway, device) in [
            (&machine, "0.0.0.0/0", "203.0.113.7", "lan0"),
            (&machine, "::/0", "2001:db8:113::7", "lan0"),
            (&internet, "0.0.0.0/0", "198.51.100.1", "eth0"),
            (&internet, "::/0", "2001:db8:99::1", "eth0"),
            (&outside, "172.16.0.0/12", "203.0.113.1", "eth0"),
            (&outside, "2001:db8:f::/48", "2001:db8:113::1", "eth0"),
            (&outside, "10.0.0.0/8", "203.0.113.1", "eth0"),
            (&outside, "192.168.0.0/16", "203.0.113.1", "eth0"),
            (&outside, "fd00::/8", "2001:db8:113::1", "eth0"),
        ] {
            route(namespace, destination, gateway, device);
        }
        let (callers, stop) = (Arc::default(), Arc::default());
        for at in [SocketAddr::from((INTERNET, 80)), SocketAddr::from((INTERNET_V6, 80))] {
            serve_pages(&internet, at, &callers, &stop);
        }
        Self { machine, outside, internet, callers, stop }
    }

    /// Who asked the server on the internet since the last look, as the server saw them.
    pub fn callers(&self) -> Vec<IpAddr> {
        std::mem::take(&mut *self.callers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn cable(here: &NetNs, name: &str, own: &[&str], there: &NetNs, far_name: &str, far: &[&str]) {
    let (near_side, far_side) =
        (Netlink::open(here).expect("netlink"), Netlink::open(there).expect("netlink"));
    near_side.add_veth(name, far_name, Some(there)).expect("veth");
    for (side, name, addresses) in [(&near_side, name, own), (&far_side, far_name, far)] {
        side.set_up(name).expect("up");
        for address in addresses {
            side.add_address(name, address.parse().expect(address)).expect("address");
        }
    }
}

fn route(namespace: &NetNs, destination: &str, gateway: &str, device: &str) {
    let target = RouteTarget::Via {
        gateway: gateway.parse().expect(gateway),
        device: Some(device.into()),
        onlink: true,
    };
    let route = Route::new(destination.parse().expect(destination), target);
    Netlink::open(namespace).expect("netlink").replace_route(&route).expect("route");
}

/// Serves one page, which says who asked, until told to stop.
fn serve_pages(namespace: &NetNs, at: SocketAddr, callers: &Arc<Mutex<Vec<IpAddr>>>, stop: &Arc<AtomicBool>) {
    let listener = namespace.run(|| TcpListener::bind(at)).expect("enter").expect("listen");
    listener.set_nonblocking(true).expect("non-blocking");
    let (callers, stop) = (Arc::clone(callers), Arc::clone(stop));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, peer)) => {
                    callers.lock().unwrap_or_else(PoisonError::into_inner).push(peer.ip());
                    std::thread::spawn(move || answer(stream, peer.ip()));
                }
                Err(_) => std::thread::sleep(ACCEPT_PAUSE),
            }
        }
    });
}

fn answer(mut stream: TcpStream, peer: IpAddr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    let mut request = [0; 1024];
    let _ = stream.read(&mut request)?;
    let body = format!("{peer}\n");
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// Connects from a namespace, under the address `source` if one is named.
///
/// # Errors
/// As `connect(2)`; `TimedOut` when nobody answers.
pub fn connect(
    from: &NetNs,
    source: Option<IpAddr>,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<TcpStream> {
    from.run(|| match source {
        None => TcpStream::connect_timeout(&to, patience),
        Some(source) => connect_bound(source, to, patience),
    })?
}

fn connect_bound(source: IpAddr, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, SockType::Stream, flags, None)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    let mut wait = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&stream), nix::poll::PollFlags::POLLOUT)];
    let limit_ms = u16::try_from(patience.as_millis()).unwrap_or(u16::MAX);
    if nix::poll::poll(&mut wait, limit_ms)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Whether a TCP connection comes to be.
pub fn can_connect(from: &NetNs, source: Option<IpAddr>, to: SocketAddr, patience: Duration) -> bool {
    connect(from, source, to, patience).is_ok()
}

/// Asks for `/` and gives the page's body.
///
/// # Errors
/// No connection, or no answer within `patience`.
pub fn http_get(from: &NetNs, to: SocketAddr, patience: Duration) -> io::Result<String> {
    let mut stream = connect(from, None, to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: lab\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_string()),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, answer)),
    }
}

/// Whether an echo request is answered within `patience`.
pub fn ping(from: &NetNs, to: IpAddr, patience: Duration) -> bool {
    let wait_s = patience.as_secs().max(1).to_string();
    let argv = ["-n", "-c1", "-W", &wait_s, &to.to_string()];
    let spawned =
        from.run(|| Command::new("ping").args(argv).stdout(Stdio::null()).stderr(Stdio::null()).status());
    spawned.expect("enter").expect("ping").success()
}

/// Sends a datagram and waits for the answer.
///
/// # Errors
/// Nothing came within `patience`.
pub fn ask_udp(from: &NetNs, to: SocketAddr, patience: Duration) -> io::Result<String> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = from.run(|| UdpSocket::bind((any, 0)))??;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"hello\n")?;
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Echoes every byte of every connection, until the process ends.
///
/// # Panics
/// When the address cannot be listened on.
pub fn echo_server(namespace: &NetNs, at: SocketAddr) {
    let listener = namespace.run(|| TcpListener::bind(at)).expect("enter").expect("listen");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = &stream;
                io::copy(&mut reader, &mut &stream)
            });
        }
    });
}

/// Answers every datagram with the address it came from, until the process ends.
///
/// # Panics
/// When the address cannot be bound.
pub fn udp_server(namespace: &NetNs, at: SocketAddr) {
    let socket = namespace.run(|| UdpSocket::bind(at)).expect("enter").expect("bind");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
}

/// A client that asks for a page all the time and notes each answer.
pub struct Watch {
    answers: Arc<Mutex<Vec<(Instant, String)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to ask `to`, with a pause of 20 ms between two questions and half a second for each.
    ///
    /// # Panics
    /// When the namespace cannot be entered.
    pub fn begin(from: &NetNs, to: SocketAddr) -> Self {
        let (answers, stop): (Arc<Mutex<Vec<_>>>, Arc<AtomicBool>) = (Arc::default(), Arc::default());
        let namespace = from.run(NetNs::current).expect("enter").expect("namespace");
        let (notes, ending) = (Arc::clone(&answers), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !ending.load(Ordering::Relaxed) {
                if let Ok(page) = http_get(&namespace, to, Duration::from_millis(500)) {
                    notes.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), page));
                }
                std::thread::sleep(ACCEPT_PAUSE);
            }
        });
        Self { answers, stop, thread: Some(thread) }
    }

    /// Answers so far.
    pub fn answers(&self) -> Vec<String> {
        let all = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(_, page)| page.clone()).collect()
    }

    /// Longest time between two answers.
    pub fn longest_gap(&self) -> Duration {
        let all = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        all.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or(Duration::MAX)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
