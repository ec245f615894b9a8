//! Metadata of volumes and snapshots: holm's labels.

use super::{asked::labels, find};
use crate::openstack::{Door, Fault, Result, Session, body::Body};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use control::{change::check_labels, resolve::Noun};
use model::{meta::Labels, snapshot::Snapshot, volume::Volume};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// A noun that has metadata here.
trait Described: Noun + Clone + PartialEq {
    /// Finds one by its id.
    fn find(door: &Door, session: &Session, id: &str) -> Result<Arc<Stored<Self>>>;
}

impl Described for Volume {
    fn find(door: &Door, session: &Session, id: &str) -> Result<Arc<Stored<Self>>> {
        find::volume(door.control(), session, id)
    }
}

impl Described for Snapshot {
    fn find(door: &Door, session: &Session, id: &str) -> Result<Arc<Stored<Self>>> {
        find::snapshot(door.control(), session, id)
    }
}

/// The routes.
pub fn router() -> Router<Door> {
    routes::<Volume>("volumes").merge(routes::<Snapshot>("snapshots"))
}

fn routes<R: Described>(word: &str) -> Router<Door> {
    Router::new()
        .route(&format!("/v3/{word}/{{id}}/metadata"), get(all::<R>).post(add::<R>).put(replace::<R>))
        .route(
            &format!("/v3/{word}/{{id}}/metadata/{{key}}"),
            get(one::<R>).put(set::<R>).delete(remove::<R>),
        )
}

async fn change<R: Described>(
    door: &Door,
    session: &Session,
    found: &Stored<R>,
    change: impl Fn(&mut Labels) + Send + Sync,
) -> Result<R> {
    let id = found.record.meta().id.to_string();
    let act = |record: &mut R| {
        change(&mut record.meta_mut().labels);
        Ok(())
    };
    Ok(door.control().change::<R>(&session.caller, &id, act).await?)
}

async fn all<R: Described>(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let found = R::find(&door, &session, &id)?;
    Ok(Json(json!({ "metadata": found.record.meta().labels })))
}

fn asked(input: &Value) -> Result<Labels> {
    if !input.get("metadata").is_some_and(Value::is_object) {
        return Err(Fault::invalid("Invalid input for field/attribute metadata: it is missing."));
    }
    let found = labels(input)?;
    check_labels(&found)?;
    if found.keys().chain(found.values()).any(|text| text.chars().count() > 255) {
        return Err(Fault::invalid("Metadata keys and values have at most 255 characters."));
    }
    Ok(found)
}

async fn add<R: Described>(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<Json<Value>> {
    let found = R::find(&door, &session, &id)?;
    let more = asked(&input)?;
    let changed = change(&door, &session, &found, |labels| labels.extend(more.clone())).await?;
    Ok(Json(json!({ "metadata": changed.meta().labels })))
}

async fn replace<R: Described>(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(input): Body<Value>,
) -> Result<Json<Value>> {
    let found = R::find(&door, &session, &id)?;
    let next = asked(&input)?;
    let changed = change(&door, &session, &found, |labels| labels.clone_from(&next)).await?;
    Ok(Json(json!({ "metadata": changed.meta().labels })))
}

fn missing(key: &str) -> Fault {
    Fault::not_found("Metadata item", key)
}

async fn one<R: Described>(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let found = R::find(&door, &session, &id)?;
    let value = found.record.meta().labels.get(&key).ok_or_else(|| missing(&key))?;
    Ok(Json(json!({ "meta": { key: value } })))
}

async fn set<R: Described>(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
    Body(input): Body<Value>,
) -> Result<Json<Value>> {
    let found = R::find(&door, &session, &id)?;
    let item = asked(&json!({ "metadata": input.get("meta") }))?;
    let value = match (item.get(&key), item.len()) {
        (Some(value), 1) => value.clone(),
        (None, _) => return Err(Fault::invalid("Request body and URI mismatch.")),
        _ => return Err(Fault::invalid("Request body contains too many items.")),
    };
    change(&door, &session, &found, |labels| drop(labels.insert(key.clone(), value.clone()))).await?;
    Ok(Json(json!({ "meta": { key: value } })))
}

async fn remove<R: Described>(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
) -> Result<StatusCode> {
    let found = R::find(&door, &session, &id)?;
    if !found.record.meta().labels.contains_key(&key) {
        return Err(missing(&key));
    }
    change(&door, &session, &found, |labels| drop(labels.remove(&key))).await?;
    Ok(StatusCode::OK)
}
