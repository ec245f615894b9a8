//! Removing images: by a name that one, by an id all of its names.
//!
//! What containers stand on stays, as in docker: while the last name of a content goes, nothing may run from it, and
//! nothing that is stopped either unless that is forced.

use super::found::{Local, all, find_all, is_name};
use crate::{
    app::Asker,
    docker::{container, door::Door, id, query::Query, refusal::conflict},
    error::Result,
    v1::audit::{deed, note_as},
};
use axum::{
    Json,
    extract::{Path, State},
};
use control::{Caller, image::Untagged};
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
    let named = found.iter().filter(|local| local.reference().is_some()).count();
    let short: String = found[0].hex().chars().take(id::SHORT_DIGITS).collect();
    if named > 1 && !force {
        return Err(conflict(format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )));
    }
    let same: Vec<Local> =
        all(&door, &caller).into_iter().filter(|other| other.id() == found[0].id()).collect();
    let is_named_else = same.iter().any(|other| {
        other.reference().is_some() && !found.iter().any(|one| one.image().meta.id == other.image().meta.id)
    });
    if !is_named_else {
        refuse_used(&door, &caller, &same, &name, force)?;
    }
    let mut lines = vec![];
    for local in found.iter().filter(|local| local.reference().is_some()) {
        untag(&door, &caller, local, &name, force).await?;
        // Of what was pulled the digest goes with the name.
        for untagged in [local.tag(), local.repo_digest()].into_iter().flatten() {
            lines.push(json!({ "Untagged": untagged }));
        }
    }
    if !is_named_else {
        // Names that moved away left images of the same content behind.
        for local in same.iter().filter(|local| local.reference().is_none()) {
            match untag(&door, &caller, local, &name, force).await {
                Err(failure) if failure.error.code == Code::InUse => {}
                other => drop(other?),
            }
        }
    }
    lines.extend(deleted(&door, &caller, &found[0]));
    Ok(Json(lines.into()))
}

/// Refuses to take the last name from what a container stands on.
fn refuse_used(door: &Door, caller: &Caller, same: &[Local], name: &str, force: bool) -> Result<()> {
    let ids: BTreeSet<_> = same.iter().map(|local| local.image().meta.id).collect();
    let users: Vec<_> = container::found::all(door, caller)
        .into_iter()
        .filter(|found| found.spec().image.is_some_and(|image| ids.contains(&image)))
        .collect();
    let running = users.iter().find(|user| user.is_alive());
    let Some(user) = running.or_else(|| users.first().filter(|_| !force)) else { return Ok(()) };
    let container = id::short(user.id());
    let short: String = same[0].hex().chars().take(id::SHORT_DIGITS).collect();
    let message = if user.is_alive() {
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {container}"
        )
    } else if is_name(name, &same[0]) {
        format!(
            "conflict: unable to remove repository reference \"{name}\" (must force) - container {container} is using its referenced image {short}"
        )
    } else {
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {container}"
        )
    };
    let names: Vec<String> = users.iter().map(|user| user.name().to_string()).collect();
    Err(conflict(message).hint(format!("`docker rm {}` first", names.join(" "))))
}

async fn untag(door: &Door, caller: &Caller, local: &Local, name: &str, force: bool) -> Result<Untagged> {
    let image = local.image();
    let outcome = match door.control().untag_image(caller, image.meta.id, force).await {
        // Somebody else removed it at this moment.
        Err(error) if error.code == Code::NotFound => return Ok(Untagged::Deleted),
        outcome => outcome,
    };
    let subject = |_: &Untagged| (image.meta.id.to_string(), image.meta.name.to_string());
    note_as(door.app(), caller, deed("delete", "image", name), outcome, subject).await
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
