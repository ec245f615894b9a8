//! A pod's network namespace: its own, holding the far ends of its ports' veth pairs, with fixed addresses.
//!
//! The network makes the pair: the port's device in the network's namespace, and the peer under the name that
//! [`peer_name`] gives in the pod's, where that is there, else beside it, from where it is moved in. The peer becomes
//! `eth0`, `eth1` and so on. Every step is idempotent. In the machine of a pod with a kernel of its own the same is done to the
//! machine's cards, which come under that name, too.
//!
//! The namespace belongs to the pod's own user namespace, which is made with it and lives as long: root inside has in it
//! what its capabilities say (raw packets by default, as in docker; addresses and routes only with `CAP_NET_ADMIN`),
//! and the network's anti-spoof rules outside hold for whatever it sends.

use ipnet::IpNet;
use model::{
    id::InstanceId,
    plan::{IdRange, NicPlan},
};
use std::{fs, io, net::IpAddr, path::Path};
use sys::{
    netlink::{Link, Netlink, Route, RouteTarget, Rule},
    netns::NetNs,
    sysctl,
    userns::{self, IdMap},
};

/// Name of the file below a pod's run directory that tells of its interfaces.
pub(super) const NICS: &str = "nics.json";
/// Most interfaces of a pod.
const INTERFACES_MAX: usize = 16;
/// The second interface's default route is used when the first one's is gone, and so on.
const METRIC_STEP: u32 = 100;
/// Routing tables of further interfaces: this and the interface's number.
const TABLES: u32 = 1000;
/// Place of the rules that lead to them, before the main table's.
const RULE_PRIORITY: u32 = 1000;

/// Name of the handle of a pod's namespace, beside those of the networks.
pub fn pod_handle_name(id: InstanceId) -> String {
    format!("i-{}", id.hex())
}

/// Name of a veth's end that waits in the network's namespace for its pod.
pub fn peer_name(nic: &NicPlan) -> String {
    format!("c{}", nic.port.short())
}

/// Settings of a pod's namespace; a host without IPv6 has not all of them.
const SETTINGS: [(&str, &str); 4] = [
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
];

/// Makes the pod's namespace and the user namespace that owns it, or finds them, with loopback up and with ports below
/// 1024 and ping open to every user inside. One that has a handle has all that: the handle is made last.
pub fn create(path: &Path, ids: IdRange) -> io::Result<NetNs> {
    let map = IdMap::shifted(ids.base, ids.count);
    let namespace = NetNs::create_by(path, || {
        let namespace = NetNs::of(userns::create_with_network(&map)?, path);
        Netlink::open(&namespace)?.set_up("lo")?;
        sysctl::write_present(&namespace, SETTINGS)?;
        Ok(namespace)
    })?;
    Ok(namespace)
}

/// Moves the pod's end of a port in and configures it. `number` is its place: `eth<number>`.
pub fn plug(namespace: &NetNs, nic: &NicPlan, number: usize) -> io::Result<()> {
    if number >= INTERFACES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a pod has at most {INTERFACES_MAX} interfaces"),
        ));
    }
    let inside = Netlink::open(namespace)?;
    let name = format!("eth{number}");
    let peer = peer_name(nic);
    if inside.link(&name)?.is_none_or(|link| link.mac != Some(nic.mac.0)) {
        if inside.link(&peer)?.is_none() {
            bring_in(namespace, nic, &peer)?;
        }
        inside.set_down(&peer)?;
        inside.set_mac(&peer, nic.mac.0)?;
        inside.rename(&peer, &name)?;
    }
    configure(&inside, nic, number)
}

/// Gives an interface that is in the pod's namespace its addresses and routes.
fn configure(inside: &Netlink, nic: &NicPlan, number: usize) -> io::Result<()> {
    let name = format!("eth{number}");
    inside.set_mtu(&name, nic.mtu)?;
    inside.set_up(&name)?;
    for address in &nic.addresses {
        inside.add_address(&name, as_plugged(*address))?;
    }
    let gateways = [nic.gateway_v4.map(IpAddr::V4), nic.gateway_v6.map(IpAddr::V6)];
    for gateway in gateways.into_iter().flatten() {
        let all = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        let all: IpNet = all.parse().expect("a literal");
        let target = RouteTarget::Via { gateway, device: Some(name.clone()), onlink: true };
        let metric = number as u32 * METRIC_STEP + if gateway.is_ipv6() { 1024 } else { 0 };
        inside.replace_route(&Route { metric, ..Route::new(all, target.clone()) })?;
        if gateway.is_ipv6() {
            for range in &nic.ranges_v6 {
                inside.replace_route(&Route { metric, ..Route::new(*range, target.clone()) })?;
            }
        }
        if number > 0 {
            inside.replace_route(&Route { table: table(number), ..Route::new(all, target) })?;
        }
    }
    for rule in rules(nic, number) {
        inside.add_rule(&rule)?;
    }
    Ok(())
}

