//! Firewalls beside holm: whether they let the packets of instances pass, and the commands that make them.
//!
//! nftables lets a packet pass only if every table does, so each table of others is judged alone. What its rules mean is
//! not guessed at: a copy of it is put into a namespace that looks like this host and is gone at once, and connections
//! are made through it, both ways.
//!
//! ```text
//!   outside ── uplink's name ── copy of one table ── holm-x… ── instance
//! ```

use super::{DoctorArgs, Finding, find_program};
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use sys::{
    netlink::{Netlink, Route, RouteTarget},
    netns::NetNs,
};

const NAME: &str = "firewall";
/// For a connection within one machine. What is dropped is waited for as long.
const ANSWER_MAX: Duration = Duration::from_millis(700);
/// For the trial's own devices and neighbours to find each other, before there are rules.
const READY_MAX: Duration = Duration::from_secs(10);
/// Tables that are tried. A host has a handful.
const TABLES_MAX: usize = 64;
/// What iptables calls its tables; nft shows them, and cannot read what it shows.
const IPTABLES: [&str; 4] = ["filter", "mangle", "raw", "security"];
/// Name of the outside's device where this host has no way out.
const UPLINK: &str = "eth0";
const INSTANCE_DEVICE_SUFFIX: &str = "-xdoctor";
/// Addresses of the trial (RFC 5737 and RFC 3849), which no rule of a real host is about: host, other side.
const OUTSIDE: [[IpAddr; 2]; 2] = [
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2))],
    [v6(0xd0c, 1), v6(0xd0c, 2)],
];
const INSIDE: [[IpAddr; 2]; 2] = [
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2))],
    [v6(0xd0d, 1), v6(0xd0d, 2)],
];

const fn v6(net: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host))
}

/// One table of the host that may stop forwarded packets.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Foreign {
    family: String,
    name: String,
    text: String,
}

/// Whose rules a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Docker,
    Ufw,
    Firewalld,
    Iptables,
    Nft,
}

/// What does not pass, by the way and the family of addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Blocked {
    into: [bool; 2],
    out: [bool; 2],
}

impl Blocked {
    fn any(self) -> bool {
        self.into != [false; 2] || self.out != [false; 2]
    }

    fn family(self, index: usize) -> bool {
        self.into[index] || self.out[index]
    }
}

/// All checks of this file: a line for each firewall beside holm.
pub fn look(args: &DoctorArgs, is_root: bool) -> Vec<Finding> {
    if !is_root {
        return vec![];
    }
    let foreign = match foreign_tables(&args.prefix) {
        Ok(foreign) => foreign,
        Err(error) => {
            let hint =
                "look at `nft list ruleset` yourself: what drops forwarded packets drops those of instances";
            return vec![Finding::warn(NAME, format!("the host's rules cannot be read: {error}"), hint)];
        }
    };
    if foreign.is_empty() {
        return vec![Finding::ok(NAME, "none beside holm that forwarded packets pass")];
    }
    let uplink = uplink(&fs::read_to_string("/proc/net/route").unwrap_or_default());
    let mut by_owner: BTreeMap<(Owner, &str), Vec<(&Foreign, io::Result<Blocked>)>> = BTreeMap::new();
    for table in &foreign {
        let owner = owner(table);
        let key = if owner == Owner::Nft { table.name.as_str() } else { "" };
        by_owner.entry((owner, key)).or_default().push((table, try_table(table, &uplink, &args.prefix)));
    }
    by_owner.iter().map(|((owner, _), tried)| judge(*owner, tried, &args.prefix)).collect()
}

fn judge(owner: Owner, tried: &[(&Foreign, io::Result<Blocked>)], prefix: &str) -> Finding {
    let who = who(owner, tried.first().map(|(table, _)| *table));
    if let Some((table, error)) = tried.iter().find_map(|(table, tried)| Some((table, tried.as_ref().err()?)))
    {
        return Finding::warn(
            NAME,
            format!("{who}: a copy of table {} {} cannot be tried: {error}", table.family, table.name),
            commands(owner, tried.iter().map(|(table, _)| *table), [true; 2], prefix),
        );
    }
    let mut blocked = Blocked::default();
    for one in tried.iter().filter_map(|(_, tried)| tried.as_ref().ok()) {
        for index in [0, 1] {
            blocked.into[index] |= one.into[index];
            blocked.out[index] |= one.out[index];
        }
    }
    if !blocked.any() {
        return Finding::ok(NAME, format!("{who} lets the packets of instances pass"));
    }
    let guilty = tried.iter().filter(|(_, tried)| tried.as_ref().is_ok_and(|blocked| blocked.any()));
    let families = [blocked.family(0), blocked.family(1)];
    Finding::warn(
        NAME,
        format!("{who} stops what {}", what(blocked)),
        commands(owner, guilty.map(|(table, _)| *table), families, prefix),
    )
}

