//! The network: what the kernel can do (tried in a namespace of its own), and addresses in the way.

use super::{DoctorArgs, Finding, first_line};
use control::project::DEFAULT_CIDR_V4;
use ipnet::{IpNet, Ipv4Net};
use std::{fs, net::Ipv4Addr, path::Path};
use sys::{netlink::Netlink, netns::NetNs};

/// All that holm's tables use, in small.
const TRIAL: &str = "table inet holm_doctor {
  set members { type ipv4_addr; flags interval; }
  map verdicts { type ifname : verdict; }
  chain raw { type filter hook prerouting priority raw; policy accept;
    ct zone set 1
  }
  chain forward { type filter hook forward priority filter; policy drop; ct state established,related accept
    ip saddr @members tcp dport 80 accept
    iifname vmap @verdicts
  }
  chain nat { type nat hook postrouting priority srcnat; policy accept; 
    oifname \"x\" masquerade
  }
}";

/// All checks of this file.
pub fn look(args: &DoctorArgs, is_root: bool) -> Vec<Finding> {
    let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let routes = routes_of_others(&table, &args.prefix);
    let mut all =
        vec![nft(), tun(), floating_range(args.external, &routes), own_range(&routes), forwarding()];
    if is_root {
        all.insert(1, trial());
    }
    all
}

fn nft() -> Finding {
    match first_line("nft", &["--version"]) {
        Some(version) => Finding::ok("nftables", version),
        None => Finding::fail(
            "nftables",
            "the program nft is not installed",
            "apt install nftables, or dnf install nftables",
        ),
    }
}

/// Makes a cable and a table in a namespace that ends with this function.
fn trial() -> Finding {
    const NAME: &str = "packet filter";
    let hint = "use a kernel with nf_tables, nf_conntrack, nf_nat and veth (distributions' own have them)";
    let namespace = match NetNs::anonymous() {
        Ok(namespace) => namespace,
        Err(error) => {
            return Finding::fail(
                NAME,
                format!("no network namespace can be made: {error}: {}", error.source),
                hint,
            );
        }
    };
    let cable = Netlink::open(&namespace).and_then(|link| link.add_veth("holm-a", "holm-b", None));
    if let Err(error) = cable {
        return Finding::fail(NAME, format!("no virtual cable can be made: {error}: {}", error.source), hint);
    }
    match sys::nft::apply(&namespace, TRIAL) {
        Ok(()) => Finding::ok(
            NAME,
            "sets, maps, connection tracking with zones, address translation, virtual cables",
        ),
        Err(error) => Finding::fail(NAME, format!("nft refuses a table: {error}"), hint),
    }
}

fn tun() -> Finding {
    if Path::new("/dev/net/tun").exists() {
        return Finding::ok("tap devices", "/dev/net/tun is there");
    }
    Finding::fail(
        "tap devices",
        "there is no /dev/net/tun",
        "modprobe tun; in a container, hand the device in",
    )
}

/// Routes of the host that overlap the range of floating IPs.
fn floating_range(external: IpNet, routes: &[(String, Ipv4Net)]) -> Finding {
    const NAME: &str = "floating range";
    let IpNet::V4(wanted) = external else {
        return Finding::ok(NAME, external.to_string());
    };
    match clash(wanted, routes) {
        Some((device, net)) => Finding::fail(
            NAME,
            format!("{external} overlaps {net}, which {device} leads to"),
            "choose a range that this host does not use: `holm serve --external-v4 CIDR`",
        ),
        None => Finding::ok(NAME, format!("{external} is free on this host")),
    }
}

/// Routes of the host that overlap the range of every new project's own network. An instance takes their addresses for
/// its neighbours', and never answers what comes from there.
fn own_range(routes: &[(String, Ipv4Net)]) -> Finding {
    const NAME: &str = "private range";
    let wanted: Ipv4Net = DEFAULT_CIDR_V4.parse().expect("a range");
    match clash(wanted, routes) {
        Some((device, net)) => Finding::warn(
            NAME,
            format!("{wanted}, which new projects' networks have, overlaps {net}, which {device} leads to"),
            format!(
                "instances there do not reach {net} and are not reached from it; what is to needs another network: \
                 `holm network create lan --subnet 10.77.0.0/24` and `--network lan`"
            ),
        ),
        None => {
            Finding::ok(NAME, format!("{wanted}, which new projects' networks have, is free on this host"))
        }
    }
}

fn clash(wanted: Ipv4Net, routes: &[(String, Ipv4Net)]) -> Option<&(String, Ipv4Net)> {
    routes.iter().find(|(_, net)| {
        net.prefix_len() > 0 && (net.contains(&wanted.network()) || wanted.contains(&net.network()))
    })
}

fn routes_of_others(table: &str, prefix: &str) -> Vec<(String, Ipv4Net)> {
    routes(table).into_iter().filter(|(device, _)| !device.starts_with(prefix)).collect()
}

/// Device and destination of each line of /proc/net/route (little-endian hex).
fn routes(table: &str) -> Vec<(String, Ipv4Net)> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (destination, mask) = (number(fields.get(1)?)?, number(fields.get(7)?)?);
        let net = Ipv4Net::with_netmask(Ipv4Addr::from(destination), Ipv4Addr::from(mask)).ok()?;
        Some((fields[0].to_string(), net))
    };
    table.lines().skip(1).filter_map(line).collect()
}

fn forwarding() -> Finding {
    let on = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1");
    let found = if on {
        "on"
    } else {
        "off; `holm serve` switches it on, and lets nothing else be forwarded by that"
    };
    Finding::ok("forwarding", found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn routes_are_read() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let all = routes(table);
        assert_eq!(all[0].1.to_string(), "0.0.0.0/0");
        assert_eq!(all[1], ("eth0".to_string(), "192.168.0.0/24".parse().unwrap()));
    }

    #[test]
    fn ranges_that_the_host_uses_are_told() {
        let lan = [("eth0".to_string(), "10.0.0.0/16".parse().unwrap())];
        let any = [("eth0".to_string(), "0.0.0.0/0".parse().unwrap())];
        assert_eq!((own_range(&lan).level, own_range(&any).level), (Level::Warn, Level::Ok));
        let external = |cidr: &str, routes: &[_]| floating_range(cidr.parse().unwrap(), routes).level;
        assert_eq!(external("10.0.128.0/24", &lan), Level::Fail);
        assert_eq!((external("10.1.0.0/24", &lan), external("10.1.0.0/24", &any)), (Level::Ok, Level::Ok));
    }
}
