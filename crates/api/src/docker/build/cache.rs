//! The build cache: steps of earlier builds.

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
use model::{error::Code, image::Image};
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

/// The steps, as `docker system df` shows them.
pub async fn list(door: &Door, caller: &Caller) -> Vec<Value> {
    let weights = weights(door, caller).await;
    let one = |image: &Image| {
        let step = image.step.as_ref()?;
        let id = image.meta.id.to_string();
        let size = weights.get(&id).copied().unwrap_or(0);
        // What was counted with a step before is shared with that.
        Some(json!({
            "ID": id, "Type": "regular", "Description": step.what, "InUse": step.build.is_some(),
            "Shared": size == 0, "Size": size, "CreatedAt": image.meta.created_at.to_string(),
            "LastUsedAt": step.used_at.to_string(), "UsageCount": step.uses,
        }))
    };
    door.control().steps(caller).iter().filter_map(|found| one(&found.record)).collect()
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
    let ids: Vec<String> = gone.iter().map(|step| step.id.to_string()).collect();
    let freed: u64 = ids.iter().filter_map(|id| weights.get(id)).sum();
    Ok(Json(json!({ "CachesDeleted": ids, "SpaceReclaimed": freed })))
}
