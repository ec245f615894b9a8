//! Changing containers: their names, their sizes, and what happens when they end.

use super::{
    create::{check_name, name_taken},
    found,
    host_config::{HostConfig, read_restart},
};
use crate::{
    app::Asker,
    docker::{
        door::Door,
        query::{Json as Body, Query},
    },
    error::{Failure, Result},
    v1::audit::{deed, note},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use control::instance::resize::NewSize;
use model::{error::Code, instance::Instance, name::Name};
use serde_json::{Value, json};

/// POST of another name.
pub async fn rename(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    query: Query,
) -> Result<StatusCode> {
    let asked = query.text("name").unwrap_or_default();
    let name = asked.strip_prefix('/').unwrap_or(asked);
    let found = found::find(&door, &caller, &reference)?;
    check_name(name)?;
    if found.name() == name {
        let message = "Renaming a container with the same name as its current name";
        return Err(Failure::new(Code::Invalid, message));
    }
    let new: Name = name.parse().map_err(|error| Failure::new(Code::Invalid, error))?;
    let change = |instance: &mut Instance| {
        instance.meta.name = new.clone();
        Ok(())
    };
    let outcome = door.control().update_instance(&caller, &found.id().to_string(), change).await;
    let taken =
        outcome.as_ref().err().filter(|e| e.code == Code::Taken).map(|e| name_taken(&door, &caller, name, e));
    let renamed = note(door.app(), &caller, deed("update", "instance", &reference), outcome).await;
    match (renamed, taken) {
        (Ok(_), _) => Ok(StatusCode::NO_CONTENT),
        (Err(_), Some(taken)) => Err(taken),
        (Err(failure), None) => Err(failure),
    }
}

/// POST of another size or restart policy, of a running one too.
pub async fn update(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Body(asked): Body<HostConfig>,
) -> Result<Json<Value>> {
    let found = found::find(&door, &caller, &reference)?;
    asked.check()?;
    let size = asked.size()?;
    let restart = match &asked.restart_policy {
        Some(policy) if !policy.name.is_empty() => Some(read_restart(Some(policy))?),
        _ => None,
    };
    let id = found.id().to_string();
    let act = async {
        let control = door.control();
        let new = NewSize {
            flavor: None,
            vcpus: size.vcpus,
            memory_mib: size.memory_mib,
            disk_gib: size.disk_gib,
            cpu_weight: size.cpu_weight,
        };
        if !new.is_empty() {
            control.resize_instance(&caller, &id, &new).await?;
        }
        let change = |instance: &mut Instance| {
            for container in &mut instance.containers {
                container.restart = restart.unwrap_or(container.restart);
                container.pids_max = size.pids_max.or(container.pids_max);
                if size.vcpus.is_some() {
                    container.cpu_millis = size.cpu_millis;
                }
            }
            instance.restart = restart.unwrap_or(instance.restart);
            Ok(())
        };
        control.update_instance(&caller, &id, change).await
    };
    let outcome = act.await;
    note(door.app(), &caller, deed("update", "instance", &reference), outcome).await?;
    let mut warnings = vec![];
    for (is_set, what) in [
        (restart.is_some(), "The restart policy"),
        (size.cpu_millis.is_some(), "A part of a CPU"),
        (size.pids_max.is_some(), "The limit of processes"),
    ] {
        if is_set && found.is_alive() {
            warnings.push(format!("{what} holds from the container's next start on."));
        }
    }
    Ok(Json(json!({ "Warnings": warnings })))
}
