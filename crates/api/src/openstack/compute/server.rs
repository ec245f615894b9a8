//! Servers: virtual machines and containers, as Nova has them.

mod action;
mod console;
mod create;
mod disk;
mod filter;
mod list;
pub mod state;
pub mod view;

use super::form::{Form, metadata};
use crate::openstack::{Base, Door, Fault, Microversion, Result, Session, audit::Deed, body::Body};
use crate::routing::{Router, get, post};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use model::{id::InstanceId, instance::Instance, meta::Labels, port::Port};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;
use view::{Extent, Looker};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/servers", get(list::brief).post(create::create))
        .route("/v2.1/servers/detail", get(list::detail))
        .route("/v2.1/servers/{id}", get(show).put(update).delete(delete))
        .route("/v2.1/servers/{id}/action", post(action::act))
        .route("/v2.1/servers/{id}/ips", get(ips))
        .route("/v2.1/servers/{id}/ips/{network}", get(ips_of_network))
        .route("/v2.1/servers/{id}/metadata", get(labels).post(add_labels).put(set_labels))
        .route("/v2.1/servers/{id}/metadata/{key}", get(label).put(set_label).delete(remove_label))
        .route("/v2.1/servers/{id}/diagnostics", get(diagnostics))
        .route("/v2.1/servers/{id}/os-server-password", get(password).delete(forget_password))
        .route("/v2.1/servers/{id}/migrations", get(migrations))
        .route("/v2.1/servers/{id}/topology", get(topology))
        .merge(console::router())
}

/// The instance that a path names by its id, if the caller may see it.
///
/// # Errors
/// 404, as for all that is no id.
pub fn find(door: &Door, session: &Session, id: &str) -> Result<Arc<Stored<Instance>>> {
    let missing = || Fault::not_found("Instance", id);
    let parsed = id.parse::<InstanceId>().map_err(|_| missing())?;
    door.control().find::<Instance>(&session.caller, &parsed.to_string()).map_err(|_| missing())
}

/// Where a server is in its life now.
pub fn state_of(door: &Door, instance: &Instance) -> state::State {
    let known = door.control().instance_status(instance.meta.id);
    state::State::of(instance, door.control().phase(instance), known.as_deref().map(|s| &s.record))
}

/// Refuses a change of a locked server to all but admins.
///
/// # Errors
/// 409.
pub fn refuse_locked(session: &Session, instance: &Instance) -> Result<()> {
    if instance.lock.is_none() || session.is_admin() {
        return Ok(());
    }
    Err(Fault::conflict(format!("Instance {} is locked", instance.meta.id)))
}

/// As a reply tells what was done to a server.
pub fn deed(action: &str, instance: &Instance) -> Deed {
    Deed::new(action, "instance", instance.meta.id, &instance.meta.name)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    let looker = Looker::new(door.control(), &session, &base, version);
    Ok(Json(json!({ "server": looker.server(&found.record, Extent::Whole) })))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let form = Form::under(&body, "server")?;
    let mut known = vec!["name", "accessIPv4", "accessIPv6", "OS-DCF:diskConfig"];
    if version.has(2, 19) {
        known.push("description");
    }
    if version.has(2, 90) {
        known.push("hostname");
    }
    form.refuse_others(&known)?;
    let name = form.name("name")?;
    let (v4, v6) = (form.ipv4("accessIPv4")?, form.ipv6("accessIPv6")?);
    let description = form.raw("description").map(|_| form.text("description")).transpose()?;
    let found = find(&door, &session, &id)?;
    let changed = door
        .control()
        .update_instance(&session.caller, &found.record.meta.id.to_string(), |instance| {
            if let Some(name) = name {
                instance.meta.name = name.parse().map_err(|e| control::Error::invalid("name", e))?;
            }
            if let Some(description) = description {
                instance.meta.description = description.unwrap_or_default().to_string();
            }
            instance.access.v4 = v4.unwrap_or(instance.access.v4);
            instance.access.v6 = v6.unwrap_or(instance.access.v6);
            Ok(())
        })
        .await?;
    let looker = Looker::new(door.control(), &session, &base, version);
    let shown = looker.server(&changed, Extent::Changed);
    Ok(deed("update", &changed).on(Json(json!({ "server": shown }))))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let found = find(&door, &session, &id)?;
    let going = door.control().delete_instance(&session.caller, &found.record.meta.id.to_string()).await?;
    Ok(deed("delete", &going).on(StatusCode::NO_CONTENT))
}

fn ports(door: &Door, instance: &Instance) -> Vec<Port> {
    door.control().ports_of(&instance.ports)
}

async fn ips(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    let looker = Looker::new(door.control(), &session, &base, version);
    Ok(Json(json!({ "addresses": looker.addresses(&ports(&door, &found.record), false) })))
}

