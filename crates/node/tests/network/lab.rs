//! A small world for packets: a host, an outside and guests, each a namespace of its own, and clouds on the host.
//!
//! ```text
//!  guests … cloud … host ── 192.0.2.1/24  192.0.2.2/24 ── outside (also 198.51.100.9, "the internet")
//!                           2001:db8:ff::1         ::2
//! ```
//!
//! Nothing here touches the namespace that the test was started in.

use model::{
    dataplane::{
        allow::{Flow, allows},
        external, host,
        host::HostSettings,
        namespace::Place,
        network, router,
        view::{AttachedRouter, Attachment, ExternalView, NetworkView, Outside, RouterView},
    },
    floating_ip::{FloatingIp, Target},
    id::*,
    meta::Meta,
    network::{External, Network, NetworkKind},
    port::{Device, FixedIp, Port},
    router::{Gateway, Interface, Router},
    security_group::{Direction, Family, Peer, PortRange, Rule, SecurityGroup},
    subnet::{Ipv6Mode, Ipv6Part, Subnet},
};
use node::network::apply::{Dataplane, Outcome};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Output},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use sys::{
    netlink::{Netlink, Route, RouteTarget},
    netns::NetNs,
};

/// How long a packet that must arrive may take.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long one waits for a packet that must not arrive.
pub const SILENCE: Duration = Duration::from_millis(300);

static SERIAL: AtomicU64 = AtomicU64::new(1);

