//! Published ports of a running cloud: a scan from outside finds exactly what holm says is exposed.

use api::v1::types::{
    event::Event,
    instance::{Instance, UpdateInstance},
    publish::PublishedPort,
};
use lab::{Cloud, INTERNET_V6, Lab, MACHINE, eventually, http_get};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    time::Duration,
};

const SHORT: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_secs(20);
const MACHINE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1);
/// Ports that the scan tries.
const SCANNED: [u16; 7] = [22, 80, 81, 2222, 8080, 8081, 9090];

fn port(host_port: u16, port: u16) -> PublishedPort {
    PublishedPort { address: None, host_port, port, protocol: "tcp".into() }
}

fn publish(shop: &Cloud, name: &str, ports: &[PublishedPort]) -> Instance {
    let request = UpdateInstance { publish: Some(ports.to_vec()), ..UpdateInstance::default() };
    shop.update::<Instance>(name, &request)
}

fn answers(from: &sys::netns::NetNs, at: SocketAddr) -> bool {
    http_get(from, at, SHORT).is_ok_and(|page| page.contains("It works!"))
}

/// Ports of the machine that answer a client outside, by family.
fn scan(lab: &Lab) -> BTreeSet<(bool, u16)> {
    let hosts: [IpAddr; 2] = [MACHINE.into(), MACHINE_V6.into()];
    let tries = hosts.iter().flat_map(|host| SCANNED.iter().map(|port| SocketAddr::new(*host, *port)));
    tries.filter(|at| answers(&lab.world.outside, *at)).map(|at| (at.is_ipv4(), at.port())).collect()
}

/// The same as holm says it.
fn exposed(shop: &Cloud) -> BTreeSet<(bool, u16)> {
    let all = shop.must("exposed", shop.client.exposed(None, None));
    let open = all.iter().filter(|e| e.open && e.way == "published");
    open.map(|e| (e.address.is_ipv4(), e.ports.as_ref().unwrap().parse().unwrap())).collect()
}

fn both(ports: &[u16]) -> BTreeSet<(bool, u16)> {
    ports.iter().flat_map(|port| [(true, *port), (false, *port)]).collect()
}

#[test]
fn a_scan_finds_what_is_exposed() {
    let mut lab = Lab::new();
    let shop = lab.project("shop");
    let rules = shop.add_group("web", &["tcp 80"]).rules;
    let mut web = shop.container("web", "web");
    web.security_groups = Some(vec!["default".into(), "web".into()]);
    web.publish = vec![port(8080, 80), port(8081, 81)];
    shop.launch(&web);
    shop.launch(&shop.container("peer", "web"));
    let pid = shop.instance("web").facts["pid"].clone();
    eventually("the page from outside", LONG, || scan(&lab) == both(&[8080]));
    assert_eq!(exposed(&shop), both(&[8080]), "no rule lets port 81 in");
    from_near(&lab, &shop, 8080);

    publish(&shop, "web", &[port(9090, 80)]);
    eventually("the page at the new port", LONG, || scan(&lab) == both(&[9090]));
    assert_eq!(exposed(&shop), both(&[9090]));
    from_near(&lab, &shop, 9090);
    assert_eq!(shop.instance("web").facts["pid"], pid, "nothing was restarted");

    lab.kill_daemon();
    assert_eq!(scan(&lab), both(&[9090]), "without the daemon");
    lab.start_daemon();
    let shop = lab.project("shop");
    eventually("all of it again", LONG, || scan(&lab) == both(&[9090]) && near(&lab, &shop, 9090));

    // A port that the machine itself serves is left alone.
    let listener = lab.world.machine.run(|| TcpListener::bind("0.0.0.0:2222")).unwrap().unwrap();
    publish(&shop, "web", &[port(2222, 80), port(9090, 80)]);
    eventually("a word about port 2222", LONG, || {
        let page: api::v1::types::List<Event> =
            shop.must("events", shop.client.list(&api::v1::types::list::ListQuery::default()));
        page.items.iter().any(|e| e.reason == "port_in_use" && e.message.contains("2222"))
    });
    assert_eq!(scan(&lab), both(&[9090]));
    drop(listener);

    for rule in rules {
        shop.delete_rule("web", &rule);
    }
    eventually("closed by the group", LONG, || scan(&lab).is_empty());
    assert!(exposed(&shop).is_empty());
    publish(&shop, "web", &[]);
    shop.empty();
    lab.finish();
}

/// From the machine itself by every address, and from a neighbour by way of the machine.
fn from_near(lab: &Lab, shop: &Cloud, port: u16) {
    eventually("the page from near", LONG, || near(lab, shop, port));
    // Guests get out by IPv6 too, seen as the machine.
    lab.world.callers();
    shop.exec("peer", &format!("curl -sf -m5 http://[{INTERNET_V6}]/")).text();
    assert_eq!(lab.world.callers(), [IpAddr::from(MACHINE_V6)]);
    // The machine remembers the flow and how it translated it, which is how the answer found back.
    let flows = sys::conntrack::list(&lab.world.machine).expect("conntrack");
    let out = flows
        .iter()
        .find(|f| f.original.destination == IpAddr::from(INTERNET_V6) && f.original.destination_port == 80);
    let out = out.unwrap_or_else(|| panic!("no flow to the internet in {flows:?}"));
    assert!(out.has_source_nat() && out.is_answered(), "{out:?}");
    assert_eq!(out.reply.destination, IpAddr::from(MACHINE_V6), "{out:?}");
}

fn near(lab: &Lab, shop: &Cloud, port: u16) -> bool {
    let own: [IpAddr; 4] =
        [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), MACHINE.into(), MACHINE_V6.into()];
    let machine = &lab.world.machine;
    let url = format!("http://{MACHINE}:{port}/");
    let around = shop.exec("peer", &format!("curl -sf -m5 {url}"));
    own.iter().all(|host| answers(machine, SocketAddr::new(*host, port)))
        && around.stdout.contains("It works!")
}
