//! Exposure by tables of cases.

use super::*;
use crate::{
    address::Mac,
    dataplane::publish::Publication,
    flavor::Size,
    floating_ip::Target,
    id::*,
    instance::{Kind, Power},
    meta::Meta,
    network::NetworkKind,
    plan::{Accelerator, RestartPolicy},
    port::{Device, FixedIp, alias::Alias, spread::SpreadPort},
    publish::{Passage, Publish, passages, publications},
    subnet::Ipv6Part,
};
use std::collections::BTreeSet;

fn meta<Id>(id: Id, name: &str) -> Meta<Id> {
    let project = ProjectId::from_random([1; 16]);
    Meta::new(id, project, name.parse().unwrap(), jiff::Timestamp::UNIX_EPOCH)
}

fn rule(family: Family, text: &str, peer: &str) -> Rule {
    let (protocol, ports) = match text.split_once('/') {
        Some((protocol, ports)) => (Some(protocol), Some(ports)),
        None if text == "any" => (None, None),
        None => (Some(text), None),
    };
    let peer = match peer {
        "any" => Peer::Any,
        "group" => Peer::Group(SecurityGroupId::from_random([8; 16])),
        net => Peer::Net(net.parse().unwrap()),
    };
    Rule {
        id: RuleId::from_random([6; 16]),
        direction: Direction::Ingress,
        family,
        protocol: protocol.map(|p| p.parse().unwrap()),
        by_number: false,
        ports: ports.map(|p| p.parse().unwrap()),
        icmp: None,
        peer,
        description: String::new(),
    }
}

struct World {
    instance: Instance,
    port: Port,
    network: Network,
    floating: Vec<FloatingIp>,
    group: SecurityGroup,
    gate: Option<SecurityGroup>,
    /// A port whose traffic is spread.
    spread: Option<Port>,
}

fn addresses() -> Vec<FixedIp> {
    let subnet = SubnetId::from_random([7; 16]);
    ["10.0.0.4", "fd00::4"].map(|a| FixedIp { subnet, address: a.parse().unwrap() }).to_vec()
}

fn port_of(instance: InstanceId, network: NetworkId, id: PortId, group: SecurityGroupId) -> Port {
    Port {
        meta: meta(id, "port"),
        network,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        addresses: addresses(),
        device: Device::Instance(instance),
        security_groups: vec![group],
        port_security: true,
        allowed_pairs: vec![],
        admin_up: true,
        rate_mbit: None,
        foreign_user: None,
        delete_with_instance: true,
        device_tag: None,
        aliases: vec![],
        spread: None,
    }
}

impl World {
    fn new(rules: Vec<Rule>) -> Self {
        let (network, port) = (NetworkId::from_random([3; 16]), PortId::from_random([4; 16]));
        let (instance, group) = (InstanceId::from_random([2; 16]), SecurityGroupId::from_random([5; 16]));
        Self {
            instance: Instance {
                meta: meta(instance, "web"),
                user: None,
                kind: Kind::Container,
                size: Size { vcpus: 1, memory_mib: 1, disk_gib: 0 },
                cpu_weight: 100,
                flavor: None,
                flavor_name: String::new(),
                image: None,
                ports: vec![port],
                publish: vec![],
                volumes: vec![],
                keys: vec![],
                user_data_base64: None,
                config_drive: false,
                accelerator: Accelerator::Auto,
                containers: vec![],
                power: Power::On,
                boots: 1,
                hard: false,
                autostart: false,
                start_after: vec![],
                restart: RestartPolicy::No,
                grace_s: 1,
                remove_on_exit: false,
                node: None,
                id_slot: None,
                lock: None,
                tags: Default::default(),
                access: Default::default(),
                rebuilt: 0,
                build: 0,
                trial: None,
                shelved: false,
                extra_hosts: vec![],
                succession: None,
                rescue: None,
                unrescued: None,
                files: vec![],
                schedule: None,
                shared: Default::default(),
                isolation: Default::default(),
                suspended: false,
                server_group: None,
            },
            port: port_of(instance, network, port, group),
            network: Network {
                meta: meta(network, "net"),
                kind: NetworkKind::Private,
                mtu: 1500,
                shared: false,
                port_security: true,
                dns_domain: String::new(),
                admin_up: true,
            },
            floating: vec![],
            group: SecurityGroup { meta: meta(group, "group"), rules, is_default: false, stateful: true },
            gate: None,
            spread: None,
        }
    }

