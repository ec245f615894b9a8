//! `holm router`: what joins networks, and leads outside.

use super::{
    completion,
    failure::Result,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
    subnet::route,
};
use api::v1::types::{
    list::WaitQuery,
    router::{CreateRouter, GatewayRequest, Router, UpdateRouter},
    subnet::Route,
};

use std::net::IpAddr;

/// Verbs of `holm router`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List routers
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a router
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("routers"))]
        name: String,
    },
    /// Make a router
    Create(CreateArgs),
    /// Change a router
    Set(SetArgs),
    /// Join a subnet to a router
    AddSubnet(SubnetArgs),
    /// Join a port to a router, with its addresses instead of the gateway's
    AddPort(PortArgs),
    /// Take a subnet from a router
    RemoveSubnet(SubnetArgs),
    /// Set the way out, or close it with none
    SetGateway(GatewayArgs),
    /// Delete routers that nothing uses
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// A new router.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// External network that it leads to; default for the default one, none for no way out
    #[arg(long, value_name = "NETWORK|default|none", default_value = "default", add = completion::names("networks"))]
    pub gateway: String,
    /// Do not hide instances behind the router's outer address
    #[arg(long)]
    pub no_snat: bool,
    /// Subnet to join (may be given several times)
    #[arg(long, value_name = "SUBNET", add = completion::names("subnets"))]
    pub subnet: Vec<String>,
    /// Extra route: CIDR,NEXT-HOP (may be given several times)
    #[arg(long, value_name = "CIDR,HOP", value_parser = route)]
    pub route: Vec<Route>,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// Changes to a router.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("routers"))]
    pub router: String,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Extra routes, all of them: CIDR,NEXT-HOP (may be given several times)
    #[arg(long, value_name = "CIDR,HOP", value_parser = route)]
    pub route: Vec<Route>,
    /// Take all extra routes away
    #[arg(long, conflicts_with = "route")]
    pub no_routes: bool,
    /// A router that is down passes nothing: yes or no
    #[arg(long, value_name = "yes|no", value_parser = super::instance::yes_or_no)]
    pub up: Option<bool>,
}

/// A router and a subnet.
#[derive(Debug, Clone, clap::Args)]
pub struct SubnetArgs {
    /// Router
    #[arg(value_name = "ROUTER", add = completion::names("routers"))]
    pub router: String,
    /// Subnet
    #[arg(value_name = "SUBNET", add = completion::names("subnets"))]
    pub subnet: String,
}

/// A router and its way out.
#[derive(Debug, Clone, clap::Args)]
pub struct GatewayArgs {
    /// Router
    #[arg(value_name = "ROUTER", add = completion::names("routers"))]
    pub router: String,
    /// External network; default for the default one, none for no way out
    #[arg(value_name = "NETWORK|default|none", default_value = "default", add = completion::names("networks"))]
    pub network: String,
    /// Do not hide instances behind the router's outer address
    #[arg(long)]
    pub no_snat: bool,
    /// Outer address (may be given several times) [default: one of each family]
    #[arg(long, value_name = "ADDRESS")]
    pub address: Vec<IpAddr>,
}

/// A router and a port.
#[derive(Debug, Clone, clap::Args)]
pub struct PortArgs {
    /// Router
    #[arg(value_name = "ROUTER", add = completion::names("routers"))]
    pub router: String,
    /// Port that nothing uses
    #[arg(value_name = "PORT", add = completion::names("ports"))]
    pub port: String,
}

fn gateway(network: &str, no_snat: bool, addresses: &[IpAddr]) -> Option<GatewayRequest> {
    let named = (network != "default").then(|| network.to_string());
    (network != "none").then(|| GatewayRequest {
        network: named,
        snat: no_snat.then_some(false),
        addresses: addresses.to_vec(),
    })
}

impl Shown for Router {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |r| Cell::text(&r.head.name)),
        wide("ID", |r| Cell::text(r.head.id)),
        column("GATEWAY", |r| Cell::maybe(r.gateway.as_ref().map(|g| &g.network.name))),
        column("OUTER ADDRESS", |r| Cell::addresses(r.gateway.as_ref().map_or(&[], |g| &g.addresses))),
        column("SUBNETS", |r| Cell::list(r.interfaces.iter().map(|i| i.cidr))),
        wide("SNAT", |r| Cell::flag(r.gateway.as_ref().is_some_and(|g| g.snat))),
        wide("UP", |r| Cell::flag(r.admin_up)),
        wide("PROJECT", |r| Cell::text(&r.head.project.name)),
        column("AGE", |r| Cell::Time(r.head.created_at)),
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
    let client = &session.client;
    match verb {
        Verb::List(args) => noun::list::<Router>(session, &args.query()).await,
        Verb::Show { name } => noun::show::<Router>(session, &name).await,
        Verb::Create(args) => {
            let request = CreateRouter {
                name: args.name.clone(),
                description: args.about.description.clone(),
                labels: args.about.labels(),
                gateway: gateway(&args.gateway, args.no_snat, &[]),
                interfaces: args.subnet,
                routes: args.route,
                admin_up: None,
            };
            noun::make::<Router>(session, &request).await
        }
        Verb::Set(args) => {
            let request = UpdateRouter {
                name: args.change.name.clone(),
                description: args.change.description.clone(),
                labels: args.change.labels(),
                routes: (!args.route.is_empty() || args.no_routes).then_some(args.route),
                admin_up: args.up,
                ..UpdateRouter::default()
            };
            noun::change::<Router>(session, &args.router, &request).await
        }
        Verb::AddSubnet(args) => {
            let changed = client.add_interface(&args.router, &args.subnet).await?;
            noun::tell(session, &changed, &format!("joins subnet {}", args.subnet))
        }
        Verb::AddPort(args) => {
            let changed = client.add_interface_port(&args.router, &args.port).await?;
            noun::tell(session, &changed, &format!("joins port {}", args.port))
        }
        Verb::RemoveSubnet(args) => {
            let changed = client.remove_interface(&args.router, &args.subnet).await?;
            noun::tell(session, &changed, &format!("no longer joins subnet {}", args.subnet))
        }
        Verb::SetGateway(args) => {
            let request = UpdateRouter {
                gateway: Some(gateway(&args.network, args.no_snat, &args.address)),
                ..UpdateRouter::default()
            };
            let changed = client.update::<Router>(&args.router, &request, &WaitQuery::default()).await?;
            let what = changed
                .gateway
                .as_ref()
                .map_or("has no way out".to_string(), |g| format!("leads out to {}", g.network.name));
            noun::tell(session, &changed, &what)
        }
        Verb::Delete(args) => noun::delete::<Router>(session, &args).await,
    }
}
