//! What bodies and queries ask for, read alike for volumes and snapshots.

use crate::openstack::{Fault, Result, Session, query::Query};
use axum::http::StatusCode;
use control::{Control, resolve::Noun};
use model::{
    error::Code,
    id::ProjectId,
    meta::{Labels, Meta},
    name::Name,
};
use serde_json::Value;
use std::{fmt::Display, sync::Arc};
use store::Stored;

/// Records that a list is about: those of the caller's project, or of all with `all_tenants` (admins).
///
/// # Errors
/// 400 for a flag that cannot be read.
pub fn listed<N: Noun>(control: &Control, session: &Session, query: &Query) -> Result<Vec<Arc<Stored<N>>>> {
    let mut found = if session.is_admin() && query.flag("all_tenants")? == Some(true) {
        control.list_everywhere::<N>(&session.caller)?
    } else {
        control.list::<N>(&session.caller)
    };
    if let Some(text) = query.get("project_id").filter(|_| session.is_admin()) {
        let project = text.parse::<ProjectId>().ok();
        found.retain(|stored| Some(stored.record.meta().project) == project);
    }
    Ok(found)
}

/// The object that a body has under this word.
///
/// # Errors
/// 400 when it is missing.
pub fn object(input: &Value, word: &str) -> Result<Value> {
    let found = field(input, word).filter(|value| value.is_object()).cloned();
    let missing = || Fault::invalid(format!("Invalid input for field/attribute {word}: it is missing."));
    found.ok_or_else(missing)
}

/// The value of a key; null is as good as none.
pub fn field<'a>(input: &'a Value, key: &str) -> Option<&'a Value> {
    input.get(key).filter(|value| !value.is_null())
}

/// A text of a body.
///
/// # Errors
/// 400 for what is none, and for one that is longer than names may be.
pub fn text<'a>(input: &'a Value, key: &str) -> Result<Option<&'a str>> {
    const CHARS_MAX: usize = 255;
    let Some(value) = field(input, key) else { return Ok(None) };
    match value.as_str() {
        Some(text) if text.chars().count() <= CHARS_MAX => Ok(Some(text)),
        _ => Err(Fault::invalid(format!("Invalid input for field/attribute {key}."))),
    }
}

/// Metadata of a body.
///
/// # Errors
/// 400 for what is no dictionary of texts.
pub fn labels(input: &Value) -> Result<Labels> {
    let Some(value) = field(input, "metadata") else { return Ok(Labels::new()) };
    let wrong =
        || Fault::invalid("Invalid input for field/attribute metadata: a dictionary of strings is wanted.");
    let map = value.as_object().ok_or_else(wrong)?;
    map.iter().map(|(key, value)| Ok((key.clone(), plain(value).ok_or_else(wrong)?))).collect()
}

/// A value of metadata: clients send numbers and truth values, too.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A size in GiB: a number or the text of one.
///
/// # Errors
/// 400 for anything but a whole number above zero.
pub fn size(input: &Value, key: &str) -> Result<Option<u64>> {
    let Some(value) = field(input, key) else { return Ok(None) };
    let read = value.as_u64().or_else(|| value.as_str()?.parse().ok()).filter(|size| *size > 0);
    let wrong =
        || Fault::invalid(format!("Invalid input for field/attribute {key}: {value} is no size in GiB."));
    read.map(Some).ok_or_else(wrong)
}

/// What is said of a volume or snapshot, and may be changed.
pub struct Words {
    name: Option<Name>,
    description: Option<String>,
    labels: Option<Labels>,
}

impl Words {
    /// Reads what a change asks for; clients of old have other words. An empty name is made up of `noun` and `id` anew.
    ///
    /// # Errors
    /// 400 for what cannot be a name, a text or metadata.
    pub fn read(input: &Value, noun: &str, id: impl Display) -> Result<Self> {
        let named = text(input, "name")?.or(text(input, "display_name")?);
        let about = text(input, "description")?.or(text(input, "display_description")?);
        Ok(Self {
            name: named.map(|name| new_name(name, noun, &id.to_string())).transpose()?,
            description: about.map(str::to_string),
            labels: field(input, "metadata").map(|_| labels(input)).transpose()?,
        })
    }

    /// Says it.
    pub fn put<I>(&self, meta: &mut Meta<I>) {
        let Self { name, description, labels } = self;
        name.iter().for_each(|name| meta.name.clone_from(name));
        description.iter().for_each(|text| meta.description.clone_from(text));
        labels.iter().for_each(|labels| meta.labels.clone_from(labels));
    }
}

/// Cinder says 400 where a thing's state does not allow what is asked.
pub fn refused(error: control::Error) -> Fault {
    let is_state = matches!(error.code, Code::Conflict | Code::InUse | Code::TooLarge);
    let fault = Fault::from(error);
    if is_state { fault.with_status(StatusCode::BAD_REQUEST) } else { fault }
}

fn new_name(text: &str, word: &str, id: &str) -> Result<Name> {
    let text = match text.trim() {
        "" => format!("{word}-{}", id.get(..8).unwrap_or_default()),
        text => text.to_string(),
    };
    text.parse().map_err(|e| Fault::invalid(format!("Invalid input for field/attribute name. {e}.")))
}
