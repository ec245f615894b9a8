//! `holm subnet`: ranges of addresses of a network.

use super::{
    completion,
    failure::{Failure, Result},
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    port::groups,
    session::Session,
};
use api::v1::types::{
    list::{ListQuery, WaitQuery},
    subnet::{CreateSubnet, Pool, Route, Subnet, UpdateSubnet},
};
use ipnet::IpNet;
use model::subnet::Ipv6Mode;
use serde_json::json;
use std::net::IpAddr;

/// Verbs of `holm subnet`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List subnets
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this network
        #[arg(long, value_name = "NETWORK", add = completion::names("networks"))]
        network: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show a subnet
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("subnets"))]
        name: String,
    },
    /// Make a subnet
    Create(CreateArgs),
    /// Change a subnet; its range never changes
    Set(SetArgs),
    /// Delete subnets that nothing uses
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// Settings of a subnet.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SettingArgs {
    /// Address of the gateway, or none [default: the first of the range]
    #[arg(long, value_name = "ADDRESS|none", value_parser = gateway)]
    pub gateway: Option<Gateway>,
    /// Tell addresses by DHCP: yes or no
    #[arg(long, value_name = "yes|no", value_parser = super::instance::yes_or_no)]
    pub dhcp: Option<bool>,
    /// DNS server told to instances (may be given several times) [default: holm's own]
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<IpAddr>,
    /// Where automatic addresses come from: FIRST-LAST (may be given several times)
    #[arg(long, value_name = "FIRST-LAST", value_parser = pool)]
    pub pool: Vec<Pool>,
    /// Route told to instances: CIDR,NEXT-HOP (may be given several times)
    #[arg(long, value_name = "CIDR,HOP", value_parser = route)]
    pub route: Vec<Route>,
    /// Security group as a second gate for all of the subnet, or none (may be given several times)
    #[arg(long, visible_alias = "sg", value_name = "GROUP", add = completion::names("security_groups"))]
    pub security_group: Vec<String>,
}

/// A gateway, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway(pub Option<IpAddr>);

/// A new subnet.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Range, like 10.1.0.0/24 or fd00:1::/64; with --from-pool it may be left out
    #[arg(value_name = "CIDR", required_unless_present = "pool_name")]
    pub cidr: Option<IpNet>,
    /// Subnet pool to cut the range from
    #[arg(long = "from-pool", id = "pool_name", value_name = "POOL", add = completion::names("subnet_pools"))]
    pub from_pool: Option<String>,
    /// Prefix length of the range that the pool gives
    #[arg(long, value_name = "BITS", requires = "pool_name")]
    pub prefix: Option<u8>,
    /// Network that it belongs to
    #[arg(long, value_name = "NETWORK", add = completion::names("networks"))]
    pub network: String,
    /// How instances get their IPv6 address: stateful, slaac or stateless
    #[arg(long, value_name = "MODE", value_parser = ipv6_mode)]
    pub ipv6_mode: Option<Ipv6Mode>,
    #[command(flatten)]
    pub setting: SettingArgs,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// Changes to a subnet.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("subnets"))]
    pub subnet: String,
    #[command(flatten)]
    pub change: ChangeArgs,
    #[command(flatten)]
    pub setting: SettingArgs,
}

fn gateway(text: &str) -> std::result::Result<Gateway, String> {
    if text == "none" {
        return Ok(Gateway(None));
    }
    text.parse().map(|a| Gateway(Some(a))).map_err(|_| "write an address or none".into())
}

fn pool(text: &str) -> std::result::Result<Pool, String> {
    let wrong = || "write FIRST-LAST, like 10.1.0.100-10.1.0.200".to_string();
    let (start, end) = text.split_once('-').ok_or_else(wrong)?;
    Ok(Pool {
        start: start.trim().parse().map_err(|_| wrong())?,
        end: end.trim().parse().map_err(|_| wrong())?,
    })
}

