//! Firewalls of others beside holm: the real programs stop the packets of instances, `holm doctor` finds it and names
//! commands, and after those everything passes. Neither side's rules touch the other's.

use api::v1::types::publish::PublishedPort;
use lab::{Cloud, Firewalls, INTERNET, INTERNET_V6, Lab, MACHINE, Options, eventually, http_get, until};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

const SHORT: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_secs(30);
const MACHINE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1);
const PUBLISHED: u16 = 8080;

/// Ways to and from an instance, and whether they are open.
type Ways = BTreeMap<&'static str, bool>;

/// Starts a bus and firewalld, as systemd would.
const FIREWALLD: &str = r#"
cat >/tmp/bus.conf <<'CONFIG'
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>
CONFIG
dbus-daemon --config-file=/tmp/bus.conf --fork
firewalld --nopid >/dev/null 2>&1
for i in $(seq 150); do if firewall-cmd --state >/dev/null 2>&1; then exit 0; fi; sleep 0.2; done
exit 1"#;

const DOCKERD: &str = "
(nohup dockerd --host unix:///run/docker.sock --storage-driver vfs --exec-opt native.cgroupdriver=cgroupfs >/tmp/dockerd.log 2>&1 &)
for i in $(seq 150); do if grep -q 'API listen on' /tmp/dockerd.log; then exit 0; fi; sleep 0.2; done
cat /tmp/dockerd.log >&2; exit 1";

const UFW: &str = "ufw allow 22/tcp >/dev/null; ufw --force enable >/dev/null";

/// What the wikis say a host's own firewall should be.
const NFT: &str = r"cat >/etc/nftables.conf <<'RULES'
flush ruleset
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iif lo accept
    meta l4proto { icmp, icmpv6 } accept
    tcp dport 22 accept
  }
  chain forward { type filter hook forward priority filter; policy drop; }
}
RULES
nft -f /etc/nftables.conf";

#[test]
fn ufw_beside_holm() {
    let (lab, shop, firewalls) = with_firewall(UFW);
    keeps_shut(&lab, &shop, &["floating", "out", "out v6", "published", "published v6"]);
    opened(
        &lab,
        &shop,
        &firewalls,
        "ufw stops what others send to instances and what instances send to others",
    );
    untouched_by(&lab, &shop, &firewalls, "ufw reload");
    untouched_by(&lab, &shop, &firewalls, "ufw --force disable");
    gone(lab, shop, firewalls);
}

#[test]
fn firewalld_beside_holm() {
    let (lab, shop, firewalls) = with_firewall(FIREWALLD);
    // What is translated to another address on its way, as a published port is, passes it.
    keeps_shut(&lab, &shop, &["floating", "out", "out v6"]);
    opened(
        &lab,
        &shop,
        &firewalls,
        "firewalld stops what others send to instances and what instances send to others",
    );
    untouched_by(&lab, &shop, &firewalls, "firewall-cmd --reload");
    untouched_by(&lab, &shop, &firewalls, "firewall-cmd --complete-reload");
    gone(lab, shop, firewalls);
}

#[test]
fn docker_beside_holm() {
    // On a machine that forwards nothing before it comes, it shuts the way for all but its own.
    let (lab, shop, firewalls) = with_firewall(&format!("sysctl -qw net.ipv4.ip_forward=0\n{DOCKERD}"));
    keeps_shut(&lab, &shop, &["floating", "out", "published"]);
    let found =
        "Docker stops what others send to instances by IPv4 and what instances send to others by IPv4";
    opened(&lab, &shop, &firewalls, found);
    untouched_by(
        &lab,
        &shop,
        &firewalls,
        &format!("pkill -x dockerd; while pgrep -x dockerd; do sleep 0.1; done\n{DOCKERD}"),
    );
    gone(lab, shop, firewalls);
}

#[test]
fn a_table_of_the_hosts_owner_beside_holm() {
    let (mut lab, shop, firewalls) = with_firewall(NFT);
    keeps_shut(&lab, &shop, &["floating", "out", "out v6", "published", "published v6"]);
    let found =
        "nftables table inet filter stops what others send to instances and what instances send to others";
    opened(&lab, &shop, &firewalls, found);
    // This one takes the tables of everybody, and the daemon's next start brings holm's back.
    let before = own_table(&lab, &firewalls);
    firewalls.run("nft flush ruleset");
    lab.kill_daemon();
    lab.start_daemon();
    let shop = lab.project("shop");
    eventually("its table is there again", LONG, || shut(&lab, &shop).is_empty());
    assert_eq!(own_table(&lab, &firewalls), before);
    gone(lab, shop, firewalls);
}

