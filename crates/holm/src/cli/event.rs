//! `holm events`: what happened, and with `-f` what happens.

use super::{
    failure::{Failure, Result},
    output::{self, Cell, Column, Format, Shown, column, wide},
    session::Session,
};
use api::{
    client::Noun,
    v1::types::{
        event::{Change, Event, EventQuery},
        list::ListQuery,
    },
};
use model::error::Code;

/// Which events.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct EventsArgs {
    /// Go on as things happen
    #[arg(long, short)]
    pub follow: bool,
    /// Only of this noun, like instance or image
    #[arg(long, value_name = "NOUN")]
    pub noun: Option<String>,
    /// Only of the thing with this id
    #[arg(long, value_name = "ID")]
    pub subject: Option<String>,
    /// Of all projects (admin only)
    #[arg(long, short = 'A')]
    pub all_projects: bool,
    /// With -f: tell every change of a record too, as JSON lines
    #[arg(long, requires = "follow")]
    pub changes: bool,
}

/// Verbs of `holm event`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List what happened
    #[command(visible_alias = "ls")]
    List(EventsArgs),
    /// Show an event
    Show {
        /// Id or unique beginning of it
        #[arg(value_name = "ID")]
        id: String,
    },
}

impl Shown for Event {
    const COLUMNS: &'static [Column<Self>] = &[
        column("AGE", |e| Cell::Time(e.at)),
        column("NOUN", |e| Cell::text(&e.noun)),
        column("REASON", |e| Cell::text(&e.reason)),
        column("MESSAGE", |e| Cell::text(&e.message)),
        wide("WARNING", |e| Cell::flag(e.warning)),
        wide("SUBJECT", |e| Cell::text(&e.subject)),
        wide("ID", |e| Cell::text(e.id)),
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
        Verb::List(args) => events(session, &args).await,
        Verb::Show { id } => super::noun::show::<Event>(session, &id).await,
    }
}

/// `holm events`.
///
/// # Errors
/// As the server refuses.
pub async fn events(session: &Session, args: &EventsArgs) -> Result {
    let query = EventQuery {
        follow: None,
        noun: args.noun.clone(),
        subject: args.subject.clone(),
        project: args.all_projects.then(|| "*".to_string()),
        ..EventQuery::default()
    };
    if args.follow {
        return tokio::select! {
            done = follow(session, &query, args.changes) => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::silent(130)),
        };
    }
    let list = ListQuery { project: query.project.clone(), ..ListQuery::default() };
    let mut items: Vec<Event> = session.client.list_all(&list).await?;
    items.retain(|event| {
        args.noun.as_deref().is_none_or(|noun| event.noun == noun)
            && args.subject.as_deref().is_none_or(|subject| event.subject.starts_with(subject))
    });
    items.sort_by_key(|event| event.at);
    if items.is_empty() && session.printer.format.is_none() && session.stdout_is_terminal {
        session.say(format!("no {}s yet", Event::NAME));
        return Ok(());
    }
    session.printer.list(&items)
}

async fn follow(session: &Session, query: &EventQuery, changes: bool) -> Result {
    let mut stream = session.client.follow_events(query).await?;
    while let Some(change) = stream.next().await? {
        match (&change, session.printer.format) {
            (Change::Alive, _) => {}
            (Change::Lost, _) => session.warn("some events were missed: this reader was too slow"),
            (change, _) if changes => print_json(change)?,
            (Change::Event(event), Some(Format::Json)) => print_json(event)?,
            (Change::Event(event), _) => output::write(line(event, session.printer.colours).as_bytes())?,
            (Change::Changed { .. }, _) => {}
        }
    }
    Err(Failure::new(Code::Unavailable, "the daemon ended the stream of events")
        .hint("`holm events -f` again follows the next one"))
}

fn print_json(value: &impl serde::Serialize) -> Result {
    let text = serde_json::to_string(value).map_err(Failure::usage)?;
    output::write((text + "\n").as_bytes())
}

fn line(event: &Event, colours: bool) -> String {
    let (yellow, plain) = if colours && event.warning { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
    let time = event.at.strftime("%H:%M:%S");
    format!("{time}  {yellow}{:<14} {:<18} {}{plain}\n", event.noun, event.reason, event.message)
}
