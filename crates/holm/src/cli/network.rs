//! `holm network`: private, host-only and external networks.

use super::{
    completion,
    failure::Result,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, page::Page, wide},
    session::Session,
};
use api::v1::types::{
    list::WaitQuery,
    network::{CreateNetwork, External, Network, NetworkKind, UpdateNetwork},
};
use jiff::Timestamp;

/// Verbs of `holm network`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List networks
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a network
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("networks"))]
        name: String,
    },
    /// Make a network, and with --subnet its first range of addresses
    Create(CreateArgs),
    /// Change a network
    Set(SetArgs),
    /// Delete networks that nothing uses
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// A new network.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// private (reached through routers), host-only, or external (admin only)
    #[arg(long, value_name = "KIND", default_value = "private", value_parser = kind)]
    pub kind: NetworkKind,
    /// Make a subnet with this range too, like 10.1.0.0/24 (may be given several times)
    #[arg(long, value_name = "CIDR")]
    pub subnet: Vec<ipnet::IpNet>,
    /// Largest packet in bytes
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Other projects may use it (admin only)
    #[arg(long)]
    pub shared: bool,
    /// New ports do not filter
    #[arg(long)]
    pub no_port_security: bool,
    /// Domain under which instances are named
    #[arg(long, value_name = "DOMAIN", default_value = "", hide_default_value = true)]
    pub dns_domain: String,
    /// Interface of the host on whose link the addresses are answered (external)
    #[arg(long, value_name = "INTERFACE")]
    pub interface: Option<String>,
    /// Hide the pool behind the host's own address (external)
    #[arg(long)]
    pub masquerade: bool,
    /// The external network of new projects (external)
    #[arg(long)]
    pub default: bool,
    #[command(flatten)]
    pub about: AboutArgs,
}

fn kind(text: &str) -> std::result::Result<NetworkKind, String> {
    match text {
        "private" => Ok(NetworkKind::Private),
        "host-only" | "host_only" => Ok(NetworkKind::HostOnly),
        "external" => Ok(NetworkKind::External),
        _ => Err("write private, host-only or external".into()),
    }
}

/// Changes to a network.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("networks"))]
    pub network: String,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Largest packet in bytes
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Other projects may use it: yes or no
    #[arg(long, value_name = "yes|no", value_parser = super::instance::yes_or_no)]
    pub shared: Option<bool>,
    /// New ports filter: yes or no
    #[arg(long, value_name = "yes|no", value_parser = super::instance::yes_or_no)]
    pub port_security: Option<bool>,
    /// Domain under which instances are named
    #[arg(long, value_name = "DOMAIN")]
    pub dns_domain: Option<String>,
    /// A network that is down passes nothing: yes or no
    #[arg(long, value_name = "yes|no", value_parser = super::instance::yes_or_no)]
    pub up: Option<bool>,
}

impl Shown for Network {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |n| Cell::text(&n.head.name)),
        wide("ID", |n| Cell::text(n.head.id)),
        column("KIND", |n| Cell::text(n.kind.as_str())),
        column("SUBNETS", |n| Cell::list(n.subnets.iter().map(|s| s.cidr))),
        wide("MTU", |n| Cell::text(n.mtu)),
        wide("SHARED", |n| Cell::flag(n.shared)),
        wide("UP", |n| Cell::flag(n.admin_up)),
        wide("PROJECT", |n| Cell::text(&n.head.project.name)),
        column("AGE", |n| Cell::Time(n.head.created_at)),
    ];

    fn name(&self) -> String {
        self.head.name.clone()
    }

    fn page(&self, now: Timestamp) -> Page {
        let mut page = Page::of(self, now);
        page.line("Seen from outside", self.external.as_ref().map_or(String::new(), seen_from_outside));
        page
    }
}

/// Under which address the world meets those who leave by an external network.
fn seen_from_outside(external: &External) -> String {
    match &external.interface {
        _ if external.masquerade => {
            "under this host's own address: routers and floating IPs of this network \
            are known to this host and its neighbours alone"
                .into()
        }
        Some(interface) => {
            format!("under the addresses of routers and floating IPs, on the link of {interface}")
        }
        None => "under the addresses of routers and floating IPs, by whoever routes them to this host".into(),
    }
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, verb: Verb) -> Result {
    match verb {
        Verb::List(args) => noun::list::<Network>(session, &args.query()).await,
        Verb::Show { name } => noun::show::<Network>(session, &name).await,
        Verb::Create(args) => create(session, &args).await,
        Verb::Set(args) => set(session, &args).await,
        Verb::Delete(args) => noun::delete::<Network>(session, &args).await,
    }
}

async fn create(session: &Session, args: &CreateArgs) -> Result {
    let external = (args.kind == NetworkKind::External).then(|| External {
        interface: args.interface.clone(),
        masquerade: args.masquerade,
        is_default: args.default,
    });
    let request = CreateNetwork {
        name: args.name.clone(),
        description: args.about.description.clone(),
        labels: args.about.labels(),
        kind: args.kind,
        mtu: args.mtu,
        shared: args.shared,
        port_security: args.no_port_security.then_some(false),
        dns_domain: args.dns_domain.clone(),
        admin_up: None,
        external,
    };
    let made = session.client.create::<Network>(&request, &WaitQuery::default()).await?;
    let id = made.head.id.to_string();
    for (number, cidr) in args.subnet.iter().enumerate() {
        let name = if number == 0 { args.name.clone() } else { format!("{}-{}", args.name, number + 1) };
        if let Err(failure) = super::subnet::make(session, &name, &id, *cidr).await {
            // All or nothing: a network without its range is not what was asked for.
            let _ = session.client.delete::<Network>(&id, &WaitQuery::default()).await;
            return Err(failure);
        }
    }
    let made: Network = session.client.get(&id).await?;
    noun::tell(session, &made, "is made")?;
    if made.subnets.is_empty() {
        session.next(format!("holm subnet create {0} --network {0} 10.1.0.0/24", made.head.name));
    } else {
        session.next(format!("holm run --network {} IMAGE", made.head.name));
    }
    Ok(())
}

async fn set(session: &Session, args: &SetArgs) -> Result {
    let request = UpdateNetwork {
        name: args.change.name.clone(),
        description: args.change.description.clone(),
        labels: args.change.labels(),
        mtu: args.mtu,
        shared: args.shared,
        port_security: args.port_security,
        dns_domain: args.dns_domain.clone(),
        admin_up: args.up,
    };
    noun::change::<Network>(session, &args.network, &request).await
}