/// Reads `CIDR,NEXT-HOP`.
///
/// # Errors
/// Says what is understood.
pub fn route(text: &str) -> std::result::Result<Route, String> {
    let wrong = || "write CIDR,NEXT-HOP, like 10.9.0.0/16,10.1.0.9".to_string();
    let (destination, next_hop) = text.split_once(',').ok_or_else(wrong)?;
    Ok(Route {
        destination: destination.trim().parse().map_err(|_| wrong())?,
        next_hop: next_hop.trim().parse().map_err(|_| wrong())?,
    })
}

fn ipv6_mode(text: &str) -> std::result::Result<Ipv6Mode, String> {
    serde_json::from_value(text.into()).map_err(|_| "write stateful, slaac or stateless".into())
}

impl Shown for Subnet {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |s| Cell::text(&s.head.name)),
        wide("ID", |s| Cell::text(s.head.id)),
        column("NETWORK", |s| Cell::text(&s.network.name)),
        column("CIDR", |s| Cell::text(s.cidr)),
        column("GATEWAY", |s| Cell::maybe(s.gateway)),
        column("DHCP", |s| Cell::flag(s.dhcp)),
        wide("GATE", |s| Cell::list(s.security_groups.iter().map(|g| &g.name))),
        wide("DNS", |s| Cell::addresses(&s.dns_servers)),
        wide("POOLS", |s| Cell::list(s.pools.iter().map(|p| format!("{}-{}", p.start, p.end)))),
        wide("PROJECT", |s| Cell::text(&s.head.project.name)),
        column("AGE", |s| Cell::Time(s.head.created_at)),
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
        Verb::List { network, list } => {
            noun::list::<Subnet>(session, &ListQuery { network, ..list.query() }).await
        }
        Verb::Show { name } => noun::show::<Subnet>(session, &name).await,
        Verb::Create(args) => create(session, &args).await,
        Verb::Set(args) => set(session, &args).await,
        Verb::Delete(args) => noun::delete::<Subnet>(session, &args).await,
    }
}

/// Makes a subnet with nothing said but its range.
///
/// # Errors
/// As the server refuses.
pub async fn make(session: &Session, name: &str, network: &str, cidr: IpNet) -> Result<Subnet> {
    let request = json!({"name": name, "network": network, "cidr": cidr});
    let request: CreateSubnet = serde_json::from_value(request).map_err(Failure::usage)?;
    Ok(session.client.create::<Subnet>(&request, &WaitQuery::default()).await?)
}

async fn create(session: &Session, args: &CreateArgs) -> Result {
    let mut request = json!({
        "name": args.name, "network": args.network, "cidr": args.cidr, "description": args.about.description,
        "labels": args.about.labels(), "dns_servers": args.setting.dns, "pools": args.setting.pool,
        "host_routes": args.setting.route, "ipv6_mode": args.ipv6_mode, "dhcp": args.setting.dhcp,
        "subnet_pool": args.from_pool, "prefix_len": args.prefix,
        "security_groups": groups(&args.setting.security_group).unwrap_or_default(),
    });
    if let Some(Gateway(gateway)) = args.setting.gateway {
        request["gateway"] = json!(gateway);
    }
    let request: CreateSubnet = serde_json::from_value(request).map_err(Failure::usage)?;
    let made = session.client.create::<Subnet>(&request, &WaitQuery::default()).await?;
    noun::tell(session, &made, "is made")?;
    session.next(format!("holm run --network {} IMAGE", made.network.name));
    Ok(())
}

async fn set(session: &Session, args: &SetArgs) -> Result {
    let setting = &args.setting;
    let request = UpdateSubnet {
        name: args.change.name.clone(),
        description: args.change.description.clone(),
        labels: args.change.labels(),
        gateway: setting.gateway.map(|gateway| gateway.0),
        dhcp: setting.dhcp,
        dns_servers: (!setting.dns.is_empty()).then(|| setting.dns.clone()),
        pools: (!setting.pool.is_empty()).then(|| setting.pool.clone()),
        host_routes: (!setting.route.is_empty()).then(|| setting.route.clone()),
        security_groups: groups(&setting.security_group),
    };
    noun::change::<Subnet>(session, &args.subnet, &request).await
}
