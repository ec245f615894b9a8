//! Floating IPs beyond one container: on a LAN, whose neighbours are told of every move, and of pods, whose containers stand
//! behind one address and one set of groups.

use api::v1::types::{
    floating_ip::{CreateFloatingIp, FloatingIp, TargetRequest},
    instance::{ContainerRequest, CreateInstance, Instance},
    network::{CreateNetwork, External, Network, NetworkKind},
    publish::PublishedPort,
    security_group::{CreateSecurityGroup, SecurityGroup},
    stream::ExecRequest,
    subnet::{CreateSubnet, Subnet},
};
use lab::{
    Capture, Cloud, INTERNET, Lab, MACHINE, Ran, Watch, can_connect, eventually, http_get, ping, v4_of,
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use sys::netns::NetNs;

const SHORT: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_secs(20);

/// A range of the LAN's own addresses, which holm answers for on its interface.
fn add_lan_pool(lab: &Lab) {
    let admin = lab.project("admin");
    admin.create::<Network>(&CreateNetwork {
        name: "lan".into(),
        kind: NetworkKind::External,
        external: Some(External { interface: Some("lan0".into()), masquerade: false, is_default: false }),
        ..CreateNetwork::default()
    });
    for (name, cidr, start, end) in [
        ("lan-v4", "203.0.113.0/24", "203.0.113.100", "203.0.113.120"),
        ("lan-v6", "2001:db8:113::/64", "2001:db8:113::100", "2001:db8:113::120"),
    ] {
        let request = serde_json::json!({
            "name": name, "network": "lan", "cidr": cidr, "pools": [{"start": start, "end": end}],
        });
        admin.create::<Subnet>(&serde_json::from_value::<CreateSubnet>(request).unwrap());
    }
}

fn add_floating(shop: &Cloud, name: &str, family: u8, instance: &str) -> IpAddr {
    let target = TargetRequest { instance: Some(instance.into()), ..TargetRequest::default() };
    let request = CreateFloatingIp {
        name: Some(name.into()),
        network: Some("lan".into()),
        family: Some(family),
        target: Some(target),
        ..CreateFloatingIp::default()
    };
    shop.create::<FloatingIp>(&request).address
}

#[test]
fn a_move_is_told_to_the_lan_and_restarts_nobody() {
    let lab = Lab::new();
    add_lan_pool(&lab);
    let shop = lab.project("shop");
    shop.set_gateway("lan");
    shop.add_group("web", &["tcp 80", "icmp"]);
    for name in ["left", "right"] {
        let groups = Some(vec!["default".into(), "web".into()]);
        shop.launch(&CreateInstance { security_groups: groups, ..shop.container(name, "web") });
        shop.exec(name, &format!("echo {name} >/tmp/name")).text();
    }
    let outside = &lab.world.outside;
    let heard = Capture::begin(outside, "eth0", lab.directory().join("lan.dump"));
    let (v4, v6) = (add_floating(&shop, "four", 4, "left"), add_floating(&shop, "six", 6, "left"));
    let arp = format!("Request who-has {v4} tell {v4}");
    let arp_with_mac = format!("Request who-has {v4} (");
    let count = |text: &str| {
        let told = |line: &&str| {
            line.contains(&arp) || line.contains(&arp_with_mac) && line.contains(&format!("tell {v4}"))
        };
        let v4_told = text.lines().filter(told).count();
        let v6_told =
            text.lines().filter(|l| l.contains("neighbor advertisement") && l.contains(&v6.to_string()));
        // An answer to somebody's question is no announcement: those go to all nodes.
        (v4_told, v6_told.filter(|line| line.contains("> ff02::1:")).count())
    };
    eventually("both addresses are told of", LONG, || {
        let (v4, v6) = count(&heard.text());
        v4 > 0 && v6 > 0
    });
    for address in [v4, v6] {
        eventually("left answers", LONG, || ping(outside, address, SHORT));
    }

    let uptimes =
        || ["left", "right"].map(|name| (shop.instance(name).facts["pid"].clone(), start_of(&shop, name)));
    let (before, told) = (uptimes(), count(&heard.text()));
    let watch = Watch::begin(outside, SocketAddr::new(v4, 80));
    eventually("the watch is answered", LONG, || watch.answers().len() > 3);
    shop.move_floating_ip("four", Some("right"));
    shop.move_floating_ip("six", Some("right"));
    eventually("both moves are told to the LAN", LONG, || {
        let now = count(&heard.text());
        now.0 > told.0 && now.1 > told.1
    });
    let at_move = watch.answers().len();
    eventually("the watch is answered after the move", LONG, || watch.answers().len() > at_move + 3);
    eprintln!("the floating IP moved with a gap of {:?}", watch.longest_gap());
    drop(watch);
    eventually("right is seen under the address", LONG, || {
        lab.world.callers();
        shop.exec("right", &format!("curl -sf -m5 http://{INTERNET}/")).stdout.trim() == v4.to_string()
    });
    assert!(ping(outside, v6, LONG));
    assert_eq!(uptimes(), before, "neither was started again");
    shop.empty();
    lab.finish();
}

/// When the first process of a container was started, in ticks since its host was.
fn start_of(shop: &Cloud, name: &str) -> String {
    let stat = shop.exec(name, "cat /proc/1/stat").text();
    stat.split(' ').nth(21).expect("a start time").to_string()
}

fn exec_in(shop: &Cloud, container: &str, script: &str) -> Ran {
    let argv = ["sh", "-c", script].map(str::to_string).to_vec();
    let request = ExecRequest { container: Some(container.into()), argv, ..ExecRequest::default() };
    shop.exec_with("pod", &request, &[])
}

/// A pod of two containers, each with a page and a port of its own, behind a group that is closed both ways.
fn launch_pod(shop: &Cloud) -> Instance {
    let rules = serde_json::json!({"name": "pod", "closed": true, "rules": [
        {"direction": "ingress", "family": "ipv4", "protocol": "tcp", "ports": "80"},
        {"direction": "ingress", "family": "ipv4", "protocol": "tcp", "ports": "8081"},
        {"direction": "egress", "family": "ipv4", "protocol": "tcp", "ports": "80", "peer": format!("{INTERNET}/32")},
    ]});
    shop.create::<SecurityGroup>(&serde_json::from_value::<CreateSecurityGroup>(rules).unwrap());
    let part = |name: &str, ports: &[u16]| {
        let serve = ports.iter().map(|port| format!("httpd -p {port} -h /srv; ")).collect::<String>();
        let script = format!("mkdir -p /srv; echo {name} >/srv/index.html; {serve} exec sleep 1000000");
        ContainerRequest {
            name: name.into(),
            image: "busybox".into(),
            args: Some(["sh", "-c", &script].map(str::to_string).to_vec()),
            ..ContainerRequest::default()
        }
    };
    let publish = |host_port, port| PublishedPort { address: None, host_port, port, protocol: "tcp".into() };
    shop.launch(&CreateInstance {
        name: "pod".into(),
        containers: vec![part("front", &[80]), part("side", &[8081, 82])],
        security_groups: Some(vec!["pod".into()]),
        publish: vec![publish(8080, 80), publish(9081, 8081), publish(8082, 82)],
        ..CreateInstance::default()
    })
}

#[test]
fn a_pod_of_two_containers_has_one_address_and_one_set_of_groups() {
    let lab = Lab::new();
    let shop = lab.project("shop");
    let pod = launch_pod(&shop);
    let peer = shop.launch(&shop.container("peer", "web"));
    let outside = &lab.world.outside;
    let page = |from: &NetNs, at: IpAddr, port| http_get(from, SocketAddr::new(at, port), SHORT);
    // Its published ports lead to whichever container listens; the group decides.
    eventually("front by its published port", LONG, || {
        page(outside, MACHINE.into(), 8080).is_ok_and(|p| p == "front\n")
    });
    eventually("side by its published port", LONG, || {
        page(outside, MACHINE.into(), 9081).is_ok_and(|p| p == "side\n")
    });
    assert!(page(outside, MACHINE.into(), 8082).is_err(), "no rule lets port 82 in");

    let floating = shop.add_floating_ip("front", "pod").address;
    for (port, name) in [(80, "front\n"), (8081, "side\n")] {
        eventually(name, LONG, || page(outside, floating, port).is_ok_and(|p| p == name));
    }
    assert!(
        page(outside, floating, 82).is_err() && !ping(outside, floating, SHORT),
        "nor by the floating IP"
    );

    // Out: the one thing that the group names, by either container; nothing else of either.
    let beside = lab.namespace(&format!("i-{}", peer.head.id.simple()));
    let heard = Capture::begin(&beside, "eth0", lab.directory().join("peer.dump"));
    for container in ["front", "side"] {
        lab.world.callers();
        let seen = exec_in(&shop, container, &format!("timeout 5 wget -q -O - http://{INTERNET}/")).text();
        // This pool is hidden behind the machine.
        assert_eq!((seen, lab.world.callers()), (MACHINE.to_string(), vec![MACHINE.into()]), "{container}");
        let peer = v4_of(&peer);
        assert!(
            !exec_in(&shop, container, &format!("timeout 1 wget -q -O - http://{peer}/")).ok(),
            "{container}"
        );
        assert!(!exec_in(&shop, container, &format!("ping -c1 -W1 {peer}")).ok(), "{container}");
    }
    assert!(
        !heard.text().contains(&format!("IP {}", v4_of(&pod))),
        "what is held back is not heard: {}",
        heard.text()
    );

    // A rule that goes shuts one container's port and leaves the other's.
    let group = shop.get::<SecurityGroup>("pod");
    let side = group.rules.iter().find(|rule| rule.ports.as_deref() == Some("8081")).expect("its rule");
    shop.delete_rule("pod", side);
    eventually("side is shut", LONG, || !can_connect(outside, None, SocketAddr::new(floating, 8081), SHORT));
    assert!(page(outside, floating, 80).is_ok_and(|p| p == "front\n"), "front is not");
    shop.empty();
    lab.finish();
}
