//! The story that holm exists for: a VM and a container side by side on one private network, from an empty machine.

use api::{
    client::Verb,
    v1::types::{
        floating_ip::FloatingIp,
        instance::Instance,
        network::{CreateNetwork, External, Network, NetworkKind},
        router::Router,
        subnet::{CreateSubnet, Subnet},
    },
};
use lab::{
    CLIENT, Cloud, FRIEND, INTERNET, INTERNET_V6, Lab, Watch, can_connect, eventually, http_get, ping, v4_of,
    v6_of,
};
use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

const SHORT: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_secs(20);

/// An external network that hides nothing behind the machine, so that the internet sees who asks.
fn add_routed_pool(lab: &Lab) {
    let admin = lab.project("admin");
    admin.create::<Network>(&CreateNetwork {
        name: "routed".into(),
        kind: NetworkKind::External,
        external: Some(External { interface: None, masquerade: false, is_default: false }),
        ..CreateNetwork::default()
    });
    for (name, cidr) in [("routed-v4", "172.30.0.0/24"), ("routed-v6", "2001:db8:f:1::/64")] {
        let request = serde_json::json!({"name": name, "network": "routed", "cidr": cidr});
        admin.create::<Subnet>(&serde_json::from_value::<CreateSubnet>(request).unwrap());
    }
}

fn router_addresses(cloud: &Cloud) -> Vec<IpAddr> {
    cloud.get::<Router>("default").gateway.expect("a gateway").addresses
}

#[test]
fn guest_and_container_side_by_side() {
    let mut lab = Lab::new();
    add_routed_pool(&lab);
    let shop = lab.project("shop");
    let began = Instant::now();
    assert!(
        shop.list::<Network>().iter().any(|n| n.head.name == "default"),
        "a project has its network at once"
    );
    shop.set_gateway("routed");
    shop.add_group("web", &["tcp 80", "tcp 22 203.0.113.8/32"]);
    shop.add_micro(&lab.images);
    let mut db = shop.micro("db");
    db.security_groups = Some(vec!["default".into(), "web".into()]);
    let mut web = shop.container("web", "web");
    web.security_groups = Some(vec!["default".into(), "web".into()]);
    let web = shop.launch(&web);
    let db = shop.launch(&db);
    shop.wait_ssh("db");
    eprintln!("both are up after {:?}", began.elapsed());
    talk(&shop, &db, &web);
    reach_out(&lab, &shop);
    closed_from_outside(&lab, &[&db, &web]);
    let front = shop.add_floating_ip("front", "web");
    open_by_floating_ip(&lab, &shop, front.address);
    move_floating_ip(&lab, &shop, front.address);
    daemon_dies(&mut lab, front.address);
    let shop = lab.project("shop");
    taken_away(&lab, &shop, front.address);
    shop.empty();
    lab.finish();
}

/// Each resolves the other and reaches it, by both families.
fn talk(shop: &Cloud, db: &Instance, web: &Instance) {
    eventually("db has its IPv6 address and a way out", LONG, || {
        // An address that the guest still looks for a second owner of is of no use yet.
        let seen = shop.ssh("db", "ip -6 address | grep -v tentative; ip -6 route").stdout;
        seen.contains(&v6_of(db).to_string()) && seen.contains("default via fe80::1")
    });
    assert!(shop.ssh("db", "nslookup web").stdout.contains(&v4_of(web).to_string()), "A");
    let answer = shop.ssh("db", "nslookup -type=AAAA web.holm.internal || nslookup web").stdout;
    assert!(answer.contains(&v6_of(web).to_string()), "AAAA: {answer}");
    let answer = shop.ssh("db", &format!("nslookup {}", v4_of(web))).stdout;
    assert!(answer.contains("web.holm.internal"), "PTR: {answer}");
    let hosts = shop.exec("web", "getent ahosts db").text();
    assert!(hosts.contains(&v4_of(db).to_string()) && hosts.contains(&v6_of(db).to_string()), "{hosts}");
    let name = shop.exec("web", &format!("getent hosts {}", v6_of(db))).text();
    assert!(name.contains("db.holm.internal"), "PTR of IPv6: {name}");

    shop.ssh("db", "echo db speaking >/srv/index.html; httpd -p 80 -h /srv");
    for family in ["-4", "-6"] {
        assert!(shop.ssh("db", &format!("ping {family} -c1 -W3 web")).ok(), "db pings web {family}");
        assert!(shop.exec("web", &format!("ping {family} -c1 -W3 db")).ok(), "web pings db {family}");
        assert_eq!(shop.exec("web", &format!("curl -sf -m5 {family} http://db/")).text(), "db speaking");
    }
    for url in ["http://web/".to_string(), format!("http://[{}]/", v6_of(web))] {
        assert!(
            shop.ssh("db", &format!("timeout 10 wget -q -O - {url}")).text().contains("It works!"),
            "{url}"
        );
    }
    assert_ne!(shop.ssh("db", "uname -r").text(), shop.exec("web", "uname -r").text(), "a kernel of its own");
}

