//! Images that nothing needs, and what they take.

use super::found::{self, Local};
use crate::{
    app::Asker,
    docker::{container, door::Door, filter::Filters, query::Query},
    error::{Failure, Result},
    v1::audit::{deed, note},
};
use axum::{Json, extract::State};
use control::{Caller, Role};
use jiff::Timestamp;
use model::{error::Code, id::ImageId, image::ImageContent};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const FILTERS: [&str; 4] = ["dangling", "until", "label", "label!"];

/// POST: removes images without a name, or all that no container stands on.
pub async fn prune(State(door): State<Door>, Asker(caller): Asker, query: Query) -> Result<Json<Value>> {
    caller.require(Role::Member, "removing images")?;
    let filters = Filters::of(&query, &FILTERS)?;
    let only_nameless = filters.switch("dangling")?.unwrap_or(true);
    let until = filters.values("until").first().map(|text| moment(&door, text)).transpose()?;
    let sizes = Sizes::of(&door, &caller).await;
    let used = used(&door, &caller);
    let (mut lines, mut freed) = (vec![], 0);
    for (_, same) in by_id(&door, &caller) {
        let is_used = same.iter().any(|local| used.contains(&local.image().meta.id));
        let is_named = same.iter().any(|local| local.tag().is_some());
        let is_young = until.is_some_and(|until| same[0].image().meta.created_at > until);
        if is_used || is_named && only_nameless || is_young || !filters.fit_labels(&same[0].oci.labels) {
            continue;
        }
        for local in &same {
            let id = local.image().meta.id;
            let outcome = door.control().delete_image(&caller, &id.to_string()).await;
            match note(door.app(), &caller, deed("delete", "image", &id.to_string()), outcome).await {
                Ok(_) => lines.extend(local.tag().map(|tag| json!({ "Untagged": tag }))),
                // Somebody began to use it, or protects it, or removed it.
                Err(failure) => tracing::debug!(%id, message = failure.error.message, "an image stays"),
            }
        }
        let is_gone = same.iter().all(|local| door.control().image_status(local.image().meta.id).is_none());
        if is_gone {
            freed += sizes.alone(&same[0]);
            lines.push(json!({ "Deleted": same[0].id() }));
        }
    }
    Ok(Json(json!({ "ImagesDeleted": lines, "SpaceReclaimed": freed })))
}

/// A time: RFC 3339, seconds since 1970, or how long ago, like `24h` and `1h30m`.
fn moment(door: &Door, text: &str) -> Result<Timestamp> {
    let wrong = || Failure::new(Code::Invalid, format!("invalid value of until: {text:?} is no time"));
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).map_err(|_| wrong());
    }
    let ago: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    door.control().now().checked_sub(ago).map_err(|_| wrong())
}

/// Images that containers stand on.
fn used(door: &Door, caller: &Caller) -> BTreeSet<ImageId> {
    let all = container::found::all(door, caller);
    all.iter().filter_map(|found| found.spec().image).collect()
}

/// The images of the caller's own lists, those of one content together.
pub fn by_id(door: &Door, caller: &Caller) -> BTreeMap<String, Vec<Local>> {
    let mut all: BTreeMap<String, Vec<Local>> = BTreeMap::new();
    for local in found::all(door, caller) {
        all.entry(local.id().to_string()).or_default().push(local);
    }
    all
}

/// An image's layers and their bytes.
pub async fn layers(door: &Door, content: &ImageContent) -> Vec<(String, u64)> {
    let ids = content.oci.iter().flat_map(|oci| oci.diff_ids.clone());
    let details = door.app().streams().image_details(content).await.unwrap_or_default();
    ids.zip(details.layer_bytes).collect()
}

/// What layers take, and which images share them.
#[derive(Debug, Default)]
pub struct Sizes {
    bytes: BTreeMap<String, u64>,
    /// How many images (contents, not names) have a layer.
    holders: BTreeMap<String, usize>,
}

impl Sizes {
    /// Those of all images of the caller's lists.
    pub async fn of(door: &Door, caller: &Caller) -> Self {
        let mut sizes = Self::default();
        for same in by_id(door, caller).values() {
            let local = &same[0];
            // One whose config cannot be read takes what it says that it takes, as far as that can be told.
            let details = door.app().streams().image_details(&local.content).await.unwrap_or_default();
            let ids: BTreeSet<&String> = local.oci.diff_ids.iter().collect();
            for id in ids {
                *sizes.holders.entry(id.clone()).or_default() += 1;
            }
            for (id, bytes) in local.oci.diff_ids.iter().zip(details.layer_bytes) {
                sizes.bytes.insert(id.clone(), bytes);
            }
        }
        sizes
    }

    /// Bytes of all layers, each counted once.
    pub fn total(&self) -> u64 {
        self.bytes.values().sum()
    }

    /// Bytes of the layers that other images have as well.
    pub fn shared(&self, local: &Local) -> u64 {
        self.sum(local, |holders| holders > 1)
    }

    /// Bytes that go with an image.
    fn alone(&self, local: &Local) -> u64 {
        self.sum(local, |holders| holders <= 1)
    }

    fn sum(&self, local: &Local, counts: impl Fn(usize) -> bool) -> u64 {
        let ids: BTreeSet<&String> = local.oci.diff_ids.iter().collect();
        let counted = ids.into_iter().filter(|id| counts(self.holders.get(*id).copied().unwrap_or(0)));
        counted.filter_map(|id| self.bytes.get(id)).sum()
    }
}
