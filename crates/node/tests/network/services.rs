//! What guests find in their network: addresses by DHCP, DHCPv6 and advertisements, names, and their metadata,
//! asked for by the programs that real guests use.

use crate::lab::*;
use model::{
    dataplane::{
        service::{PortFacts, port_facts},
        view::NetworkView,
    },
    id::{NetworkId, PortId},
    metadata::Document,
    network::NetworkKind,
    port::Port,
};
use node::network::{
    directory::{Directory, Zone},
    dns_server::Upstream,
    servers::NetworkServers,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A directory over one view: instances are called by the last byte of their address.
struct Known {
    view: Mutex<NetworkView>,
    names: BTreeMap<u8, &'static str>,
}

fn last(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(a) => a.octets()[3],
        IpAddr::V6(a) => a.octets()[15],
    }
}

impl Known {
    fn facts(&self, found: impl Fn(&Port) -> bool) -> Option<PortFacts> {
        let view = self.view.lock().unwrap();
        let port = view.ports.iter().find(|port| found(port))?;
        Some(port_facts(&view, port, self.names.get(&last(port.addresses[0].address)).copied()))
    }
}

impl Directory for Known {
    fn port_of_device(&self, _: NetworkId, device: &str) -> Option<PortFacts> {
        self.facts(|port| port.device_name() == device)
    }
    fn port_of_address(&self, _: NetworkId, address: IpAddr) -> Option<PortFacts> {
        self.facts(|port| port.addresses.iter().any(|fixed| fixed.address == address))
    }
    fn zone(&self, _: NetworkId) -> Option<Zone> {
        let view = self.view.lock().unwrap();
        let ranges = view.subnets.iter().map(|subnet| subnet.cidr).collect();
        Some(Zone { domain: view.domain().to_string(), ranges, forward: view.has_way_out() })
    }
    fn addresses_of(&self, _: NetworkId, _: IpAddr, name: &str) -> Option<Vec<IpAddr>> {
        let (number, _) = self.names.iter().find(|(_, n)| **n == name)?;
        let view = self.view.lock().unwrap();
        let port = view.ports.iter().find(|port| last(port.addresses[0].address) == *number)?;
        Some(port.addresses.iter().map(|fixed| fixed.address).collect())
    }
    fn name_of(&self, _: NetworkId, address: IpAddr) -> Option<String> {
        self.facts(|port| port.addresses.iter().any(|fixed| fixed.address == address))?.hostname
    }
    fn document(&self, port: PortId, path: &str) -> Option<Document> {
        let body = format!("{port} {path}\n").into_bytes();
        (path != "/missing").then_some(Document { content_type: "text/plain", body })
    }
}

/// A lab with one network whose servers run.
struct Served {
    lab: Lab,
    cloud: usize,
    servers: Option<NetworkServers>,
    directory: Arc<Known>,
    runtime: tokio::runtime::Runtime,
}

impl Served {
    fn new(kind: NetworkKind, router: bool) -> Self {
        let mut lab = Lab::new();
        lab.external(None, false);
        let cloud = lab.cloud(kind, router.then_some(["203.0.113.10", "2001:db8:f::10"]));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let names = BTreeMap::from([(4, "web"), (5, "db")]);
        let directory = Arc::new(Known { view: Mutex::new(lab.clouds[cloud].view.clone()), names });
        Self { lab, cloud, servers: None, directory, runtime }
    }

    /// Starts the servers, or starts them again as a restarted daemon does.
    fn serve(&mut self) {
        if let Some(old) = self.servers.take() {
            self.runtime.block_on(old.stop());
        }
        let view = self.lab.clouds[self.cloud].view.clone();
        *self.directory.view.lock().unwrap() = view.clone();
        let outcome = self.lab.apply().into_iter().nth(self.cloud).unwrap();
        let namespace = self.lab.dataplane.namespace(self.lab.place(self.cloud)).unwrap();
        let upstream =
            Upstream { host: self.lab.dataplane.host(), resolvers: vec!["198.51.100.9:53".parse().unwrap()] };
        let _inside = self.runtime.enter();
        let servers =
            NetworkServers::start(&namespace, view.network.meta.id, self.directory.clone(), upstream)
                .unwrap();
        servers.set_devices(outcome.devices);
        self.servers = Some(servers);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(servers) = self.servers.take() {
            self.runtime.block_on(servers.stop());
        }
    }
}

