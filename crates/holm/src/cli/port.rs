//! `holm port`: where instances meet networks.

use super::{
    completion,
    failure::Result,
    instance::yes_or_no,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
};
use api::v1::types::{
    list::{ListQuery, WaitQuery},
    port::{AddressPair, CreatePort, FixedIpRequest, Port, Spread, SpreadPort, UpdatePort},
};
use model::{address::Mac, port::alias::Alias};
use std::net::IpAddr;

/// Verbs of `holm port`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List ports
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this network
        #[arg(long, value_name = "NETWORK", add = completion::names("networks"))]
        network: Option<String>,
        /// Only those of this instance
        #[arg(long, value_name = "INSTANCE", add = completion::names("instances"))]
        instance: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show a port
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("ports"))]
        name: String,
    },
    /// Make a port, for an instance to be made with `--network port=NAME`
    Create(CreateArgs),
    /// Change a port, while its instance runs
    Set(SetArgs),
    /// Delete ports that nothing uses
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// `holm port CONTAINER [PORT]`, as docker has it
    #[command(external_subcommand)]
    Published(Vec<String>),
}

/// A new port.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name [default: made up]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Network
    #[arg(long, value_name = "NETWORK", add = completion::names("networks"))]
    pub network: String,
    /// Address (may be given several times) [default: one of each family]
    #[arg(long, value_name = "ADDRESS")]
    pub address: Vec<IpAddr>,
    /// Subnet to take an address from (may be given several times)
    #[arg(long, value_name = "SUBNET", add = completion::names("subnets"))]
    pub subnet: Vec<String>,
    /// Ethernet address [default: made up]
    #[arg(long, value_name = "MAC")]
    pub mac: Option<Mac>,
    /// Security group, or none (may be given several times) [default: the project's default group]
    #[arg(long, visible_alias = "sg", value_name = "GROUP", add = completion::names("security_groups"))]
    pub security_group: Vec<String>,
    /// Filter nothing and let any sender's address pass
    #[arg(long)]
    pub no_port_security: bool,
    /// Further address or range that may be used behind the port: ADDRESS[,MAC] (may be given several times)
    #[arg(long, value_name = "ADDRESS[,MAC]", value_parser = address_pair)]
    pub allow: Vec<AddressPair>,
    /// Most it passes in each direction, in bits per second: 50m, 1g
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub rate: Option<u32>,
    /// Further name by which it is found in its network (may be given several times)
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<Alias>,
    #[command(flatten)]
    pub spread: SpreadArgs,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// Changes to a port.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("ports"))]
    pub port: String,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Address, with all others that it shall have (may be given several times)
    #[arg(long, value_name = "ADDRESS")]
    pub address: Vec<IpAddr>,
    /// Subnet in which it shall have an address (may be given several times)
    #[arg(long, value_name = "SUBNET", add = completion::names("subnets"))]
    pub subnet: Vec<String>,
    /// Security groups, all of them, or none (may be given several times)
    #[arg(long, visible_alias = "sg", value_name = "GROUP", add = completion::names("security_groups"))]
    pub security_group: Vec<String>,
    /// Filter, and let only the port's own addresses send: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub port_security: Option<bool>,
    /// Further addresses that may be used behind the port, all of them: ADDRESS[,MAC] (may be given several times)
    #[arg(long, value_name = "ADDRESS[,MAC]", value_parser = address_pair)]
    pub allow: Vec<AddressPair>,
    /// Allow no further addresses
    #[arg(long, conflicts_with = "allow")]
    pub allow_none: bool,
    /// A port that is down passes nothing: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub up: Option<bool>,
    /// Most it passes in each direction, in bits per second: 50m, 1g; none for no limit
    #[arg(long, value_name = "RATE|none", value_parser = rate_or_none)]
    pub rate: Option<Rate>,
    /// Further names by which it is found in its network, all of them (may be given several times)
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<Alias>,
    /// Have no further names
    #[arg(long, conflicts_with = "alias")]
    pub alias_none: bool,
    #[command(flatten)]
    pub spread: SpreadArgs,
    /// Spread nothing any more
    #[arg(long, conflicts_with = "spread_over")]
    pub spread_none: bool,
}