async fn ips_of_network(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    Path((id, network)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    let looker = Looker::new(door.control(), &session, &base, version);
    let all = looker.addresses(&ports(&door, &found.record), false);
    let missing = || Fault::status(StatusCode::NOT_FOUND, "Instance is not a member of specified network");
    let list = all.get(&network).ok_or_else(missing)?;
    Ok(Json(json!({ network: list })))
}

async fn labels(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    Ok(Json(json!({ "metadata": found.record.meta.labels })))
}

async fn change_labels(
    door: &Door,
    session: &Session,
    id: &str,
    change: impl Fn(&mut Labels) + Send + Sync,
) -> Result<Instance> {
    let found = find(door, session, id)?;
    let id = found.record.meta.id.to_string();
    let changed = door.control().update_instance(&session.caller, &id, |instance| {
        change(&mut instance.meta.labels);
        control::change::check_labels(&instance.meta.labels)
    });
    Ok(changed.await?)
}

fn labels_of(body: &Value) -> Result<Labels> {
    let form = Form::of(body, "body")?;
    form.refuse_others(&["metadata"])?;
    metadata("metadata", form.get("metadata").unwrap_or(&Value::Null))
}

async fn add_labels(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let more = labels_of(&body)?;
    let changed = change_labels(&door, &session, &id, |labels| labels.extend(more.clone())).await?;
    let shown = json!({ "metadata": changed.meta.labels });
    Ok(deed("update", &changed).on(Json(shown)))
}

async fn set_labels(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let all = labels_of(&body)?;
    let changed = change_labels(&door, &session, &id, |labels| labels.clone_from(&all)).await?;
    let shown = json!({ "metadata": changed.meta.labels });
    Ok(deed("update", &changed).on(Json(shown)))
}

fn no_label() -> Fault {
    Fault::status(StatusCode::NOT_FOUND, "Metadata item was not found")
}

async fn label(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let found = find(&door, &session, &id)?;
    let value = found.record.meta.labels.get(&key).ok_or_else(no_label)?;
    Ok(Json(json!({ "meta": { key: value } })))
}

async fn set_label(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let form = Form::of(&body, "body")?;
    form.refuse_others(&["meta"])?;
    let one = metadata("meta", form.get("meta").unwrap_or(&Value::Null))?;
    let value = match one.get(&key) {
        Some(value) if one.len() == 1 => value.clone(),
        _ => return Err(Fault::invalid("Request body and URI mismatch")),
    };
    let set = |labels: &mut Labels| {
        labels.insert(key.clone(), value.clone());
    };
    let changed = change_labels(&door, &session, &id, set).await?;
    Ok(deed("update", &changed).on(Json(json!({ "meta": one }))))
}

async fn remove_label(
    State(door): State<Door>,
    session: Session,
    Path((id, key)): Path<(String, String)>,
) -> Result<Response> {
    if !find(&door, &session, &id)?.record.meta.labels.contains_key(&key) {
        return Err(no_label());
    }
    let remove = |labels: &mut Labels| {
        labels.remove(&key);
    };
    let changed = change_labels(&door, &session, &id, remove).await?;
    Ok(deed("update", &changed).on(StatusCode::NO_CONTENT))
}

async fn diagnostics(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    session.require_admin("os_compute_api:os-server-diagnostics")?;
    let found = find(&door, &session, &id)?;
    let instance = &found.record;
    if !version.has(2, 48) {
        return Ok(Json(json!({ "memory": instance.size.memory_mib * 1024 })));
    }
    let word = match state_of(&door, instance).power {
        1 => "running",
        3 => "paused",
        4 => "shutdown",
        _ => "pending",
    };
    Ok(Json(json!({
        "state": word, "driver": "libvirt", "hypervisor": "qemu", "hypervisor_os": "linux",
        "uptime": null, "config_drive": instance.config_drive,
        "num_cpus": instance.size.vcpus, "num_nics": instance.ports.len(), "num_disks": instance.volumes.len(),
        "memory_details": { "maximum": instance.size.memory_mib, "used": null },
        "cpu_details": [], "nic_details": [], "disk_details": [],
    })))
}

/// A password that the guest made for itself and sent encrypted; none ever comes this way.
async fn password(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    find(&door, &session, &id)?;
    Ok(Json(json!({ "password": "" })))
}

async fn forget_password(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    find(&door, &session, &id)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn migrations(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    version.require(2, 23)?;
    session.require_admin("os_compute_api:servers:migrations:index")?;
    find(&door, &session, &id)?;
    Ok(Json(json!({ "migrations": [] })))
}

async fn topology(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Response> {
    version.require(2, 78)?;
    find(&door, &session, &id)?;
    Ok(Json(json!({ "nodes": [], "pagesize_kb": null })).into_response())
}
