//! Name, description and labels: changed alike for every noun.

use super::types::patch::{LabelChanges, apply_labels};
use crate::{
    app::{App, Asker},
    error::Result,
    v1::{
        audit::{deed, known, note_as},
        served::{Served, check_wait, farewell},
        types::list::WaitQuery,
    },
};
use axum::response::Response;
use control::{Control, Error};
use model::meta::{Labels, Meta};

/// Applies the changes that every noun has.
///
/// # Errors
/// `invalid` for the name.
pub fn describe<Id>(
    meta: &mut Meta<Id>,
    name: Option<&String>,
    description: Option<&String>,
    labels: &LabelChanges,
) -> control::Result<()> {
    if let Some(name) = name {
        meta.name = name.parse().map_err(|e| Error::invalid("name", e))?;
    }
    if let Some(description) = description {
        meta.description.clone_from(description);
    }
    apply_labels(&mut meta.labels, labels);
    Ok(())
}

/// Gives a record just made its description and labels, for nouns whose making does not take them.
///
/// # Errors
/// `too_large` for labels; the record stays.
pub async fn dress<R: Served + PartialEq>(
    control: &Control,
    caller: &control::Caller,
    record: R,
    description: &str,
    labels: &Labels,
) -> control::Result<R> {
    if description.is_empty() && labels.is_empty() {
        return Ok(record);
    }
    let id = record.meta().id.to_string();
    control
        .change::<R>(caller, &id, |next| {
            next.meta_mut().description = description.to_string();
            next.meta_mut().labels.clone_from(labels);
            Ok(())
        })
        .await
}

/// Finds a record, removes it by `act` (given its id), notes that and answers.
///
/// # Errors
/// `not_found`, and what `act` refuses.
pub async fn remove<R: Served>(
    app: &App,
    Asker(caller): &Asker,
    reference: &str,
    wait: &WaitQuery,
    act: impl AsyncFnOnce(&str) -> control::Result<()>,
) -> Result<Response> {
    check_wait::<R>(wait)?;
    let found = R::find(app.control(), caller, reference)?;
    let meta = found.record.meta();
    let outcome = act(&meta.id.to_string()).await;
    note_as(app, caller, deed("delete", R::TABLE, reference), outcome, known(meta.id, &meta.name)).await?;
    farewell::<R>(app, caller, meta.id, wait).await
}
