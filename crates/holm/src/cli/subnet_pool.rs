//! `holm subnet-pool`: ranges that subnets are cut from.

use super::{
    completion,
    failure::Result,
    instance::yes_or_no,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
};
use api::v1::types::{
    list::WaitQuery,
    subnet_pool::{CreateSubnetPool, SubnetPool, UpdateSubnetPool},
};
use ipnet::IpNet;

/// Verbs of `holm subnet-pool`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List subnet pools
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a subnet pool
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("subnet_pools"))]
        name: String,
    },
    /// Make a subnet pool
    Create(CreateArgs),
    /// Change a subnet pool; its ranges only grow
    Set(SetArgs),
    /// Delete subnet pools that no subnet is cut from
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// Prefix lengths of a pool.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LengthArgs {
    /// Prefix length of a subnet that says nothing
    #[arg(long, value_name = "BITS")]
    pub default_prefix: Option<u8>,
    /// Shortest prefix (largest subnet)
    #[arg(long, value_name = "BITS")]
    pub min_prefix: Option<u8>,
    /// Longest prefix (smallest subnet)
    #[arg(long, value_name = "BITS")]
    pub max_prefix: Option<u8>,
    /// Most that each project may have of it: addresses of IPv4, /64 networks of IPv6
    #[arg(long, value_name = "COUNT")]
    pub quota: Option<u64>,
    /// Address scope
    #[arg(long, value_name = "SCOPE", add = completion::names("address_scopes"))]
    pub scope: Option<String>,
}

/// A new pool.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Ranges, like 10.64.0.0/12
    #[arg(value_name = "CIDR", required = true)]
    pub ranges: Vec<IpNet>,
    #[command(flatten)]
    pub length: LengthArgs,
    /// Let other projects use it (admin only)
    #[arg(long)]
    pub shared: bool,
    /// Use it where no pool is named (admin only)
    #[arg(long)]
    pub default: bool,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// Changes to a pool.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("subnet_pools"))]
    pub pool: String,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Range, with all others that it shall have (may be given several times)
    #[arg(long, value_name = "CIDR")]
    pub range: Vec<IpNet>,
    #[command(flatten)]
    pub length: LengthArgs,
    /// Use it where no pool is named (admin only): yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    pub default: Option<bool>,
}

impl Shown for SubnetPool {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |p| Cell::text(&p.head.name)),
        wide("ID", |p| Cell::text(p.head.id)),
        column("RANGES", |p| Cell::list(p.ranges.iter())),
        column("PREFIX", |p| {
            Cell::text(format!("/{} (/{}-/{})", p.default_prefix_len, p.min_prefix_len, p.max_prefix_len))
        }),
        column("SCOPE", |p| Cell::maybe(p.scope.as_ref().map(|s| &s.name))),
        column("SHARED", |p| Cell::flag(p.shared)),
        wide("DEFAULT", |p| Cell::flag(p.is_default)),
        wide("QUOTA", |p| Cell::maybe(p.quota)),
        wide("PROJECT", |p| Cell::text(&p.head.project.name)),
        column("AGE", |p| Cell::Time(p.head.created_at)),
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
        Verb::List(args) => noun::list::<SubnetPool>(session, &args.query()).await,
        Verb::Show { name } => noun::show::<SubnetPool>(session, &name).await,
        Verb::Create(args) => create(session, args).await,
        Verb::Set(args) => set(session, args).await,
        Verb::Delete(args) => noun::delete::<SubnetPool>(session, &args).await,
    }
}

async fn create(session: &Session, args: CreateArgs) -> Result {
    let request = CreateSubnetPool {
        name: args.name,
        description: args.about.description.clone(),
        labels: args.about.labels(),
        ranges: args.ranges,
        min_prefix_len: args.length.min_prefix,
        default_prefix_len: args.length.default_prefix,
        max_prefix_len: args.length.max_prefix,
        quota: args.length.quota,
        scope: args.length.scope,
        shared: args.shared,
        is_default: args.default,
    };
    let made = session.client.create::<SubnetPool>(&request, &WaitQuery::default()).await?;
    noun::tell(session, &made, "is made")?;
    session.next(format!("holm subnet create NAME --network NETWORK --from-pool {}", made.head.name));
    Ok(())
}

async fn set(session: &Session, args: SetArgs) -> Result {
    let request = UpdateSubnetPool {
        name: args.change.name.clone(),
        description: args.change.description.clone(),
        labels: args.change.labels(),
        ranges: (!args.range.is_empty()).then_some(args.range),
        default_prefix_len: args.length.default_prefix,
        min_prefix_len: args.length.min_prefix,
        max_prefix_len: args.length.max_prefix,
        quota: args.length.quota.map(Some),
        scope: args.length.scope.map(Some),
        shared: None,
        is_default: args.default,
    };
    noun::change::<SubnetPool>(session, &args.pool, &request).await
}