/// Both reach the internet, which sees the router.
fn reach_out(lab: &Lab, shop: &Cloud) {
    let router = router_addresses(shop);
    lab.world.callers();
    for internet in [INTERNET.to_string(), format!("[{INTERNET_V6}]")] {
        shop.ssh("db", &format!("timeout 10 wget -q -O - http://{internet}/")).text();
        shop.exec("web", &format!("curl -sf -m5 http://{internet}/")).text();
    }
    let callers = lab.world.callers();
    assert_eq!(callers.len(), 4, "{callers:?}");
    assert!(callers.iter().all(|caller| router.contains(caller)), "{callers:?} are not {router:?}");
    assert!(callers[..2].iter().all(IpAddr::is_ipv4) && callers[2..].iter().all(IpAddr::is_ipv6));
}

/// The outside has routes to the private ranges, and still nothing comes through.
fn closed_from_outside(lab: &Lab, instances: &[&Instance]) {
    for instance in instances {
        for address in [v4_of(instance), v6_of(instance)] {
            assert!(!ping(&lab.world.outside, address, SHORT), "ping {address}");
            let page = http_get(&lab.world.outside, SocketAddr::new(address, 80), SHORT);
            assert!(page.is_err(), "{address}: {page:?}");
        }
    }
}

/// Port 80 from anywhere and nothing else; the outside is seen under its own address, and sees the floating one.
fn open_by_floating_ip(lab: &Lab, shop: &Cloud, floating: IpAddr) {
    let outside = &lab.world.outside;
    eventually("web's page at the floating IP", LONG, || {
        http_get(outside, SocketAddr::new(floating, 80), SHORT).is_ok_and(|page| page.contains("It works!"))
    });
    for port in [22, 81, 443] {
        assert!(
            !can_connect(outside, Some(CLIENT.into()), SocketAddr::new(floating, port), SHORT),
            "port {port}"
        );
    }
    assert!(!ping(outside, floating, SHORT), "ping of the floating IP");
    lab.world.callers();
    let seen = shop.exec("web", &format!("curl -sf -m5 http://{INTERNET}/")).text();
    assert_eq!(seen, floating.to_string(), "the internet sees the floating address");
    assert_eq!(lab.world.callers(), [floating]);
}

/// The floating IP moves while a client asks; both guests run on.
fn move_floating_ip(lab: &Lab, shop: &Cloud, floating: IpAddr) {
    let outside = &lab.world.outside;
    let uptimes = || [shop.ssh("db", "cat /proc/uptime").text(), shop.exec("web", "cat /proc/1/stat").text()];
    let before = uptimes();
    let watch = Watch::begin(outside, SocketAddr::new(floating, 80));
    eventually("web answers the watch", LONG, || watch.answers().len() > 3);
    shop.move_floating_ip("front", Some("db"));
    eventually("db answers the watch", LONG, || {
        watch.answers().last().is_some_and(|page| page.contains("db speaking"))
    });
    let gap = watch.longest_gap();
    eprintln!("the floating IP moved with a gap of {gap:?}");
    assert!(gap < Duration::from_secs(1), "{gap:?}");
    let pages = watch.answers();
    drop(watch);
    let first = pages.iter().position(|page| page.contains("db speaking")).unwrap();
    assert!(pages[first..].iter().all(|page| page.contains("db speaking")), "never back: {pages:?}");
    let after = uptimes();
    let seconds = |text: &str| text.split(' ').next().unwrap().parse::<f64>().unwrap();
    assert!(seconds(&after[0]) > seconds(&before[0]), "db ran on");
    let start = |text: &str| text.split(' ').nth(21).unwrap().to_string();
    assert_eq!(start(&after[1]), start(&before[1]), "web ran on");

    let login =
        |from: std::net::Ipv4Addr| shop.ssh_to(outside, Some(from.into()), floating, "hostname", false);
    assert_eq!(login(FRIEND).text(), "db", "the friend logs in");
    assert_eq!(login(CLIENT).code, 255, "another address does not");
    lab.world.callers();
    shop.ssh("db", &format!("timeout 10 wget -q -O - http://{INTERNET}/")).text();
    shop.exec("web", &format!("curl -sf -m5 http://{INTERNET}/")).text();
    let callers = lab.world.callers();
    assert_eq!(callers[0], floating, "db is seen under the floating address now");
    assert!(router_addresses(shop).contains(&callers[1]), "web is behind the router again");
}