/// What comes to a port that nothing uses, and goes on to others.
#[derive(Debug, Clone, clap::Args)]
pub struct SpreadArgs {
    /// Lead what comes to its addresses on to the ports with this alias, in turn, those that are ready
    #[arg(long, value_name = "NAME", requires = "spread")]
    pub spread_over: Option<Alias>,
    /// Which: PORT[:THEIR-PORT][/tcp|udp|sctp] (may be given several times)
    #[arg(long, value_name = "PORT[:PORT][/PROTOCOL]", requires = "spread_over", value_parser = spread_port)]
    pub spread: Vec<SpreadPort>,
}

impl SpreadArgs {
    fn asked(&self) -> Option<Spread> {
        self.spread_over.clone().map(|over| Spread { over, ports: self.spread.clone() })
    }
}

/// Reads `80:8080/tcp`.
fn spread_port(text: &str) -> std::result::Result<SpreadPort, String> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (port, to) = numbers.split_once(':').unwrap_or((numbers, numbers));
    let number = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| "write PORT or PORT:THEIR-PORT, with /udp or /sctp behind it".to_string())
    };
    Ok(SpreadPort { port: number(port)?, to: number(to)?, protocol: protocol.to_string() })
}

/// A rate that is set: megabits per second, or no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(Option<u32>);

fn rate_or_none(text: &str) -> std::result::Result<Rate, String> {
    if text == "none" { Ok(Rate(None)) } else { rate(text).map(|rate| Rate(Some(rate))) }
}

/// Reads `50m` or `1g`, bits per second, as megabits per second.
///
/// # Errors
/// A text for people.
pub fn rate(text: &str) -> std::result::Result<u32, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.to_ascii_lowercase().as_str() {
        "m" | "mbit" => Some(1),
        "g" | "gbit" => Some(1000),
        _ => None,
    };
    let rate = factor.and_then(|factor| number.parse::<u32>().ok()?.checked_mul(factor));
    rate.ok_or_else(|| "write a number with m or g for mega- or gigabits per second, like 50m".to_string())
}

fn address_pair(text: &str) -> std::result::Result<AddressPair, String> {
    let wrong = || "write ADDRESS or ADDRESS,MAC".to_string();
    let (net, mac) = text.split_once(',').map_or((text, None), |(net, mac)| (net, Some(mac)));
    let net = net.parse().or_else(|_| net.parse::<IpAddr>().map(ipnet::IpNet::from)).map_err(|_| wrong())?;
    let mac = mac.map(|mac| mac.parse().map_err(|_| wrong())).transpose()?;
    Ok(AddressPair { net, mac })
}

/// Groups that were asked for; `none` is an empty list.
pub fn groups(given: &[String]) -> Option<Vec<String>> {
    match given {
        [] => None,
        [one] if one == "none" => Some(vec![]),
        several => Some(several.to_vec()),
    }
}