/// Runs busybox's client and gives what it was told, as its script's environment.
fn udhcpc(guest: &Guest, options: &[&str]) -> Option<BTreeMap<String, String>> {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "#!/bin/sh\n[ \"$1\" = bound ] && env > \"$(dirname \"$0\")/told\"\nexit 0\n")
        .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut argv = vec!["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "4", "-T", "1", "-A", "0"];
    argv.extend([
        "-O",
        "mtu",
        "-O",
        "staticroutes",
        "-O",
        "search",
        "-O",
        "hostname",
        "-s",
        script.to_str().unwrap(),
    ]);
    argv.extend(options);
    let output = run(&guest.namespace, &argv);
    let told = std::fs::read_to_string(directory.path().join("told"));
    if !output.status.success() {
        return None;
    }
    let told = told.unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
    Some(told.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect())
}

#[test]
fn a_real_client_is_told_its_address_and_all_that_goes_with_it() {
    let mut served = Served::new(NetworkKind::Private, true);
    let group = served.lab.group(served.cloud, out());
    let a = served.lab.guest(served.cloud, 4, &[group]);
    let b = served.lab.guest(served.cloud, 5, &[group]);
    served.serve();
    for options in [&[][..], &["-B"][..], &["-r", "10.0.0.4"][..], &["-r", "10.0.0.77"][..]] {
        let told = udhcpc(&a, options).unwrap_or_else(|| panic!("no lease with {options:?}"));
        let of = |key: &str| told.get(key).map(String::as_str).unwrap_or_default();
        assert_eq!(of("ip"), "10.0.0.4");
        assert_eq!(of("subnet"), "255.255.255.0");
        assert_eq!(of("router"), "10.0.0.1");
        assert_eq!(of("dns"), "10.0.0.1");
        assert_eq!(of("domain"), "holm.internal");
        assert_eq!(of("search"), "holm.internal");
        assert_eq!(of("hostname"), "web");
        assert_eq!(of("mtu"), "1500");
        assert_eq!(of("lease"), "86400");
        assert_eq!(of("serverid"), "10.0.0.1");
        assert_eq!(
            of("staticroutes").split_whitespace().collect::<Vec<_>>(),
            ["169.254.169.254/32", "10.0.0.1", "0.0.0.0/0", "10.0.0.1"]
        );
    }
    assert_eq!(udhcpc(&b, &[]).expect("lease")["ip"], "10.0.0.5");
    // A guest that pretends to be its neighbour is not answered.
    let netlink = sys::netlink::Netlink::open(&b.namespace).unwrap();
    netlink.set_mac("eth0", a.port.mac.0).unwrap();
    assert!(udhcpc(&b, &["-t", "2", "-T", "1"]).is_none());
    // The daemon starts anew: the ports are free, and the same address is told.
    served.serve();
    assert_eq!(udhcpc(&a, &[]).expect("lease after a restart")["ip"], "10.0.0.4");
}

#[test]
fn a_subnet_without_gateway_still_reaches_its_services() {
    let mut served = Served::new(NetworkKind::Private, false);
    served.lab.clouds[served.cloud].view.subnets[0].gateway = None;
    let group = served.lab.group(served.cloud, out());
    let a = served.lab.guest(served.cloud, 4, &[group]);
    served.serve();
    let told = udhcpc(&a, &[]).expect("lease");
    assert_eq!(told.get("router"), None);
    assert_eq!(told["dns"], "169.254.169.254");
    assert_eq!(told["staticroutes"].trim(), "169.254.169.254/32 0.0.0.0");
}