/// The daemon dies during traffic; guests, connections and logs go on, and another program of holm's, as an upgrade brings
/// it, finds everything again.
fn daemon_dies(lab: &mut Lab, floating: IpAddr) {
    let shop = lab.project("shop");
    let mut counter = shop.container("counter", "busybox");
    counter.args = Some(vec![
        "sh".into(),
        "-c".into(),
        "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done".into(),
    ]);
    shop.launch(&counter);
    let facts = |cloud: &Cloud| {
        [("db", cloud.instance("db")), ("web", cloud.instance("web"))]
            .map(|(name, i)| (name, i.facts["pid"].clone(), i.started_at, i.addresses))
    };
    let before = facts(&shop);
    let boot = shop.ssh("db", "cat /proc/sys/kernel/random/boot_id").text();
    let watch = Watch::begin(&lab.world.outside, SocketAddr::new(floating, 80));
    let mut talk = HeldConnection::open(lab, &shop);
    eventually("the watch is answered", LONG, || watch.answers().len() > 3);
    talk.exchange("before");

    let began = Instant::now();
    lab.kill_daemon();
    talk.exchange("while dead");
    let while_dead = watch.answers().len();
    eventually("db answers while holm is dead", LONG, || watch.answers().len() > while_dead + 5);
    let upgraded = lab.directory().join("holm-upgraded");
    std::fs::copy(lab::program(), &upgraded).expect("another program");
    lab.set_program(upgraded);
    lab.start_daemon();
    eprintln!("holm answers again {:?} after its death", began.elapsed());
    let shop = lab.project("shop");
    talk.exchange("after");
    assert!(watch.longest_gap() < Duration::from_secs(1), "{:?}", watch.longest_gap());
    drop(watch);
    for name in ["db", "web", "counter"] {
        shop.wait_phase(name, model::instance::phase::Phase::Running);
    }
    assert_eq!(facts(&shop), before, "found again");
    assert_eq!(shop.ssh("db", "cat /proc/sys/kernel/random/boot_id").text(), boot, "the same boot");
    assert!(shop.exec("web", "true").ok(), "exec after the restart");
    let log = shop.log("counter");
    for (number, line) in log.lines().enumerate() {
        assert_eq!(line, format!("line {}", number + 1), "no line is lost");
    }
    let lines = log.lines().count();
    eventually("the log goes on", LONG, || shop.log("counter").lines().count() > lines);
    assert!(shop.list::<FloatingIp>().iter().any(|f| f.target.is_some()), "the floating IP is still db's");
    shop.act("counter", Verb::Kill);
}

/// Without the floating IP nobody outside reaches db, and db is behind the router again.
fn taken_away(lab: &Lab, shop: &Cloud, floating: IpAddr) {
    let outside = &lab.world.outside;
    let at = SocketAddr::new(floating, 80);
    assert!(http_get(outside, at, LONG).is_ok(), "before");
    shop.move_floating_ip("front", None);
    eventually("nobody answers at the floating IP", LONG, || !can_connect(outside, None, at, SHORT));
    shop.delete::<FloatingIp>("front");
    assert_eq!(shop.used("floating_ips"), 0);
    lab.world.callers();
    shop.ssh("db", &format!("timeout 10 wget -q -O - http://{INTERNET}/")).text();
    let callers = lab.world.callers();
    assert!(callers.iter().all(|caller| router_addresses(shop).contains(caller)), "{callers:?}");
}

/// A TCP connection from the outside through the floating IP into db, held open.
struct HeldConnection(std::net::TcpStream);

impl HeldConnection {
    fn open(lab: &Lab, shop: &Cloud) -> Self {
        shop.add_group("echo", &["tcp 7"]);
        let db = shop.instance("db");
        let mut groups: Vec<String> = db.ports[0].security_groups.iter().map(|g| g.name.clone()).collect();
        groups.push("echo".into());
        let change = api::v1::types::port::UpdatePort { security_groups: Some(groups), ..Default::default() };
        shop.update::<api::v1::types::port::Port>(&db.ports[0].id.to_string(), &change);
        shop.ssh("db", "nc -ll -p 7 -e cat >/dev/null 2>&1 </dev/null &");
        let at = SocketAddr::new(db.floating_ips[0], 7);
        let stream = lab::until(LONG, || lab::connect(&lab.world.outside, None, at, SHORT).ok())
            .expect("connect to echo");
        Self(stream)
    }

    fn exchange(&mut self, text: &str) {
        use std::io::{Read as _, Write as _};
        self.0.set_read_timeout(Some(LONG)).unwrap();
        self.0.write_all(text.as_bytes()).unwrap();
        let mut back = vec![0; text.len()];
        self.0.read_exact(&mut back).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(back, text.as_bytes());
    }
}
