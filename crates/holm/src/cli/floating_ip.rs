//! `holm floating-ip`: outside addresses that move between running instances.

use super::{
    completion,
    failure::Result,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
};
use api::v1::types::{
    floating_ip::{CreateFloatingIp, FloatingIp, TargetRequest, UpdateFloatingIp},
    list::{ListQuery, WaitQuery},
};
use std::net::IpAddr;

/// Verbs of `holm floating-ip`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List floating IPs
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a floating IP
    Show {
        /// Address, name or id
        #[arg(value_name = "IP", add = completion::names("floating_ips"))]
        ip: String,
    },
    /// Take a floating IP, and with --to lead it somewhere at once
    Create(CreateArgs),
    /// Lead a floating IP to an instance
    Attach(TargetArgs),
    /// Move a floating IP to another instance, while both run
    Move(TargetArgs),
    /// Lead a floating IP nowhere, and keep it
    Detach {
        /// Address, name or id
        #[arg(value_name = "IP", add = completion::names("floating_ips"))]
        ip: String,
    },
    /// Change a floating IP's name, description and labels
    Set(SetArgs),
    /// Give floating IPs back
    #[command(visible_aliases = ["delete", "rm"])]
    Release(DeleteArgs),
}

/// A new floating IP.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name [default: the address]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// This address [default: any free one]
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<IpAddr>,
    /// An IPv6 address
    #[arg(long, short = '6')]
    pub ipv6: bool,
    /// External network to take it from [default: the default one]
    #[arg(long, value_name = "NETWORK", add = completion::names("networks"))]
    pub network: Option<String>,
    /// Instance that it shall lead to
    #[arg(long, value_name = "INSTANCE", add = completion::names("instances"))]
    pub to: Option<String>,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// A floating IP and where it shall lead.
#[derive(Debug, Clone, clap::Args)]
pub struct TargetArgs {
    /// Address, name or id
    #[arg(value_name = "IP", add = completion::names("floating_ips"))]
    pub ip: String,
    /// Instance
    #[arg(value_name = "INSTANCE", required_unless_present = "port", add = completion::names("instances"))]
    pub instance: Option<String>,
    /// Port, where the instance has several
    #[arg(long, value_name = "PORT", add = completion::names("ports"))]
    pub port: Option<String>,
    /// Which of the port's addresses
    #[arg(long, value_name = "ADDRESS")]
    pub fixed: Option<IpAddr>,
}

/// Changes to a floating IP's record.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Address, name or id
    #[arg(value_name = "IP", add = completion::names("floating_ips"))]
    pub ip: String,
    #[command(flatten)]
    pub change: ChangeArgs,
}

impl Shown for FloatingIp {
    const COLUMNS: &'static [Column<Self>] = &[
        column("ADDRESS", |f| Cell::text(f.address)),
        column("NAME", |f| Cell::text(&f.head.name)),
        wide("ID", |f| Cell::text(f.head.id)),
        column("INSTANCE", |f| {
            Cell::maybe(f.target.as_ref().and_then(|t| t.instance.as_ref()).map(|i| &i.name))
        }),
        column("FIXED ADDRESS", |f| Cell::maybe(f.target.as_ref().map(|t| t.address))),
        column("NETWORK", |f| Cell::text(&f.network.name)),
        wide("PORT", |f| Cell::maybe(f.target.as_ref().map(|t| &t.port.name))),
        wide("ROUTER", |f| Cell::maybe(f.target.as_ref().map(|t| &t.router.name))),
        wide("PROJECT", |f| Cell::text(&f.head.project.name)),
        column("AGE", |f| Cell::Time(f.head.created_at)),
    ];

    fn name(&self) -> String {
        self.head.name.clone()
    }
}

/// The id behind an address, name or id: an address is no name once the floating IP was given another.
async fn id_of(session: &Session, reference: &str) -> Result<String> {
    let Ok(address) = reference.parse::<IpAddr>() else {
        return Ok(reference.to_string());
    };
    let all: Vec<FloatingIp> = session.client.list_all(&ListQuery::default()).await?;
    let found = all.iter().find(|ip| ip.address == address);
    Ok(found.map_or(reference.to_string(), |ip| ip.head.id.to_string()))
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, verb: Verb) -> Result {
    match verb {
        Verb::List(args) => noun::list::<FloatingIp>(session, &args.query()).await,
        Verb::Show { ip } => noun::show::<FloatingIp>(session, &id_of(session, &ip).await?).await,
        Verb::Create(args) => create(session, args).await,
        Verb::Attach(args) | Verb::Move(args) => lead(session, args).await,
        Verb::Detach { ip } => {
            let request = UpdateFloatingIp { target: Some(None), ..UpdateFloatingIp::default() };
            let changed = update(session, &ip, &request).await?;
            noun::tell(session, &changed, "leads nowhere; it is still yours")
        }
        Verb::Set(args) => {
            let request = UpdateFloatingIp {
                name: args.change.name.clone(),
                description: args.change.description.clone(),
                labels: args.change.labels(),
                target: None,
            };
            noun::refuse_empty(&request)?;
            let changed = update(session, &args.ip, &request).await?;
            noun::tell(session, &changed, "is changed")
        }
        Verb::Release(mut args) => {
            for name in &mut args.names {
                *name = id_of(session, name).await?;
            }
            noun::delete::<FloatingIp>(session, &args).await
        }
    }
}

async fn update(session: &Session, ip: &str, request: &UpdateFloatingIp) -> Result<FloatingIp> {
    let id = id_of(session, ip).await?;
    Ok(session.client.update::<FloatingIp>(&id, request, &WaitQuery::default()).await?)
}

async fn create(session: &Session, args: CreateArgs) -> Result {
    let target = args
        .to
        .clone()
        .map(|instance| TargetRequest { instance: Some(instance), ..TargetRequest::default() });
    let request = CreateFloatingIp {
        name: args.name.clone(),
        description: args.about.description.clone(),
        labels: args.about.labels(),
        network: args.network.clone(),
        address: args.address,
        family: args.ipv6.then_some(6),
        target,
    };
    let made = session.client.create::<FloatingIp>(&request, &WaitQuery::default()).await?;
    say_target(session, &made)?;
    if made.target.is_none() {
        session.next(format!("holm floating-ip attach {} INSTANCE", made.address));
    }
    Ok(())
}

async fn lead(session: &Session, args: TargetArgs) -> Result {
    let target = TargetRequest { instance: args.instance, port: args.port, address: args.fixed };
    let request = UpdateFloatingIp { target: Some(Some(target)), ..UpdateFloatingIp::default() };
    say_target(session, &update(session, &args.ip, &request).await?)
}

fn say_target(session: &Session, ip: &FloatingIp) -> Result {
    let place = ip.target.as_ref().map(|target| {
        let name = target.instance.as_ref().map_or(&target.port.name, |instance| &instance.name);
        format!("leads to {name} ({})", target.address)
    });
    session.say(format!("floating IP {} {}", ip.address, place.unwrap_or_else(|| "is yours".into())));
    session.printer.made(ip)
}