#[test]
fn advertisements_and_dhcpv6_give_a_guest_its_address() {
    let mut served = Served::new(NetworkKind::Private, true);
    let group = served.lab.group(served.cloud, open());
    let a = served.lab.guest(served.cloud, 4, &[group]);
    let b = served.lab.guest(served.cloud, 5, &[group]).configure();
    served.serve();
    // The kernel of the guest solicits when its interface comes up and takes the default route from the answer.
    let netlink = sys::netlink::Netlink::open(&a.namespace).unwrap();
    for (key, value) in [("forwarding", "0"), ("accept_ra", "2"), ("autoconf", "1")] {
        sys::sysctl::write(&a.namespace, &format!("net/ipv6/conf/eth0/{key}"), value).unwrap();
    }
    netlink.set_down("eth0").unwrap();
    netlink.set_up("eth0").unwrap();
    let deadline = Instant::now() + PATIENCE;
    let routes = loop {
        let routes = text(&run(&a.namespace, &["ip", "-6", "route"]));
        if routes.contains("default via fe80::1 dev eth0 proto ra") {
            break routes;
        }
        assert!(Instant::now() < deadline, "no advertisement: {routes}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(!routes.contains("fd00:a::/64"), "the prefix is not on the link: {routes}");
    // The client wants a link-local address that is no longer being probed for duplicates.
    while text(&run(&a.namespace, &["ip", "-6", "address", "show", "dev", "eth0"])).contains("tentative") {
        assert!(Instant::now() < deadline, "the guest's link-local address stays tentative");
        std::thread::sleep(Duration::from_millis(20));
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    std::fs::write(file("conf"), "timeout 10; request dhcp6.name-servers, dhcp6.domain-search;\n").unwrap();
    std::fs::write(
        file("script"),
        "#!/bin/sh\n[ -n \"$new_ip6_address\" ] && env > \"$(dirname \"$0\")/told\"\nexit 0\n",
    )
    .unwrap();
    std::fs::set_permissions(file("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (conf, script, leases, pid) = (file("conf"), file("script"), file("leases"), file("pid"));
    let arguments = ["-cf", &conf, "-sf", &script, "-lf", &leases, "-pf", &pid, "eth0"];
    // In the foreground and ended by hand: in the background it could outlive the test.
    let log = std::fs::File::create(file("log")).unwrap();
    let mut client = a
        .namespace
        .run(|| Command::new("dhclient").args(["-6", "-1", "-d", "-v"]).args(arguments).stderr(log).spawn())
        .unwrap()
        .expect("dhclient");
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        let told = std::fs::read_to_string(file("told")).unwrap_or_default();
        // The last line that matters; env writes them all at once, but not in one go.
        if told.contains("new_dhcp6_domain_search=") && told.contains("new_ip6_address=")
            || Instant::now() >= deadline
        {
            break told;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    client.kill().and_then(|()| client.wait()).expect("ends");
    let log = std::fs::read_to_string(file("log")).unwrap();
    for line in [
        "new_ip6_address=fd00:a::4",
        "new_dhcp6_name_servers=fd00:a::1",
        "new_dhcp6_domain_search=holm.internal.",
    ] {
        assert!(told.lines().any(|l| l == line), "{line} in {told}: {log}");
    }
    let released = run(&a.namespace, &[&["dhclient", "-6", "-r"][..], &arguments[..]].concat());
    assert!(released.status.success(), "{}", text(&released));
    netlink.add_address("eth0", "fd00:a::4/128".parse().unwrap()).unwrap();
    assert!(ping(&a.namespace, b.v6(), PATIENCE), "by the advertised route");
}

fn dig(guest: &Guest, server: &str, arguments: &[&str]) -> String {
    let server = format!("@{server}");
    let mut argv = vec!["dig", &server, "+tries=2", "+time=3"];
    argv.extend(arguments);
    text(&run(&guest.namespace, &argv))
}

#[test]
fn instances_are_found_by_name_and_other_names_outside() {
    let mut served = Served::new(NetworkKind::Private, true);
    let group = served.lab.group(served.cloud, out());
    let a = served.lab.guest(served.cloud, 4, &[group]).configure();
    let _b = served.lab.guest(served.cloud, 5, &[group]).configure();
    served.serve();
    let outside = outside_resolver(&served.lab);
    for server in ["10.0.0.1", "fd00:a::1", "169.254.169.254"] {
        for transport in ["+notcp", "+tcp"] {
            let short = |name: &str, kind: &str| {
                dig(&a, server, &[transport, "+short", name, kind]).trim().to_string()
            };
            assert_eq!(short("db.holm.internal", "A"), "10.0.0.5", "{server} {transport}");
            assert_eq!(short("DB.holm.internal", "AAAA"), "fd00:a::5");
            assert_eq!(short("web", "A"), "10.0.0.4");
            assert_eq!(dig(&a, server, &[transport, "+short", "-x", "10.0.0.5"]).trim(), "db.holm.internal.");
            assert_eq!(
                dig(&a, server, &[transport, "+short", "-x", "fd00:a::5"]).trim(),
                "db.holm.internal."
            );
            assert_eq!(short("www.example.org", "A"), "192.0.2.80", "forwarded");
        }
    }
    let ask = |arguments: &[&str]| dig(&a, "10.0.0.1", arguments);
    assert!(ask(&["nobody.holm.internal"]).contains("status: NXDOMAIN"));
    assert!(ask(&["-x", "10.0.0.99"]).contains("status: NXDOMAIN"));
    let no_data = ask(&["db.holm.internal", "MX"]);
    assert!(
        no_data.contains("status: NOERROR") && no_data.contains("ANSWER: 0") && no_data.contains("SOA"),
        "{no_data}"
    );
    assert!(ask(&["holm.internal", "SOA"]).contains("hostmaster.holm.internal."));
    assert!(ask(&["+edns=1", "+noednsnegotiation", "db.holm.internal"]).contains("BADVERS"));
    assert!(ask(&["-c", "CH", "version.bind", "TXT"]).contains("status: REFUSED"));
    assert!(
        ask(&["silent.example.org", "+time=9"]).contains("status: SERVFAIL"),
        "the resolver does not answer this"
    );
    let nslookup = text(&run(&a.namespace, &["busybox", "nslookup", "db.holm.internal", "10.0.0.1"]));
    assert!(nslookup.contains("10.0.0.5"), "{nslookup}");
    drop(outside);
    // A network without a way out does not ask outside either.
    served.lab.clouds[served.cloud].view.routers.clear();
    served.serve();
    assert!(ask(&["www.example.org"]).contains("status: REFUSED"));
    assert!(ask(&["+short", "db.holm.internal"]).contains("10.0.0.5"));
}

/// A resolver outside that knows one name and is silent about another, over UDP and TCP.
fn outside_resolver(lab: &Lab) -> Arc<()> {
    use hickory_proto::{
        op::{Message, Metadata},
        rr::{RData, Record, rdata::A},
    };
    use std::io::{Read, Write};
    let alive = Arc::new(());
    let at: SocketAddr = "198.51.100.9:53".parse().unwrap();
    let answer = |bytes: &[u8]| -> Option<Vec<u8>> {
        let request = Message::from_vec(bytes).ok()?;
        let query = request.queries.first()?.clone();
        if query.name().to_ascii().starts_with("silent") {
            return None;
        }
        let mut message = Message::response(request.metadata.id, request.metadata.op_code);
        message.metadata = Metadata::response_from_request(&request.metadata);
        message.add_answer(Record::from_rdata(query.name().clone(), 60, RData::A(A::new(192, 0, 2, 80))));
        message.add_query(query);
        message.to_vec().ok()
    };
    let (udp, tcp) = lab
        .outside
        .run(|| (std::net::UdpSocket::bind(at).unwrap(), std::net::TcpListener::bind(at).unwrap()))
        .unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
            if let Some(bytes) = answer(&buffer[..length]) {
                let _ = udp.send_to(&bytes, peer);
            }
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            let Ok(()) = stream.read_exact(&mut question) else {
                continue;
            };
            if let Some(bytes) = answer(&question) {
                let _ = stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat());
            }
        }
    });
    alive
}

#[test]
fn each_guest_reads_its_own_metadata_and_nobody_elses() {
    let mut served = Served::new(NetworkKind::Private, true);
    let group = served.lab.group(served.cloud, out());
    let a = served.lab.guest(served.cloud, 4, &[group]).configure();
    let b = served.lab.guest(served.cloud, 5, &[group]).configure();
    served.serve();
    let get = |guest: &Guest, arguments: &[&str]| {
        let mut argv = vec!["curl", "-sS", "-m", "5"];
        argv.extend(arguments);
        text(&run(&guest.namespace, &argv))
    };
    let url = "http://169.254.169.254/latest/meta-data/instance-id";
    for guest in [&a, &b] {
        let own = format!("{} /latest/meta-data/instance-id\n", guest.port.meta.id);
        assert_eq!(get(guest, &[url]), own);
        assert_eq!(
            get(guest, &["-H", "X-Forwarded-For: 10.0.0.5", "-H", "X-Forwarded-For: 10.0.0.4", url]),
            own
        );
        assert_eq!(
            get(
                guest,
                &["--interface", "eth0", "http://[fe80::a9fe:a9fe%25eth0]/latest/meta-data/instance-id"]
            ),
            own
        );
    }
    assert!(get(&a, &["-i", "http://169.254.169.254/missing"]).starts_with("HTTP/1.1 404"));
    assert!(get(&a, &["-i", "-X", "POST", "-d", "x", url]).starts_with("HTTP/1.1 405"));
    let long = format!("http://169.254.169.254/{}", "x".repeat(2000));
    assert!(get(&a, &["-i", &long]).starts_with("HTTP/1.1 414"));
    let huge = format!("X-Long: {}", "x".repeat(20_000));
    assert!(get(&a, &["-i", "-H", &huge, url]).contains(" 431"), "a head that is too long");
    // The gateway's own address shows no metadata, and from outside the network there is none.
    assert!(get(&a, &["-m", "1", "http://10.0.0.1/"]).contains("curl:"));
}

#[test]
fn a_deleted_network_frees_everything() {
    let mut served = Served::new(NetworkKind::Private, false);
    let group = served.lab.group(served.cloud, out());
    let _a = served.lab.guest(served.cloud, 4, &[group]).configure();
    served.serve();
    let servers = served.servers.take().unwrap();
    served.runtime.block_on(servers.stop());
    let place = served.lab.place(served.cloud);
    let handle = served.lab.dataplane.handle(place).unwrap();
    assert!(handle.exists());
    served.lab.dataplane.remove(place).unwrap();
    assert!(!handle.exists());
    served.lab.dataplane.remove(place).unwrap();
}