fn who(owner: Owner, table: Option<&Foreign>) -> String {
    match owner {
        Owner::Docker => "Docker".into(),
        Owner::Ufw => "ufw".into(),
        Owner::Firewalld => "firewalld".into(),
        Owner::Iptables => "iptables".into(),
        Owner::Nft => {
            table.map_or_else(String::new, |table| format!("nftables table {} {}", table.family, table.name))
        }
    }
}

fn what(blocked: Blocked) -> String {
    let families = |ways: [bool; 2]| match ways {
        [true, true] => "",
        [true, false] => " by IPv4",
        _ => " by IPv6",
    };
    let mut ways = vec![];
    if blocked.into != [false; 2] {
        ways.push(format!("others send to instances{}", families(blocked.into)));
    }
    if blocked.out != [false; 2] {
        ways.push(format!("instances send to others{}", families(blocked.out)));
    }
    ways.join(" and what ")
}

/// Commands for a shell, one a line, after which the packets of instances pass.
fn commands<'a>(
    owner: Owner,
    tables: impl Iterator<Item = &'a Foreign>,
    families: [bool; 2],
    prefix: &str,
) -> String {
    let all = match owner {
        Owner::Docker => iptables("DOCKER-USER", families, prefix),
        Owner::Iptables => iptables("FORWARD", families, prefix),
        Owner::Ufw => {
            vec![format!("ufw route allow in on {prefix}+"), format!("ufw route allow out on {prefix}+")]
        }
        Owner::Firewalld => [
            format!("--new-zone={prefix}"),
            format!("--zone={prefix} --set-target=ACCEPT"),
            format!("--zone={prefix} --add-interface={prefix}+"),
            format!("--new-policy=to-{prefix}"),
            format!("--policy=to-{prefix} --add-ingress-zone=ANY"),
            format!("--policy=to-{prefix} --add-egress-zone={prefix}"),
            format!("--policy=to-{prefix} --set-target=ACCEPT"),
        ]
        .map(|words| format!("firewall-cmd --permanent {words}"))
        .into_iter()
        .chain(["firewall-cmd --reload".to_string()])
        .collect(),
        Owner::Nft => tables.flat_map(|table| nft_commands(table, prefix)).collect(),
    };
    all.join("\n")
}

fn iptables(chain: &str, families: [bool; 2], prefix: &str) -> Vec<String> {
    let programs = ["iptables", "ip6tables"].into_iter().zip(families).filter(|(_, wanted)| *wanted);
    programs
        .flat_map(|(program, _)| {
            ["-i", "-o"].map(|way| format!("{program} -I {chain} {way} {prefix}+ -j ACCEPT"))
        })
        .collect()
}

fn nft_commands(table: &Foreign, prefix: &str) -> Vec<String> {
    let place = |chain: &str| format!("{} {} {chain}", table.family, table.name);
    let insert = |chain: String| {
        ["iifname", "oifname"]
            .map(|way| format!("nft insert rule {} '{way} \"{prefix}*\" accept'", place(&chain)))
    };
    forward_chains(&table.text).into_iter().flat_map(insert).collect()
}

/// Names of a table's base chains that forwarded packets pass.
fn forward_chains(text: &str) -> Vec<String> {
    let mut chain = None;
    let mut found = vec![];
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ") {
            chain = name.strip_suffix(" {").map(str::to_string);
        }
        if line.starts_with("type filter hook forward ") {
            found.extend(chain.take());
        }
    }
    found
}

fn owner(table: &Foreign) -> Owner {
    let has = |chain: &str| table.text.lines().any(|line| line.trim_start().starts_with(chain));
    match (table.family.as_str(), table.name.as_str()) {
        (_, "firewalld") => Owner::Firewalld,
        ("ip" | "ip6", name) if IPTABLES.contains(&name) => match () {
            // Its chain comes before all others, so it decides alone.
            () if has("chain DOCKER-USER ") => Owner::Docker,
            () if has("chain ufw-before-forward ") || has("chain ufw6-before-forward ") => Owner::Ufw,
            () => Owner::Iptables,
        },
        _ => Owner::Nft,
    }
}