/// Makes the interfaces of a system what they were at its first boot: its programs make routes of their own, let addresses
/// expire, and take interfaces down when they end. In the shim, whose namespace of the network is the pod's.
pub(super) fn begin_anew(run: &Path) -> io::Result<()> {
    let nics: Vec<NicPlan> = serde_json::from_slice(&fs::read(run.join(NICS))?)?;
    let inside = Netlink::here()?;
    forget(&inside, &nics)?;
    plug_again(&inside, &nics)
}

/// Takes away addresses and routes of a pod's interfaces, whoever has set them.
pub fn forget(inside: &Netlink, nics: &[NicPlan]) -> io::Result<()> {
    for nic in nics {
        let Some(number) = number_in(inside, nic)? else { continue };
        let name = format!("eth{number}");
        // Routes go with it.
        inside.set_down(&name)?;
        for address in inside.addresses(&name)? {
            inside.delete_address(&name, address)?;
        }
    }
    Ok(())
}

/// Configures the interfaces again that are in a pod's namespace.
pub fn plug_again(inside: &Netlink, nics: &[NicPlan]) -> io::Result<()> {
    nics.iter().try_for_each(|nic| match number_in(inside, nic)? {
        Some(number) => configure(inside, nic, number),
        None => Ok(()),
    })
}

/// The table of an interface: what is sent under its addresses.
fn table(number: usize) -> u32 {
    TABLES + number as u32
}

/// What is sent under an address of a further interface leaves by that one: answers go back as the questions came, and
/// each network lets its own addresses pass alone. The first interface has the main table.
fn rules(nic: &NicPlan, number: usize) -> impl Iterator<Item = Rule> {
    let of = move |address: &IpNet| Rule {
        source: IpNet::from(address.addr()),
        table: table(number),
        priority: RULE_PRIORITY,
    };
    nic.addresses.iter().filter(move |_| number > 0).map(of)
}

/// An address as the pod has it. No IPv6 prefix is on the link: a neighbour would be asked for there and nobody
/// answers, since the network answers for gateways alone; so all packets take the default route. For IPv4 the network
/// answers for every address, and programs expect to see their subnet.
fn as_plugged(address: IpNet) -> IpNet {
    match address {
        IpNet::V4(_) => address,
        IpNet::V6(net) => IpNet::from(IpAddr::from(net.addr())),
    }
}

/// Takes the waiting end out of the network's namespace; makes the pair if the network has not yet.
fn bring_in(namespace: &NetNs, nic: &NicPlan, peer: &str) -> io::Result<()> {
    let outside = Netlink::open(&NetNs::open(&nic.netns)?)?;
    if outside.link(peer)?.is_none() {
        // Without its other end the device is of no use: that end was in a namespace that is gone, and so is the device.
        return Ok(outside.add_veth(&nic.device, peer, Some(namespace))?);
    }
    Ok(outside.set_ns(peer, namespace)?)
}

/// Removes the pod's end of a port, and with it the network's.
pub fn unplug(namespace: &NetNs, nic: &NicPlan) -> io::Result<()> {
    let inside = Netlink::open(namespace)?;
    forget_rules(&inside, nic)?;
    for link in inside.links()? {
        if link.kind.as_deref() == Some("veth") && link.mac == Some(nic.mac.0) {
            inside.delete_link(&link.name)?;
        }
    }
    Ok(())
}

/// Takes a card of the pod's machine down, which is about to be plugged out: its rules, and its routes with it.
pub fn take_down(namespace: &NetNs, nic: &NicPlan) -> io::Result<()> {
    let inside = Netlink::open(namespace)?;
    forget_rules(&inside, nic)?;
    for link in inside.links()?.iter().filter(|link| is_end_of(link, nic)) {
        inside.set_down(&link.name)?;
    }
    Ok(())
}

fn forget_rules(inside: &Netlink, nic: &NicPlan) -> io::Result<()> {
    if let Some(number) = number_in(inside, nic)? {
        for rule in rules(nic, number) {
            inside.delete_rule(&rule)?;
        }
    }
    Ok(())
}

/// Whether the pod has this port, and the number of its interface.
pub fn plugged(namespace: &NetNs, nic: &NicPlan) -> io::Result<Option<usize>> {
    number_in(&Netlink::open(namespace)?, nic)
}

fn number_in(inside: &Netlink, nic: &NicPlan) -> io::Result<Option<usize>> {
    let links = inside.links()?;
    let found = links.iter().find(|link| is_end_of(link, nic));
    Ok(found.and_then(|link| link.name.strip_prefix("eth")?.parse().ok()))
}

/// Whether this is the port's end in the pod: of a veth pair, or in a machine a card, which is of no kind. What else has its
/// address was made on top of it inside.
fn is_end_of(link: &Link, nic: &NicPlan) -> bool {
    link.mac == Some(nic.mac.0) && link.kind.as_deref().is_none_or(|kind| kind == "veth")
}

/// The lowest number that no interface has.
pub fn free_number(namespace: &NetNs) -> io::Result<usize> {
    let links = Netlink::open(namespace)?.links()?;
    let taken: Vec<usize> =
        links.iter().filter_map(|link| link.name.strip_prefix("eth")?.parse().ok()).collect();
    let free = (0..INTERFACES_MAX).find(|number| !taken.contains(number));
    free.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("a pod has at most {INTERFACES_MAX} interfaces"))
    })
}