impl Shown for Port {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |p| Cell::text(&p.head.name)),
        wide("ID", |p| Cell::text(p.head.id)),
        column("NETWORK", |p| Cell::text(&p.network.name)),
        column("ADDRESSES", |p| Cell::list(p.addresses.iter().map(|a| a.address))),
        column("FLOATING IP", |p| Cell::addresses(&p.floating_ips)),
        wide("ALIASES", |p| Cell::list(&p.aliases)),
        wide("SPREAD OVER", |p| Cell::maybe(p.spread.as_ref().map(|spread| spread.over.to_string()))),
        column("MAC", |p| Cell::text(p.mac)),
        column("USED BY", |p| {
            Cell::maybe(
                p.device.as_ref().map(|d| if d.name.is_empty() { d.kind.clone() } else { d.name.clone() }),
            )
        }),
        wide("SECURITY GROUPS", |p| Cell::list(p.security_groups.iter().map(|g| &g.name))),
        wide("RATE", |p| Cell::maybe(p.rate_mbit.map(|rate| format!("{rate}m")))),
        wide("UP", |p| Cell::flag(p.admin_up)),
        wide("PROJECT", |p| Cell::text(&p.head.project.name)),
    ];

    fn name(&self) -> String {
        self.head.name.clone()
    }
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, verb: Verb) -> Result {
    match verb {
        Verb::List { network, instance, list } => {
            noun::list::<Port>(session, &ListQuery { network, instance, ..list.query() }).await
        }
        Verb::Show { name } => noun::show::<Port>(session, &name).await,
        Verb::Create(args) => create(session, args).await,
        Verb::Set(args) => set(session, &args).await,
        Verb::Delete(args) => noun::delete::<Port>(session, &args).await,
        Verb::Published(words) => super::docker::published(session, &words).await,
    }
}

fn addresses(named: &[IpAddr], subnets: &[String]) -> Vec<FixedIpRequest> {
    let by_address = named.iter().map(|a| FixedIpRequest { subnet: None, address: Some(*a) });
    let by_subnet = subnets.iter().map(|s| FixedIpRequest { subnet: Some(s.clone()), address: None });
    by_address.chain(by_subnet).collect()
}

async fn create(session: &Session, args: CreateArgs) -> Result {
    let request = CreatePort {
        name: args.name.clone(),
        description: args.about.description.clone(),
        labels: args.about.labels(),
        network: Some(args.network.clone()),
        addresses: addresses(&args.address, &args.subnet),
        mac: args.mac,
        security_groups: groups(&args.security_group),
        port_security: args.no_port_security.then_some(false),
        allowed_pairs: args.allow,
        admin_up: None,
        rate_mbit: args.rate,
        foreign_user: None,
        spread: args.spread.asked(),
        aliases: args.alias,
    };
    let made = session.client.create::<Port>(&request, &WaitQuery::default()).await?;
    noun::tell(session, &made, "is made")?;
    session.next(format!("holm run --network port={} IMAGE", made.head.name));
    Ok(())
}

async fn set(session: &Session, args: &SetArgs) -> Result {
    let fixed = addresses(&args.address, &args.subnet);
    let request = UpdatePort {
        name: args.change.name.clone(),
        description: args.change.description.clone(),
        labels: args.change.labels(),
        security_groups: groups(&args.security_group),
        port_security: args.port_security,
        allowed_pairs: (!args.allow.is_empty() || args.allow_none).then(|| args.allow.clone()),
        admin_up: args.up,
        rate_mbit: args.rate.map(|Rate(rate)| rate),
        addresses: (!fixed.is_empty()).then_some(fixed),
        mac: None,
        foreign_user: None,
        aliases: (!args.alias.is_empty() || args.alias_none).then(|| args.alias.clone()),
        spread: if args.spread_none { Some(None) } else { args.spread.asked().map(Some) },
    };
    noun::change::<Port>(session, &args.port, &request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spread_is_read() {
        let one = |port, to, protocol: &str| Ok(SpreadPort { port, to, protocol: protocol.into() });
        assert_eq!(spread_port("80"), one(80, 80, "tcp"));
        assert_eq!(spread_port("80:8080/udp"), one(80, 8080, "udp"));
        for text in ["", "x", "80:", "70000", "80:80:80"] {
            assert!(spread_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_bits_per_second_with_a_unit() {
        for (text, mbit) in [("50m", 50), ("1g", 1000), ("10Mbit", 10), ("2Gbit", 2000)] {
            assert_eq!(rate(text), Ok(mbit), "{text}");
        }
        for wrong in ["", "50", "m", "1.5g", "-1m", "5t", "99999999999m", "9999999g"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(rate_or_none("none"), Ok(Rate(None)));
    }
}