    /// A floating IP of an address that leads to the instance.
    fn spread(mut self, outer: &str) -> Self {
        let (id, group) = (PortId::from_random([41; 16]), SecurityGroupId::from_random([42; 16]));
        let led = SpreadPort { protocol: Protocol::TCP, port: 80, to: 8080 };
        let over: Alias = "web.pods".parse().unwrap();
        self.port.aliases = vec![over.clone()];
        self.spread = Some(Port {
            device: Device::None,
            security_groups: vec![],
            spread: Some(Spread { over, ports: vec![led] }),
            ..port_of(self.instance.meta.id, self.network.meta.id, id, group)
        });
        let target =
            Target { port: id, address: "10.0.0.4".parse().unwrap(), router: RouterId::from_random([8; 16]) };
        let address = outer.parse().unwrap();
        let meta = meta(FloatingIpId::from_random([43; 16]), "fip");
        let network = NetworkId::from_random([9; 16]);
        self.floating.push(FloatingIp { meta, network, address, target: Some(target), internal: false });
        self
    }

    /// The same behind a subnet with a group of these rules.
    fn gated(mut self, rules: Vec<Rule>) -> Self {
        let id = SecurityGroupId::from_random([15; 16]);
        self.gate = Some(SecurityGroup { meta: meta(id, "gate"), rules, is_default: false, stateful: true });
        self
    }

    fn floating(mut self, outer: &str, internal: bool) -> Self {
        let outer: IpAddr = outer.parse().unwrap();
        let inner = self.port.addresses.iter().find(|a| a.address.is_ipv4() == outer.is_ipv4());
        self.floating.push(FloatingIp {
            meta: meta(FloatingIpId::from_random([self.floating.len() as u8; 16]), "fip"),
            network: NetworkId::from_random([9; 16]),
            address: outer,
            target: Some(Target {
                port: self.port.meta.id,
                address: inner.unwrap().address,
                router: RouterId::from_random([8; 16]),
            }),
            internal,
        });
        self
    }

    fn publish(mut self, address: Option<&str>, host_port: u16, port: u16) -> Self {
        self.instance.publish.push(Publish {
            address: address.map(|a| a.parse().unwrap()),
            host_port,
            port,
            protocol: Protocol::TCP,
        });
        self
    }

    fn lines(&self) -> Vec<String> {
        let cidr = "10.0.0.0/24".parse().unwrap();
        let subnet = Subnet {
            meta: meta(SubnetId::from_random([7; 16]), "subnet"),
            network: self.network.meta.id,
            cidr,
            gateway: None,
            dhcp: true,
            dns_servers: vec![],
            pools: vec![],
            host_routes: vec![],
            ipv6_mode: None,
            ipv6_part: Ipv6Part::Both,
            security_groups: self.gate.iter().map(|gate| gate.meta.id).collect(),
            subnet_pool: None,
        };
        let groups: Vec<SecurityGroup> = self.gate.iter().chain([&self.group]).cloned().collect();
        let ports: Vec<Port> = [&self.port].into_iter().chain(&self.spread).cloned().collect();
        let view = ExposureView {
            instances: std::slice::from_ref(&self.instance),
            subnets: std::slice::from_ref(&subnet),
            ports: &ports,
            networks: std::slice::from_ref(&self.network),
            floating_ips: &self.floating,
            groups: &groups,
        };
        let line = |e: &Exposure| {
            let protocol = e.protocol.map_or("any".into(), |p| p.to_string());
            let ports = e.ports.map_or("*".into(), |p| p.to_string());
            let inner = e.inner_port.map_or(String::new(), |p| format!(">{p}"));
            let from: Vec<String> = e.from.iter().map(IpNet::to_string).collect();
            format!("{} {protocol} {ports}{inner} [{}]", e.address, from.join(" "))
        };
        exposures(&view).iter().map(line).collect()
    }
}

#[test]
fn a_floating_ip_shows_what_its_groups_let_in() {
    use Family::*;
    let world = World::new(vec![
        rule(Ipv4, "tcp/22", "192.0.2.7/32"),
        rule(Ipv4, "tcp/80", "any"),
        rule(Ipv4, "tcp/80", "192.0.2.0/24"),
        rule(Ipv4, "icmp", "any"),
        rule(Ipv4, "udp/53", "group"),
        rule(Ipv6, "tcp/443", "any"),
    ])
    .floating("203.0.113.5", false);
    assert_eq!(
        world.lines(),
        [
            "203.0.113.5 icmp * [0.0.0.0/0]",
            "203.0.113.5 tcp 22 [192.0.2.7/32]",
            "203.0.113.5 tcp 80 [0.0.0.0/0]",
        ]
    );
    let closed = World::new(vec![rule(Ipv4, "tcp/80", "group")]).floating("203.0.113.5", false);
    assert_eq!(closed.lines(), ["203.0.113.5 any * []"]);
    let mut open = World::new(vec![]).floating("203.0.113.5", false);
    open.port.port_security = false;
    assert_eq!(open.lines(), ["203.0.113.5 any * [0.0.0.0/0]"]);
    open.port.admin_up = false;
    assert_eq!(open.lines(), ["203.0.113.5 any * []"]);
}

