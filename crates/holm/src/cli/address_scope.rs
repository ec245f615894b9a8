//! `holm address-scope`: spaces in which addresses are unique.

use super::{
    completion,
    failure::Result,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
};
use api::v1::types::subnet_pool::{AddressScope, CreateAddressScope, UpdateAddressScope};

/// Verbs of `holm address-scope`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List address scopes
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show an address scope
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("address_scopes"))]
        name: String,
    },
    /// Make an address scope
    Create(CreateArgs),
    /// Change an address scope
    Set(SetArgs),
    /// Delete address scopes that no subnet pool is in
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// A new scope.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Address family: 4 or 6
    #[arg(long, value_name = "4|6", default_value = "4")]
    pub family: u8,
    /// Let other projects use it (admin only)
    #[arg(long)]
    pub shared: bool,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// Changes to a scope.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id
    #[arg(value_name = "NAME", add = completion::names("address_scopes"))]
    pub scope: String,
    #[command(flatten)]
    pub change: ChangeArgs,
}

impl Shown for AddressScope {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |s| Cell::text(&s.head.name)),
        wide("ID", |s| Cell::text(s.head.id)),
        column("FAMILY", |s| Cell::text(s.family)),
        column("SHARED", |s| Cell::flag(s.shared)),
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
        Verb::List(args) => noun::list::<AddressScope>(session, &args.query()).await,
        Verb::Show { name } => noun::show::<AddressScope>(session, &name).await,
        Verb::Create(args) => {
            let request = CreateAddressScope {
                name: args.name.clone(),
                description: args.about.description.clone(),
                labels: args.about.labels(),
                family: args.family,
                shared: args.shared,
            };
            noun::make::<AddressScope>(session, &request).await
        }
        Verb::Set(args) => {
            let request = UpdateAddressScope {
                name: args.change.name.clone(),
                description: args.change.description.clone(),
                labels: args.change.labels(),
            };
            noun::change::<AddressScope>(session, &args.scope, &request).await
        }
        Verb::Delete(args) => noun::delete::<AddressScope>(session, &args).await,
    }
}
