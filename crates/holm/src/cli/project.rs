//! `holm project`: tenants.

use super::{
    completion,
    failure::Result,
    noun::{self, AboutArgs, ChangeArgs, DeleteArgs, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
};
use api::v1::types::{
    list::WaitQuery,
    project::{CreateProject, Project, UpdateProject},
};

/// Verbs of `holm project`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List projects
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show a project
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("projects"))]
        name: String,
    },
    /// Make a project; it has a network, a router and a security group at once
    Create(CreateArgs),
    /// Change a project
    Set(SetArgs),
    /// Delete projects that are empty
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

/// A new project.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    pub about: AboutArgs,
}

/// Changes to a project.
#[derive(Debug, Clone, clap::Args)]
pub struct SetArgs {
    /// Name or id (--project is the one to work in, as everywhere)
    #[arg(value_name = "NAME", add = completion::names("projects"))]
    pub reference: String,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// A disabled project keeps what it has and may start nothing: yes or no
    #[arg(long, value_name = "yes|no", value_parser = super::instance::yes_or_no)]
    pub enabled: Option<bool>,
}

impl Shown for Project {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |p| Cell::text(&p.head.name)),
        column("ID", |p| Cell::text(p.head.id)),
        column("ENABLED", |p| Cell::flag(p.enabled)),
        wide("DESCRIPTION", |p| Cell::text(&p.head.description)),
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
        Verb::List(args) => noun::list::<Project>(session, &args.query()).await,
        Verb::Show { name } => noun::show::<Project>(session, &name).await,
        Verb::Create(args) => {
            let request = CreateProject {
                name: args.name.clone(),
                description: args.about.description.clone(),
                labels: args.about.labels(),
            };
            let made = session.client.create::<Project>(&request, &WaitQuery::default()).await?;
            noun::tell(
                session,
                &made,
                "is made, with a network, a router and a security group, all named default",
            )?;
            session.next(format!("export HOLM_PROJECT={}", made.head.name));
            Ok(())
        }
        Verb::Set(args) => {
            let request = UpdateProject {
                name: args.change.name.clone(),
                description: args.change.description.clone(),
                labels: args.change.labels(),
                enabled: args.enabled,
            };
            noun::change::<Project>(session, &args.reference, &request).await
        }
        Verb::Delete(args) => noun::delete::<Project>(session, &args).await,
    }
}