/// The tables of others that filter packets on their way through the host.
fn foreign_tables(prefix: &str) -> io::Result<Vec<Foreign>> {
    let listed = said("nft", &["list", "tables"])?;
    let mut found = vec![];
    for line in listed.lines().take(TABLES_MAX) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["table", family @ ("ip" | "ip6" | "inet"), name] = words[..] else { continue };
        if (family, name) == ("inet", prefix) {
            continue;
        }
        let text = said("nft", &["list", "table", family, name])?;
        if ["prerouting", "forward", "postrouting"]
            .iter()
            .any(|hook| text.contains(&format!("type filter hook {hook} ")))
        {
            found.push(Foreign { family: family.into(), name: name.into(), text });
        }
    }
    Ok(found)
}

fn said(program: &str, arguments: &[&str]) -> io::Result<String> {
    let path = find_program(program)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{program} is not installed")))?;
    let output = Command::new(path).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{program}: {}", words.lines().next().unwrap_or("failed"))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The device of the default route in /proc/net/route.
fn uplink(routes: &str) -> String {
    let fields = |line: &str| line.split_whitespace().take(2).map(str::to_string).collect::<Vec<_>>();
    let mut all = routes.lines().skip(1).map(fields);
    let found = all.find(|fields| fields.get(1).is_some_and(|to| to == "00000000"));
    found.map_or_else(|| UPLINK.to_string(), |fields| fields[0].clone())
}

/// Connects through a copy of the table, both ways. Without it they must have passed: what is lost then, the table has stopped.
fn try_table(table: &Foreign, uplink: &str, prefix: &str) -> io::Result<Blocked> {
    let trial = Trial::build(uplink, &format!("{prefix}{INSTANCE_DEVICE_SUFFIX}"))?;
    let families = [["ip", "inet"], ["ip6", "inet"]].map(|names| names.contains(&table.family.as_str()));
    let tried = || [0, 1].into_iter().filter(|index| families[*index]);
    let begun = Instant::now();
    for index in tried() {
        while trial.passes(index)? != [true; 2] {
            if begun.elapsed() > READY_MAX {
                return Err(io::Error::other("without rules, packets of the trial do not arrive either"));
            }
        }
    }
    trial.load(table)?;
    let mut blocked = Blocked::default();
    for index in tried() {
        let [into, out] = trial.passes(index)?;
        (blocked.into[index], blocked.out[index]) = (!into, !out);
    }
    Ok(blocked)
}

fn connects(from: &NetNs, to: &NetNs, address: IpAddr) -> io::Result<bool> {
    let listener = to.run(|| TcpListener::bind((address, 0)))??;
    let port = listener.local_addr()?.port();
    Ok(from.run(|| TcpStream::connect_timeout(&SocketAddr::new(address, port), ANSWER_MAX))?.is_ok())
}

/// A host with nothing on it, between an outside and an instance. Gone when it is dropped.
struct Trial {
    outside: NetNs,
    host: NetNs,
    instance: NetNs,
}

impl Trial {
    fn build(uplink: &str, device: &str) -> io::Result<Self> {
        let trial = Self { outside: anonymous()?, host: anonymous()?, instance: anonymous()? };
        for namespace in [&trial.outside, &trial.host, &trial.instance] {
            for key in ["net/ipv6/conf/all/accept_dad", "net/ipv6/conf/default/accept_dad"] {
                sys::sysctl::write(namespace, key, "0").map_err(io::Error::other)?;
            }
        }
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            sys::sysctl::write(&trial.host, key, "1").map_err(io::Error::other)?;
        }
        trial.cable(uplink, &trial.outside, OUTSIDE)?;
        trial.cable(device, &trial.instance, INSIDE)?;
        Ok(trial)
    }

    /// Whether connections of a family are made into the instance and out of it.
    fn passes(&self, index: usize) -> io::Result<[bool; 2]> {
        Ok([
            connects(&self.outside, &self.instance, INSIDE[index][1])?,
            connects(&self.instance, &self.outside, OUTSIDE[index][1])?,
        ])
    }

    fn cable(&self, name: &str, far: &NetNs, addresses: [[IpAddr; 2]; 2]) -> io::Result<()> {
        const FAR: &str = "far";
        let ours = Netlink::open(&self.host).map_err(io::Error::other)?;
        let theirs = Netlink::open(far).map_err(io::Error::other)?;
        ours.add_veth(name, FAR, Some(far)).map_err(io::Error::other)?;
        for (side, device, index) in [(&ours, name, 0), (&theirs, FAR, 1)] {
            side.set_up(device).map_err(io::Error::other)?;
            for pair in addresses {
                let length = if pair[index].is_ipv4() { 24 } else { 64 };
                let net = IpNet::new(pair[index], length).map_err(io::Error::other)?;
                side.add_address(device, net).map_err(io::Error::other)?;
            }
        }
        for [gateway, _] in addresses {
            let any =
                if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let destination = IpNet::new(any, 0).map_err(io::Error::other)?;
            let via = RouteTarget::Via { gateway, device: Some(FAR.into()), onlink: true };
            theirs.replace_route(&Route::new(destination, via)).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Puts a copy of the table into the host.
    fn load(&self, table: &Foreign) -> io::Result<()> {
        let prefix = match table.family.as_str() {
            "ip" => "iptables",
            "ip6" => "ip6tables",
            _ => return self.load_text(&table.text),
        };
        let (save, restore) = (format!("{prefix}-save"), format!("{prefix}-restore"));
        match find_program(&restore) {
            Some(restore) if IPTABLES.contains(&table.name.as_str()) => {
                let saved = said(&save, &["-t", &table.name])?;
                self.host.run(|| feed(Command::new(restore), &saved))?
            }
            _ => self.load_text(&table.text),
        }
    }

    fn load_text(&self, text: &str) -> io::Result<()> {
        sys::nft::apply(&self.host, text).map_err(io::Error::other)
    }
}

fn anonymous() -> io::Result<NetNs> {
    NetNs::anonymous().map_err(io::Error::other)
}

fn feed(mut command: Command, text: &str) -> io::Result<()> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    // It reads all before it says anything.
    child.stdin.take().expect("it is piped").write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(words.lines().next().unwrap_or("iptables-restore failed").to_string()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    fn table(family: &str, name: &str, text: &str) -> Foreign {
        Foreign { family: family.into(), name: name.into(), text: text.into() }
    }

    /// What is found of one table, with real packets.
    fn found(table: &Foreign) -> Finding {
        judge(owner(table), &[(table, try_table(table, "eth0", "holm"))], "holm")
    }

    #[test]
    fn tables_are_judged_by_packets() {
        let closed = "table inet filter {\n\tchain gate {\n\t\ttype filter hook forward priority filter; policy drop;\n\
                      \t\tRULE\n\t}\n}";
        for (rule, level, words) in [
            ("", Level::Warn, "stops what others send to instances and what instances send to others"),
            (
                "iifname \"holm*\" accept",
                Level::Warn,
                "stops what others send to instances and what instances",
            ),
            (
                "ct state established accept; iifname \"holm*\" accept",
                Level::Warn,
                "stops what others send to instances",
            ),
            (
                "ct state established accept; meta nfproto ipv4 accept",
                Level::Warn,
                "stops what others send to instances by IPv6 and what instances send to others by IPv6",
            ),
            ("ct state established accept; iifname { \"eth0\", \"holm-xdoctor\" } accept", Level::Ok, "lets"),
            (
                "iifname \"holm*\" accept; oifname \"holm*\" accept",
                Level::Ok,
                "lets the packets of instances pass",
            ),
        ] {
            let table = table("inet", "filter", &closed.replace("RULE", &rule.replace("; ", "\n\t\t")));
            let finding = found(&table);
            assert!(finding.level == level && finding.found.contains(words), "{rule}: {finding:?}");
        }
        let broken = found(&table("inet", "filter", "table inet filter { nonsense }"));
        assert!(broken.level == Level::Warn && broken.found.contains("cannot be tried"), "{broken:?}");
    }

    #[test]
    fn the_way_out_is_commands() {
        let text = "table inet filter {\n\tchain gate {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}";
        let nft = table("inet", "filter", text);
        let all = [Owner::Docker, Owner::Ufw, Owner::Firewalld, Owner::Iptables, Owner::Nft]
            .map(|owner| commands(owner, [&nft].into_iter(), [true; 2], "holm"));
        insta::assert_snapshot!(all.join("\n\n"));
    }

    #[test]
    fn owners_are_known_by_their_chains() {
        for (family, name, text, wanted) in [
            ("inet", "firewalld", "", Owner::Firewalld),
            ("ip", "filter", "\tchain DOCKER-USER {\n\tchain ufw-before-forward {", Owner::Docker),
            ("ip", "filter", "\tchain ufw-before-forward {", Owner::Ufw),
            ("ip6", "filter", "\tchain ufw6-before-forward {", Owner::Ufw),
            ("ip", "filter", "\tchain FORWARD {", Owner::Iptables),
            ("inet", "filter", "", Owner::Nft),
            ("ip", "mine", "", Owner::Nft),
        ] {
            assert_eq!(owner(&table(family, name, text)), wanted, "{family} {name}");
        }
    }

    #[test]
    fn the_uplink_is_the_default_routes_device() {
        let table = "Iface\tDestination\tGateway\nlan0\t0000A8C0\t0\nwan0\t00000000\t0100A8C0\n";
        assert_eq!(uplink(table), "wan0");
        assert_eq!(uplink(""), "eth0");
    }
}