fn random_bytes() -> [u8; 16] {
    let mut bytes = rand::random::<[u8; 16]>();
    bytes[15] = SERIAL.fetch_add(1, Ordering::Relaxed) as u8;
    bytes
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn meta<Id>(id: Id, name: &str) -> Meta<Id> {
    Meta::new(id, ProjectId::from_random([1; 16]), name.parse().expect(name), jiff::Timestamp::UNIX_EPOCH)
}

/// The host with its outside.
pub struct Lab {
    pub run: tempfile::TempDir,
    pub dataplane: Dataplane,
    pub host: NetNs,
    pub outside: NetNs,
    pub clouds: Vec<Cloud>,
    pub externals: Vec<ExternalView>,
}

/// One network of a project with its router.
#[derive(Clone)]
pub struct Cloud {
    pub view: NetworkView,
    pub router: Option<RouterView>,
}

/// A guest: a namespace with `eth0`.
pub struct Guest {
    pub namespace: NetNs,
    pub port: Port,
}

impl Lab {
    pub fn new() -> Self {
        let run = tempfile::tempdir().expect("temporary directory");
        let host = NetNs::anonymous().expect("host");
        let outside = NetNs::anonymous().expect("outside");
        let (here, there) =
            (Netlink::open(&host).expect("netlink"), Netlink::open(&outside).expect("netlink"));
        here.set_up("lo").expect("lo");
        there.set_up("lo").expect("lo");
        for namespace in [&host, &outside] {
            sys::sysctl::write(namespace, "net/ipv6/conf/default/accept_dad", "0").expect("sysctl");
        }
        here.add_veth("lan0", "lan0", Some(&outside)).expect("veth");
        for (netlink, last) in [(&here, 1), (&there, 2)] {
            netlink.set_up("lan0").expect("up");
            netlink.add_address("lan0", format!("192.0.2.{last}/24").parse().unwrap()).expect("address");
            netlink.add_address("lan0", format!("2001:db8:ff::{last}/64").parse().unwrap()).expect("address");
        }
        there.add_address("lo", "198.51.100.9/32".parse().unwrap()).expect("address");
        there.add_address("lo", "2001:db8:99::9/128".parse().unwrap()).expect("address");
        for (destination, gateway) in
            [("198.51.100.0/24", "192.0.2.2"), ("2001:db8:99::/64", "2001:db8:ff::2")]
        {
            here.replace_route(&via(destination, gateway, "lan0")).expect("route");
        }
        let handle = NetNs::anonymous().map(|_| ()).and_then(|()| clone(&host)).expect("host again");
        let dataplane = Dataplane::new(&run.path().join("netns"), handle, HostSettings::default());
        Self { run, dataplane, host, outside, clouds: Vec::new(), externals: Vec::new() }
    }

    /// An external network with the pools 203.0.113.0/24 and 2001:db8:f::/64, reached from outside by routing.
    pub fn external(&mut self, interface: Option<&str>, masquerade: bool) -> NetworkId {
        let id = NetworkId::from_random(random_bytes());
        let external = External { interface: interface.map(str::to_string), masquerade, is_default: true };
        let network = network_record(id, "internet", NetworkKind::External(external));
        let subnets = match interface {
            None => vec![
                subnet(id, "203.0.113.0/24", Some("203.0.113.1")),
                subnet(id, "2001:db8:f::/64", Some("2001:db8:f::1")),
            ],
            Some(_) => vec![subnet(id, "192.0.2.0/24", None), subnet(id, "2001:db8:ff::/64", None)],
        };
        self.externals.push(ExternalView { network, subnets, routers: Vec::new(), floating_ips: Vec::new() });
        if interface.is_none() && !masquerade {
            let there = Netlink::open(&self.outside).expect("netlink");
            for (pool, gateway) in [("203.0.113.0/24", "192.0.2.1"), ("2001:db8:f::/64", "2001:db8:ff::1")] {
                there.replace_route(&via(pool, gateway, "lan0")).expect("route");
            }
        }
        id
    }

    /// A network 10.0.0.0/24 and fd00:a::/64, with a router to the first external network at `outer` if given.
    pub fn cloud(&mut self, kind: NetworkKind, outer: Option<[&str; 2]>) -> usize {
        let id = NetworkId::from_random(random_bytes());
        let subnets =
            vec![subnet(id, "10.0.0.0/24", Some("10.0.0.1")), subnet(id, "fd00:a::/64", Some("fd00:a::1"))];
        let mut view = NetworkView {
            network: network_record(id, "net", kind),
            subnets,
            ports: Vec::new(),
            groups: Vec::new(),
            members: BTreeMap::new(),
            routers: Vec::new(),
            attachments: BTreeMap::new(),
            spreads: Vec::new(),
        };
        let router = outer.map(|outer| self.make_router(&mut view, outer));
        self.clouds.push(Cloud { view, router });
        self.clouds.len() - 1
    }

    fn make_router(&mut self, view: &mut NetworkView, outer: [&str; 2]) -> RouterView {
        let external = &mut self.externals[0];
        let gateway = Gateway {
            network: external.network.meta.id,
            port: PortId::from_random(random_bytes()),
            snat: true,
        };
        let interface = |s: &Subnet| Interface {
            subnet: s.meta.id,
            network: s.network,
            port: PortId::from_random(random_bytes()),
        };
        let router = Router {
            meta: meta(RouterId::from_random(random_bytes()), "router"),
            gateway: Some(gateway),
            interfaces: view.subnets.iter().map(interface).collect(),
            routes: Vec::new(),
            admin_up: true,
        };
        let addresses: Vec<IpAddr> = outer.iter().map(|a| address(a)).collect();
        external.routers.push((router.clone(), addresses.clone()));
        view.routers.push(AttachedRouter {
            router: router.clone(),
            addresses: view.subnets.iter().filter_map(|s| s.gateway).collect(),
            far_ranges: Vec::new(),
        });
        RouterView {
            router,
            subnets: view.subnets.iter().map(|s| (s.clone(), view.network.mtu)).collect(),
            outside: Some(Outside { network: external.network.meta.id, addresses, mtu: 1500 }),
            floating_ips: Vec::new(),
            passages: Default::default(),
        }
    }

    /// Writes everything, in an order that must not matter.
    pub fn apply(&self) -> Vec<Outcome> {
        self.apply_with(&self.dataplane)
    }

    /// As [`Self::apply`], by another daemon.
    pub fn apply_with(&self, dataplane: &Dataplane) -> Vec<Outcome> {
        let settings = dataplane.settings();
        let mut outcomes = Vec::new();
        let mut apply =
            |plan| outcomes.push(dataplane.apply(&plan).unwrap_or_else(|e| panic!("{}", chain(&e))));
        for cloud in &self.clouds {
            let device = settings.host_only_device(cloud.view.network.meta.id);
            apply(network::compile(&cloud.view, &device));
            if let Some(view) = &cloud.router {
                apply(router::compile(view));
            }
        }
        for view in &self.externals {
            apply(external::compile(view, &settings.external_device(view.network.meta.id)));
        }
        let host_only: Vec<NetworkView> =
            self.clouds.iter().map(|c| &c.view).filter(|v| v.is_host_only()).cloned().collect();
        apply(host::compile(settings, &self.externals, &host_only));
        outcomes
    }

    pub fn place(&self, cloud: usize) -> Place {
        Place::Network(self.clouds[cloud].view.network.meta.id)
    }

    /// Adds a port and its guest; the guest has the addresses ending in `last` of both subnets.
    pub fn guest(&mut self, cloud: usize, last: u8, groups: &[SecurityGroupId]) -> Guest {
        let port = self.port(cloud, last, groups);
        self.apply();
        self.plug(cloud, &port)
    }

    /// Adds a port without a guest.
    pub fn port(&mut self, cloud: usize, last: u8, groups: &[SecurityGroupId]) -> Port {
        let view = &mut self.clouds[cloud].view;
        let fixed = |s: &Subnet| FixedIp {
            subnet: s.meta.id,
            address: model::address::nth(&s.cidr, u128::from(last)).unwrap(),
        };
        let port = Port {
            meta: meta(PortId::from_random(random_bytes()), "port"),
            network: view.network.meta.id,
            mac: model::address::Mac([0xfa, 0x16, 0x3e, 0, cloud as u8, last]),
            addresses: view.subnets.iter().map(fixed).collect(),
            device: Device::Instance(InstanceId::from_random(random_bytes())),
            security_groups: groups.to_vec(),
            port_security: true,
            allowed_pairs: Vec::new(),
            admin_up: true,
            rate_mbit: None,
            foreign_user: None,
            delete_with_instance: true,
            device_tag: None,
            aliases: vec![],
            spread: None,
        };
        view.attachments.insert(port.meta.id, Attachment::Veth);
        view.ports.push(port.clone());
        self.count_members();
        port
    }

    /// Members of groups, as the control room would gather them.
    pub fn count_members(&mut self) {
        for cloud in &mut self.clouds {
            let view = &mut cloud.view;
            view.members.clear();
            for port in &view.ports {
                for group in &port.security_groups {
                    view.members.entry(*group).or_default().extend(port.addresses.iter().map(|f| f.address));
                }
            }
        }
    }

    /// Takes the waiting end of a port's veth into a new namespace and sets it up as a container's would be.
    pub fn plug(&self, cloud: usize, port: &Port) -> Guest {
        let namespace = NetNs::anonymous().expect("guest");
        sys::sysctl::write(&namespace, "net/ipv6/conf/default/accept_dad", "0").expect("sysctl");
        let there = self.dataplane.namespace(self.place(cloud)).expect("network's namespace");
        let outer = Netlink::open(&there).expect("netlink");
        let peer = network::peer_device(port);
        outer.set_ns(&peer, &namespace).expect("move");
        let inner = Netlink::open(&namespace).expect("netlink");
        inner.rename(&peer, "eth0").expect("rename");
        inner.set_mac("eth0", port.mac.0).expect("mac");
        inner.set_up("lo").expect("up");
        inner.set_up("eth0").expect("up");
        Guest { namespace, port: port.clone() }
    }

    /// A floating IP at `outer` that leads to `port`, or nowhere.
    pub fn floating(&mut self, outer: &str, to: Option<(usize, &Port)>) {
        let outer = address(outer);
        let target = to.map(|(cloud, port)| Target {
            port: port.meta.id,
            address: port
                .addresses
                .iter()
                .map(|f| f.address)
                .find(|a| a.is_ipv4() == outer.is_ipv4())
                .unwrap(),
            router: self.clouds[cloud].router.as_ref().expect("router").router.meta.id,
        });
        let mut record = FloatingIp {
            meta: meta(FloatingIpId::from_random(random_bytes()), "fip"),
            network: self.externals[0].network.meta.id,
            address: outer,
            target,
            internal: false,
        };
        let all = &mut self.externals[0].floating_ips;
        if let Some(old) = all.iter().find(|f| f.address == outer) {
            record.meta = old.meta.clone();
        }
        all.retain(|f| f.address != outer);
        all.push(record);
        let all = all.clone();
        for view in self.clouds.iter_mut().filter_map(|cloud| cloud.router.as_mut()) {
            let leads_here = |f: &&FloatingIp| f.target.is_some_and(|t| t.router == view.router.meta.id);
            view.floating_ips = all.iter().filter(leads_here).cloned().collect();
        }
    }

    /// Adds a group with these rules to a cloud.
    pub fn group(&mut self, cloud: usize, rules: Vec<Rule>) -> SecurityGroupId {
        let id = SecurityGroupId::from_random(random_bytes());
        let group = SecurityGroup { meta: meta(id, "group"), rules, is_default: false, stateful: true };
        self.clouds[cloud].view.groups.push(group);
        id
    }

    pub fn set_rules(&mut self, cloud: usize, id: SecurityGroupId, rules: Vec<Rule>) {
        let groups = &mut self.clouds[cloud].view.groups;
        groups.iter_mut().find(|g| g.meta.id == id).expect("group").rules = rules;
    }

    /// What the model says of a flow in a cloud's network.
    pub fn model_allows(&self, cloud: usize, flow: &Flow) -> bool {
        allows(&self.clouds[cloud].view, flow).is_allowed()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mut places = Vec::new();
        for cloud in &self.clouds {
            places.push(Place::Network(cloud.view.network.meta.id));
            places.extend(cloud.router.as_ref().map(|r| Place::Router(r.router.meta.id)));
        }
        places.extend(self.externals.iter().map(|e| Place::External(e.network.meta.id)));
        for place in places {
            let _ = self.dataplane.remove(place);
        }
    }
}

impl Guest {
    /// The guest's address of one family.
    pub fn v4(&self) -> IpAddr {
        self.port.addresses[0].address
    }
    pub fn v6(&self) -> IpAddr {
        self.port.addresses[1].address
    }

    /// Gives the guest its addresses and routes by hand, as a container is given them.
    pub fn configure(self) -> Self {
        self.configure_by("10.0.0.1")
    }

    pub fn configure_by(self, gateway: &str) -> Self {
        let netlink = Netlink::open(&self.namespace).expect("netlink");
        netlink.add_address("eth0", format!("{}/24", self.v4()).parse().unwrap()).expect("address");
        netlink.add_address("eth0", format!("{}/128", self.v6()).parse().unwrap()).expect("address");
        netlink.replace_route(&via("0.0.0.0/0", gateway, "eth0")).expect("route");
        netlink.replace_route(&via("::/0", "fe80::1", "eth0")).expect("route");
        self
    }
}

fn via(destination: &str, gateway: &str, device: &str) -> Route {
    let target = RouteTarget::Via { gateway: address(gateway), device: Some(device.into()), onlink: true };
    Route::new(destination.parse().unwrap(), target)
}

fn clone(namespace: &NetNs) -> sys::error::Result<NetNs> {
    namespace.run(NetNs::current).map_err(|e| sys::error::Error::new("enter", "namespace", e))?
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn network_record(id: NetworkId, name: &str, kind: NetworkKind) -> Network {
    Network {
        meta: meta(id, name),
        kind,
        mtu: 1500,
        shared: false,
        port_security: true,
        dns_domain: String::new(),
        admin_up: true,
    }
}

fn subnet(network: NetworkId, cidr: &str, gateway: Option<&str>) -> Subnet {
    let cidr: ipnet::IpNet = cidr.parse().unwrap();
    Subnet {
        meta: meta(SubnetId::from_random(random_bytes()), "subnet"),
        network,
        cidr,
        gateway: gateway.map(address),
        dhcp: true,
        dns_servers: Vec::new(),
        pools: Vec::new(),
        host_routes: Vec::new(),
        ipv6_mode: cidr.addr().is_ipv6().then_some(Ipv6Mode::Stateful),
        ipv6_part: Ipv6Part::Both,
        security_groups: Vec::new(),
        subnet_pool: None,
    }
}

/// A rule in one line: `rule(Ingress, V4, "tcp", Some("22"), Peer::Any)`.
pub fn rule(
    direction: Direction,
    family: Family,
    protocol: Option<&str>,
    ports: Option<&str>,
    peer: Peer,
) -> Rule {
    let rule = Rule {
        id: RuleId::from_random(random_bytes()),
        direction,
        family,
        protocol: protocol.map(|p| p.parse().unwrap()),
        by_number: false,
        ports: ports.map(|p| p.parse::<PortRange>().unwrap()),
        icmp: None,
        peer,
        description: String::new(),
    };
    rule.check().expect("rule");
    rule
}

/// What a default group lets pass: everything out, both families.
pub fn out() -> Vec<Rule> {
    [Family::Ipv4, Family::Ipv6].map(|family| rule(Direction::Egress, family, None, None, Peer::Any)).to_vec()
}

/// Everything in and out.
pub fn open() -> Vec<Rule> {
    let mut rules = out();
    rules.extend(
        [Family::Ipv4, Family::Ipv6].map(|family| rule(Direction::Ingress, family, None, None, Peer::Any)),
    );
    rules
}

pub fn run(namespace: &NetNs, argv: &[&str]) -> Output {
    namespace.run(|| Command::new(argv[0]).args(&argv[1..]).output()).expect("enter").expect(argv[0])
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// One echo request, repeated until one is answered or patience ends.
pub fn ping(from: &NetNs, to: IpAddr, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let wait = format!("{}", patience.as_secs_f32().min(1.0));
    loop {
        if run(from, &["ping", "-n", "-c1", "-W", &wait, &to.to_string()]).status.success() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

/// A TCP server that says who it sees and then echoes, until the listener's owner goes.
pub fn serve_tcp(namespace: &NetNs, at: SocketAddr) -> SocketAddr {
    let listener = namespace.run(|| TcpListener::bind(at)).unwrap().unwrap_or_else(|e| panic!("{at}: {e}"));
    let bound = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || -> io::Result<()> {
                let peer = stream.peer_addr()?.ip();
                stream.write_all(format!("{peer}\n").as_bytes())?;
                let mut buffer = [0; 512];
                loop {
                    let length = stream.read(&mut buffer)?;
                    if length == 0 {
                        return Ok(());
                    }
                    stream.write_all(&buffer[..length])?;
                }
            });
        }
    });
    bound
}

/// A UDP server that answers each datagram with who it sees.
pub fn serve_udp(namespace: &NetNs, at: SocketAddr) -> SocketAddr {
    let socket = namespace.run(|| UdpSocket::bind(at)).unwrap().unwrap_or_else(|e| panic!("{at}: {e}"));
    let bound = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
    bound
}

/// Connects and returns the stream and whom the server saw.
pub fn connect(from: &NetNs, to: SocketAddr, patience: Duration) -> io::Result<(TcpStream, IpAddr)> {
    let mut stream = from.run(|| TcpStream::connect_timeout(&to, patience))??;
    stream.set_read_timeout(Some(patience))?;
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    let seen = String::from_utf8_lossy(&line).parse().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((stream, seen))
}

/// Whether an established stream still carries bytes both ways.
pub fn echoes(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.set_write_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut buffer).is_ok() && &buffer == b"ping"
}

/// Asks a UDP server whom it sees.
pub fn ask_udp(from: &NetNs, to: SocketAddr, patience: Duration) -> io::Result<IpAddr> {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let socket = from.run(|| UdpSocket::bind(any))??;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"who am I")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    String::from_utf8_lossy(&buffer[..length]).parse().map_err(|_| io::ErrorKind::InvalidData.into())
}
