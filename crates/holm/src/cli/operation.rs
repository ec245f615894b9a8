//! `holm operation`: who asked for what, and how it ended.

use super::{
    failure::Result,
    noun::{self, ListArgs},
    output::{Cell, Column, Shown, column, wide},
    session::Session,
};
use api::v1::types::operation::Operation;

/// Verbs of `holm operation`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List what was asked for
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show an operation
    Show {
        /// Id or unique beginning of it
        #[arg(value_name = "ID")]
        id: String,
    },
}

impl Shown for Operation {
    const COLUMNS: &'static [Column<Self>] = &[
        column("STARTED", |o| Cell::Time(o.started_at)),
        column("ACTION", |o| Cell::text(&o.action)),
        column("NOUN", |o| Cell::text(&o.noun)),
        column("NAME", |o| Cell::text(&o.name)),
        column("ACTOR", |o| Cell::text(&o.actor)),
        column("RESULT", |o| match (&o.fault, o.ended_at) {
            (Some(fault), _) => Cell::text(&fault.message),
            (None, Some(_)) => Cell::Phase("ok"),
            (None, None) => Cell::Phase("going on"),
        }),
        wide("ID", |o| Cell::text(o.id)),
        wide("SUBJECT", |o| Cell::text(&o.subject)),
        wide("REQUEST", |o| Cell::text(&o.request_id)),
        wide("PROJECT", |o| Cell::text(&o.project.name)),
    ];

    fn name(&self) -> String {
        self.id.to_string()
    }
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, verb: Verb) -> Result {
    match verb {
        Verb::List(args) => noun::list::<Operation>(session, &args.query()).await,
        Verb::Show { id } => noun::show::<Operation>(session, &id).await,
    }
}