/// A lab whose machine had a firewall before holm came, and a web server of a project that is published.
fn with_firewall(start: &str) -> (Lab, Cloud, Firewalls) {
    let mut lab = Lab::before_start(Options { registry: true, ..Options::default() });
    let firewalls = Firewalls::enter(&lab);
    firewalls.run(start);
    lab.start_daemon();
    let shop = lab.project("shop");
    shop.add_group("web", &["tcp 80"]);
    let mut web = shop.container("web", "web");
    web.security_groups = Some(vec!["default".into(), "web".into()]);
    web.publish =
        vec![PublishedPort { address: None, host_port: PUBLISHED, port: 80, protocol: "tcp".into() }];
    shop.launch(&web);
    shop.add_floating_ip("front", "web");
    // The machine itself is no other: no firewall is asked about what it forwards.
    let address = SocketAddr::new(floating(&shop), 80);
    eventually("the page from the machine", LONG, || http_get(&lab.world.machine, address, SHORT).is_ok());
    (lab, shop, firewalls)
}

fn floating(shop: &Cloud) -> IpAddr {
    shop.list::<api::v1::types::floating_ip::FloatingIp>()[0].address
}

fn ways(lab: &Lab, shop: &Cloud) -> Ways {
    let into = |address: IpAddr, port: u16| {
        http_get(&lab.world.outside, SocketAddr::new(address, port), SHORT)
            .is_ok_and(|page| page.contains("It works!"))
    };
    let out = |host: String| shop.exec("web", &format!("curl -sf -m1 http://{host}/")).ok();
    [
        ("floating", into(floating(shop), 80)),
        ("published", into(MACHINE.into(), PUBLISHED)),
        ("published v6", into(MACHINE_V6.into(), PUBLISHED)),
        ("out", out(INTERNET.to_string())),
        ("out v6", out(format!("[{INTERNET_V6}]"))),
    ]
    .into()
}

/// The ways that are not open.
fn shut(lab: &Lab, shop: &Cloud) -> Vec<&'static str> {
    ways(lab, shop).into_iter().filter(|(_, open)| !open).map(|(way, _)| way).collect()
}

/// These ways are shut and all others open. A way may take a moment to open.
fn keeps_shut(lab: &Lab, shop: &Cloud, wanted: &[&str]) {
    let mut seen = vec![];
    until(LONG, || {
        seen = shut(lab, shop);
        (seen == wanted).then_some(())
    });
    assert_eq!(seen, wanted, "ways that are shut");
}

/// What holm's own doctor says of firewalls: how bad, what, and the way out.
fn findings(lab: &Lab, firewalls: &Firewalls) -> Vec<[String; 3]> {
    // It ends with an error where something else is missing in there.
    let said =
        firewalls.run(&format!("/run/program doctor --prefix {} -o json 2>/dev/null || true", lab.prefix()));
    let all: Vec<Value> = serde_json::from_str(&said).expect("findings");
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_string();
    all.iter()
        .filter(|finding| finding["name"] == "firewall")
        .map(|finding| ["level", "found", "hint"].map(|key| text(finding, key)))
        .collect()
}

/// The doctor says what is wrong; its commands, typed as they are, open all ways; and it is content.
fn opened(lab: &Lab, shop: &Cloud, firewalls: &Firewalls, wrong: &str) {
    let before = findings(lab, firewalls);
    let bad: Vec<_> = before.iter().filter(|[level, ..]| level != "ok").collect();
    let [[level, found, hint]] = bad[..] else { panic!("{before:?}") };
    assert_eq!((level.as_str(), found.as_str()), ("warn", wrong));
    for command in hint.lines() {
        firewalls.run(command);
    }
    eventually("all ways are open", LONG, || shut(lab, shop).is_empty());
    let after = findings(lab, firewalls);
    assert!(!after.is_empty() && after.iter().all(|[level, ..]| level == "ok"), "{after:?}");
}

/// Lines of holm's table, whose chains stand in the order in which they were made.
fn own_table(lab: &Lab, firewalls: &Firewalls) -> String {
    firewalls.run(&format!("nft --stateless list table inet {} | sort", lab.prefix()))
}

/// What the firewall does with its own rules leaves holm's as they are, and all ways open.
fn untouched_by(lab: &Lab, shop: &Cloud, firewalls: &Firewalls, command: &str) {
    let before = own_table(lab, firewalls);
    firewalls.run(command);
    assert_eq!(own_table(lab, firewalls), before, "{command}");
    eventually("all ways are open still", LONG, || shut(lab, shop).is_empty());
}

fn gone(lab: Lab, shop: Cloud, firewalls: Firewalls) {
    shop.empty();
    drop(firewalls);
    lab.finish();
}
