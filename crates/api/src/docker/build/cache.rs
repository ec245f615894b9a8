//! The build cache: steps of earlier builds.

use super::mounts::CACHE_LABEL;
use crate::{
    app::Asker,
    docker::{
        door::Door,
        filter::Filters,
        image::{by_id, sizes},
        prune::moment,
        query::Query,
    },
    error::{Failure, Result},
};
use axum::{Json, extract::State};
use control::Caller;
use jiff::Timestamp;
use model::{error::Code, image::Image, volume::Volume};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Layers that images have as well: they stay when a step goes.
fn kept_layers(door: &Door, caller: &Caller) -> BTreeSet<String> {
    by_id(door, caller).values().flat_map(|same| same[0].oci.diff_ids.clone()).collect()
}

/// Bytes that each step has alone: of layers that no image has, each counted with its first step.
async fn weights(door: &Door, caller: &Caller) -> BTreeMap<String, u64> {
    let mut known = kept_layers(door, caller);
    let mut weights = BTreeMap::new();
    let mut steps = door.control().steps(caller);
    steps.sort_by_key(|found| found.record.meta.created_at);
    for found in steps {
        let id = found.record.meta.id;
        let status = door.control().image_status(id);
        let Some(content) = status.as_ref().and_then(|status| status.record.content()) else { continue };
        let layers = sizes(door, content).await;
        let fresh = layers.into_iter().filter(|(layer, _)| known.insert(layer.clone()));
        weights.insert(id.to_string(), fresh.map(|(_, bytes)| bytes).sum());
    }
    weights
}

/// A step that is kept.
pub struct Kept {
    /// Its id.
    pub id: String,
    /// `regular`, or `exec.cachemount` for the directory of a `RUN --mount=type=cache`.
    pub kind: &'static str,
    /// What it did.
    pub what: String,
    /// A build uses it now.
    pub in_use: bool,
    /// Bytes that it has alone.
    pub size_bytes: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was used last.
    pub used_at: Timestamp,
    /// How often.
    pub uses: u64,
}

impl Kept {
    /// What was counted with a step before is shared with that.
    pub fn is_shared(&self) -> bool {
        self.kind == "regular" && self.size_bytes == 0
    }
}

/// All that is kept.
pub async fn kept(door: &Door, caller: &Caller) -> Vec<Kept> {
    let weights = weights(door, caller).await;
    let one = |image: &Image| {
        let step = image.step.as_ref()?;
        let id = image.meta.id.to_string();
        Some(Kept {
            kind: "regular",
            what: step.what.clone(),
            in_use: step.build.is_some(),
            size_bytes: weights.get(&id).copied().unwrap_or(0),
            created_at: image.meta.created_at,
            used_at: step.used_at,
            uses: step.uses,
            id,
        })
    };
    let steps = door.control().steps(caller);
    steps.iter().filter_map(|found| one(&found.record)).chain(caches(door, caller)).collect()
}

/// Directories that steps share.
fn caches(door: &Door, caller: &Caller) -> Vec<Kept> {
    let one = |volume: &Volume| {
        let status = door.control().volume_status(volume.meta.id);
        Some(Kept {
            id: volume.meta.id.to_string(),
            kind: "exec.cachemount",
            what: format!("cached mount {}", volume.meta.labels.get(CACHE_LABEL)?),
            in_use: volume.attached_to.is_some(),
            size_bytes: status.map_or(0, |status| status.record.used_bytes),
            created_at: volume.meta.created_at,
            used_at: volume.attached_at.unwrap_or(volume.meta.created_at),
            uses: 1,
        })
    };
    door.control().list::<Volume>(caller).iter().filter_map(|found| one(&found.record)).collect()
}

/// Removes those that no build used since `until`, or all. Those that a step has stay.
pub async fn prune_caches(door: &Door, caller: &Caller, until: Option<Timestamp>) -> Vec<Kept> {
    let mut gone = vec![];
    for kept in caches(door, caller) {
        if kept.in_use || until.is_some_and(|until| kept.used_at >= until) {
            continue;
        }
        match door.control().delete_volume(caller, &kept.id).await {
            Ok(()) => gone.push(kept),
            Err(error) => tracing::debug!(%error, "a cache stays"),
        }
    }
    gone
}

/// The steps, as `docker system df` shows them.
pub async fn list(door: &Door, caller: &Caller) -> Vec<Value> {
    let one = |kept: Kept| {
        json!({
            "ID": kept.id, "Type": kept.kind, "Description": kept.what, "InUse": kept.in_use,
            "Shared": kept.is_shared(), "Size": kept.size_bytes, "CreatedAt": kept.created_at.to_string(),
            "LastUsedAt": kept.used_at.to_string(), "UsageCount": kept.uses,
        })
    };
    kept(door, caller).await.into_iter().map(one).collect()
}

/// POST: removes steps that no build needs now.
pub async fn prune(State(door): State<Door>, Asker(caller): Asker, query: Query) -> Result<Json<Value>> {
    let filters = Filters::of(&query, &["until"])?;
    let now = door.control().now();
    let wrong = |text: &String| Failure::new(Code::Invalid, format!("invalid filter 'until={text:.64}'"));
    let until = match filters.values("until") {
        [] => None,
        [one] => Some(moment(one, now).ok_or_else(|| wrong(one))?),
        [_, second, ..] => return Err(wrong(second)),
    };
    let weights = weights(&door, &caller).await;
    let gone = door.control().prune_steps(&caller, until).await?;
    let mut ids: Vec<String> = gone.iter().map(|step| step.id.to_string()).collect();
    let mut freed: u64 = ids.iter().filter_map(|id| weights.get(id)).sum();
    for cache in prune_caches(&door, &caller, until).await {
        freed += cache.size_bytes;
        ids.push(cache.id);
    }
    Ok(Json(json!({ "CachesDeleted": ids, "SpaceReclaimed": freed })))
}
