//! Every call that changes something, or tried to, leaves one operation behind.

use crate::{app::App, error::Result};
use control::{Caller, resolve::Noun};
use model::error::Fault;
use std::fmt::Display;

/// What was done, to what.
#[derive(Debug, Clone, Copy)]
pub struct Deed<'a> {
    /// The verb, like `create`.
    pub action: &'a str,
    /// The noun, like `instance`.
    pub noun: &'a str,
    /// As the caller named it.
    pub reference: &'a str,
}

/// Notes a deed on a record, and passes its outcome on.
///
/// # Errors
/// The deed's own.
pub async fn note<R: Noun>(
    app: &App,
    caller: &Caller,
    deed: Deed<'_>,
    outcome: control::Result<R>,
) -> Result<R> {
    note_as(app, caller, deed, outcome, |record| {
        let meta = record.meta();
        (meta.id.to_string(), meta.name.to_string())
    })
    .await
}

/// Notes a deed whose outcome is no record; `subject` tells id and name.
///
/// # Errors
/// The deed's own.
pub async fn note_as<T>(
    app: &App,
    caller: &Caller,
    deed: Deed<'_>,
    outcome: control::Result<T>,
    subject: impl Fn(&T) -> (String, String),
) -> Result<T> {
    let control = app.control();
    match outcome {
        Ok(value) => {
            let (id, name) = subject(&value);
            control.note_operation(caller, deed.action, deed.noun, &id, &name, None).await;
            tracing::info!(
                actor = caller.actor,
                action = deed.action,
                noun = deed.noun,
                id,
                name,
                request_id = caller.request_id,
                "done"
            );
            Ok(value)
        }
        Err(error) => {
            let fault = Fault {
                code: error.code,
                message: error.message.clone(),
                hint: error.hint.clone(),
                since: control.now(),
            };
            control.note_operation(caller, deed.action, deed.noun, "", deed.reference, Some(fault)).await;
            Err(error.into())
        }
    }
}

/// A deed.
pub fn deed<'a>(action: &'a str, noun: &'a str, reference: &'a str) -> Deed<'a> {
    Deed { action, noun, reference }
}

/// Id and name of something already known.
pub fn known<T>(id: impl Display, name: impl Display) -> impl Fn(&T) -> (String, String) {
    let (id, name) = (id.to_string(), name.to_string());
    move |_| (id.clone(), name.clone())
}
