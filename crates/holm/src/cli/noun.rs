//! What every noun has: list, show, make, change, delete, and the options that go with them.

use super::{
    failure::{Failure, Result},
    output::Shown,
    session::Session,
    wait::{self, WaitArgs},
    wording::counted,
};
use api::{
    client::{Create, Noun, Update},
    v1::types::{
        list::{ListQuery, WaitQuery},
        patch::LabelChanges,
    },
};
use model::{error::Code, meta::Labels};

/// Options of every list.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ListArgs {
    /// Only those with this label: key or key=value
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,
    /// Of all projects (admin only)
    #[arg(long, short = 'A')]
    pub all_projects: bool,
}

impl ListArgs {
    /// As the server is asked.
    pub fn query(&self) -> ListQuery {
        ListQuery {
            label: self.label.clone(),
            project: self.all_projects.then(|| "*".to_string()),
            ..ListQuery::default()
        }
    }
}

/// Which things to delete.
#[derive(Debug, Clone, clap::Args)]
pub struct DeleteArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Labels and description of something new.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AboutArgs {
    /// Free text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub description: String,
    /// Label to set (may be given several times)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub label: Vec<(String, String)>,
}

impl AboutArgs {
    /// The labels.
    pub fn labels(&self) -> Labels {
        self.label.iter().cloned().collect()
    }
}

/// Changes of name, labels and description.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ChangeArgs {
    /// New name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Label to set (may be given several times)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub label: Vec<(String, String)>,
    /// Label to remove (may be given several times)
    #[arg(long, value_name = "KEY")]
    pub unlabel: Vec<String>,
}

impl ChangeArgs {
    /// The labels to set and to remove.
    pub fn labels(&self) -> LabelChanges {
        let set = self.label.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        set.chain(self.unlabel.iter().map(|key| (key.clone(), None))).collect()
    }
}

/// Reads `key=value`.
///
/// # Errors
/// There is no `=`, or no key.
pub fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err("write KEY=VALUE".to_string()),
    }
}

/// Prints a list.
///
/// # Errors
/// As the server refuses.
pub async fn list<N: Noun + Shown>(session: &Session, query: &ListQuery) -> Result {
    let items: Vec<N> = session.client.list_all(query).await?;
    if items.is_empty() && session.printer.format.is_none() && session.stdout_is_terminal {
        session.say(format!("no {}s here yet", N::NAME));
        return Ok(());
    }
    session.printer.list(&items)
}

/// Prints one.
///
/// # Errors
/// As the server refuses.
pub async fn show<N: Noun + Shown>(session: &Session, reference: &str) -> Result {
    session.printer.one(&session.client.get::<N>(reference).await?)
}

/// Tells that something was made, and prints it if a form was asked for.
///
/// # Errors
/// Standard output is gone.
pub fn tell<N: Noun + Shown>(session: &Session, item: &N, what: &str) -> Result {
    session.say(format!("{} {} {what}", N::NAME, item.name()));
    session.printer.made(item)
}

/// Makes one, and tells so.
///
/// # Errors
/// As the server refuses.
pub async fn make<N: Create + Shown>(session: &Session, request: &N::Request) -> Result {
    let made = session.client.create::<N>(request, &WaitQuery::default()).await?;
    tell(session, &made, "is made")
}

/// Changes one, and tells so.
///
/// # Errors
/// `request` changes nothing, or as the server refuses.
pub async fn change<N: Update + Shown>(session: &Session, reference: &str, request: &N::Request) -> Result {
    refuse_empty(request)?;
    let changed = session.client.update::<N>(reference, request, &WaitQuery::default()).await?;
    tell(session, &changed, "is changed")
}

/// Deletes things, asking first if there are several.
///
/// # Errors
/// The first refusal; the others are deleted all the same.
pub async fn delete<N: Noun + Shown>(session: &Session, args: &DeleteArgs) -> Result {
    if args.names.len() > 1 {
        let question = format!("Delete {}: {}?", counted(args.names.len(), N::NAME), args.names.join(", "));
        session.confirm(args.yes, &question)?;
    }
    delete_all::<N>(session, &args.names, &args.wait).await
}

/// Deletes things without asking: all are told to go first, then waited for.
///
/// # Errors
/// The first refusal; the others are deleted all the same.
pub async fn delete_all<N: Noun + Shown>(session: &Session, names: &[String], wait: &WaitArgs) -> Result {
    let mut worst: Option<Failure> = None;
    let mut going = vec![];
    if let ([name], false) = (names, wait.no_wait) {
        wait::gone::<N>(session, name, name, wait).await?;
        session.say(format!("{} {name} is gone", N::NAME));
        return Ok(());
    }
    for name in names {
        match session.client.delete::<N>(name, &WaitQuery::default()).await {
            Ok(None) => session.say(format!("{} {name} is gone", N::NAME)),
            Ok(Some(_)) if wait.no_wait => session.say(format!("{} {name} is going", N::NAME)),
            Ok(Some(thing)) => going.push((thing_id(&thing), name)),
            Err(error) => keep_worst(session, &mut worst, error.into()),
        }
    }
    for (id, name) in going {
        match wait::gone::<N>(session, &id, name, wait).await {
            Err(failure) if failure.exit != Code::NotFound.exit_code() => {
                keep_worst(session, &mut worst, failure)
            }
            _ => session.say(format!("{} {name} is gone", N::NAME)),
        }
    }
    worst.map_or(Ok(()), Err)
}

/// The first failure is returned, and told at the end; further ones are told now.
fn keep_worst(session: &Session, worst: &mut Option<Failure>, failure: Failure) {
    if let Some(earlier) = worst.replace(failure) {
        earlier.tell(session.colours);
    }
}

/// Id of a thing, from its own fields.
pub fn thing_id(thing: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(thing).unwrap_or_default();
    value["id"].as_str().unwrap_or_default().to_string()
}

/// Does something to each of several things; all are tried.
///
/// # Errors
/// The last refusal, with the earlier ones told.
pub async fn for_each(
    session: &Session,
    names: &[String],
    mut work: impl AsyncFnMut(String) -> Result,
) -> Result {
    let mut worst = None;
    for name in names {
        if let Err(failure) = work(name.clone()).await {
            keep_worst(session, &mut worst, failure);
        }
    }
    worst.map_or(Ok(()), Err)
}

/// Refuses an update that changes nothing.
///
/// # Errors
/// When `request` has no field set.
pub fn refuse_empty(request: &impl serde::Serialize) -> Result {
    let value = serde_json::to_value(request).unwrap_or_default();
    if value.as_object().is_some_and(serde_json::Map::is_empty) {
        return Err(
            Failure::new(Code::Invalid, "nothing to change was named").hint("see --help for what can be set")
        );
    }
    Ok(())
}
