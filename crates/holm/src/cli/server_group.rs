//! `holm server-group`: instances that are to be kept on one host, or on different ones.

use super::{
    completion,
    failure::Result,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
};
use api::v1::types::server_group::{CreateServerGroup, ServerGroup, UpdateServerGroup};
use model::server_group::Policy;

/// Verbs of `holm server-group`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List server groups
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a server group
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("server_groups"))]
        name: String,
    },
    /// Make a server group
    Create(CreateArgs),
    /// Change a server group
    Set(SetArgs),
    /// Delete server groups; their instances stay where they are
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// A new group.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// How its instances are placed: affinity, anti-affinity, soft-affinity, soft-anti-affinity
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    pub policy: Policy,
    /// Most instances on one host (anti-affinity); 1 unless said
    #[arg(long, value_name = "COUNT")]
    pub per_host_max: Option<u32>,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// Changes to a group.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("server_groups"))]
    pub group: String,
    #[command(flatten)]
    pub change: ChangeArgs,
}

fn policy(text: &str) -> std::result::Result<Policy, String> {
    let found = Policy::ALL.into_iter().find(|policy| policy.as_str() == text);
    found.ok_or_else(|| format!("write {}", Policy::ALL.map(Policy::as_str).join(", ")))
}

impl Shown for ServerGroup {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |g| Cell::text(&g.head.name)),
        wide("ID", |g| Cell::text(g.head.id)),
        column("POLICY", |g| Cell::text(g.policy.as_str())),
        column("INSTANCES", |g| {
            let names: Vec<&str> = g.members.iter().map(|member| member.name.as_str()).collect();
            Cell::text(names.join(", "))
        }),
        wide("PROJECT", |g| Cell::text(&g.head.project.name)),
        column("AGE", |g| Cell::Time(g.head.created_at)),
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
        Verb::List(args) => noun::list::<ServerGroup>(session, &args.query()).await,
        Verb::Show { name } => noun::show::<ServerGroup>(session, &name).await,
        Verb::Create(args) => {
            let request = CreateServerGroup {
                name: args.name.clone(),
                description: args.about.description.clone(),
                labels: args.about.labels(),
                policy: args.policy,
                per_host_max: args.per_host_max,
            };
            noun::make::<ServerGroup>(session, &request).await
        }
        Verb::Set(args) => {
            let request = UpdateServerGroup {
                name: args.change.name.clone(),
                description: args.change.description.clone(),
                labels: args.change.labels(),
            };
            noun::change::<ServerGroup>(session, &args.group, &request).await
        }
        Verb::Delete(args) => noun::delete::<ServerGroup>(session, &args).await,
    }
}
