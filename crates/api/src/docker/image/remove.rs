//! Removing images: by a name that one, by an id all of its names.

use super::found::{Local, all, find_all};
use crate::{
    app::Asker,
    docker::{container, door::Door, id, query::Query, refusal::conflict},
    error::Result,
    v1::audit::{deed, note},
};
use axum::{
    Json,
    extract::{Path, State},
};
use control::Caller;
use model::error::Code;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// DELETE of one.
pub async fn remove(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let force = query.flag("force");
    let found = find_all(&door, &caller, &name)?;
    let short: String = found[0].hex().chars().take(id::SHORT_DIGITS).collect();
    if found.len() > 1 && !force {
        return Err(conflict(format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )));
    }
    let mut lines = vec![];
    for local in &found {
        remove_one(&door, &caller, local, &name).await?;
        for untagged in [local.tag(), local.repo_digest()].into_iter().flatten() {
            lines.push(json!({ "Untagged": untagged }));
        }
    }
    lines.extend(deleted(&door, &caller, &found[0]));
    Ok(Json(lines.into()))
}

async fn remove_one(door: &Door, caller: &Caller, local: &Local, name: &str) -> Result<()> {
    let image = local.image().meta.id;
    let user =
        container::found::all(door, caller).into_iter().find(|found| found.spec().image == Some(image));
    if let Some(user) = user {
        let (container, short) =
            (id::short(user.id()), &local.hex()[..local.hex().len().min(id::SHORT_DIGITS)]);
        let is_running = user.is_alive();
        let message = if is_running {
            format!(
                "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {container}"
            )
        } else {
            format!(
                "conflict: unable to remove repository reference \"{name}\" (cannot be forced) - container {container} is using its referenced image {short}"
            )
        };
        return Err(conflict(message).hint(format!("`docker rm {}` first", user.name())));
    }
    let outcome = door.control().delete_image(caller, &image.to_string()).await;
    match note(door.app(), caller, deed("delete", "image", name), outcome).await {
        Ok(_) => Ok(()),
        // Somebody else removed it at this moment.
        Err(failure) if failure.error.code == Code::NotFound => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// What no other image has: its id and its layers.
fn deleted(door: &Door, caller: &Caller, gone: &Local) -> Vec<Value> {
    let left = all(door, caller);
    if left.iter().any(|local| local.id() == gone.id()) {
        return vec![];
    }
    let kept: BTreeSet<&String> = left.iter().flat_map(|local| &local.oci.diff_ids).collect();
    let layers = gone.oci.diff_ids.iter().rev().filter(|layer| !kept.contains(layer));
    std::iter::once(gone.id())
        .chain(layers.map(String::as_str))
        .map(|text| json!({ "Deleted": text }))
        .collect()
}