#[test]
fn a_group_of_the_subnet_narrows_what_the_ports_own_let_in() {
    use Family::*;
    let own = || {
        vec![rule(Ipv4, "tcp/1-100", "192.0.2.0/24"), rule(Ipv4, "udp/53", "any"), rule(Ipv4, "icmp", "any")]
    };
    let gate = vec![rule(Ipv4, "tcp/80", "any"), rule(Ipv4, "any", "192.0.2.128/25")];
    let world = World::new(own()).gated(gate).floating("203.0.113.5", false);
    assert_eq!(
        world.lines(),
        [
            "203.0.113.5 icmp * [192.0.2.128/25]",
            "203.0.113.5 tcp 1-100 [192.0.2.128/25]",
            "203.0.113.5 tcp 80 [192.0.2.0/24]",
            "203.0.113.5 udp 53 [192.0.2.128/25]",
        ]
    );
    let shut = World::new(own()).gated(vec![]).floating("203.0.113.5", false);
    assert_eq!(shut.lines(), ["203.0.113.5 any * []"]);
}

#[test]
fn a_published_port_opens_nothing_by_itself() {
    use Family::*;
    let rules = vec![rule(Ipv4, "tcp/80", "any"), rule(Ipv6, "any", "2001:db8::/32")];
    let world = World::new(rules)
        .floating("203.0.113.5", true)
        .floating("2001:db8:f::5", true)
        .publish(None, 8080, 80)
        .publish(Some("192.0.2.1"), 2222, 22);
    assert_eq!(
        world.lines(),
        ["0.0.0.0 tcp 8080>80 [0.0.0.0/0]", "192.0.2.1 tcp 2222>22 []", ":: tcp 8080>80 [2001:db8::/32]",],
        "the cloud's own addresses are no way in of their own"
    );
    let mut going = world;
    going.instance.meta.deleted_at = Some(jiff::Timestamp::UNIX_EPOCH);
    assert!(going.lines().is_empty());
    assert!(publications(&going.instance, &going.floating).is_empty());
}

#[test]
fn packets_are_led_over_a_floating_ip_before_one_of_the_clouds_own() {
    let world = World::new(vec![])
        .floating("203.0.113.5", true)
        .floating("203.0.113.6", false)
        .floating("2001:db8:f::5", true)
        .publish(Some("0.0.0.0"), 8080, 80)
        .publish(Some("::1"), 8081, 81);
    let publication = |address: Option<&str>, port, to: &str| Publication {
        protocol: Protocol::TCP,
        address: address.map(|a| a.parse().unwrap()),
        port,
        to: to.parse().unwrap(),
    };
    assert_eq!(
        publications(&world.instance, &world.floating),
        [publication(None, 8080, "203.0.113.6:80"), publication(Some("::1"), 8081, "[2001:db8:f::5]:81"),]
    );
    let passage = Passage { outside: "2001:db8:f::5".parse().unwrap(), protocol: Protocol::TCP, port: 81 };
    assert_eq!(passages(&world.instance, &world.floating), BTreeSet::from([passage]));
}

#[test]
fn an_address_that_is_spread_shows_what_those_behind_it_let_in() {
    use Family::*;
    let rules = || {
        vec![
            rule(Ipv4, "tcp/8080", "192.0.2.0/25"),
            rule(Ipv4, "any", "192.0.2.128/25"),
            rule(Ipv4, "tcp/80", "any"),
        ]
    };
    let world = World::new(rules()).spread("203.0.113.5");
    assert_eq!(
        world.lines(),
        ["203.0.113.5 icmp * [0.0.0.0/0]", "203.0.113.5 tcp 80>8080 [192.0.2.0/24]"],
        "the port of those behind it counts"
    );
    let mut nobody = World::new(rules()).spread("203.0.113.5");
    nobody.port.aliases.clear();
    assert_eq!(nobody.lines()[1], "203.0.113.5 tcp 80>8080 []");
}
