//! Pruning: removes what nobody uses. Images have their own.
//!
//! What somebody begins to use while it is pruned is kept: each thing goes in a transaction of its own, which refuses then.

use super::{
    container,
    door::Door,
    filter::Filters,
    id,
    network::{self, BRIDGE},
    query::Query,
};
use crate::routing::{Router, post};
use crate::{
    app::Asker,
    error::{Failure, Result},
    v1::audit::{deed, known, note_as},
};
use axum::{Json, extract::State};
use control::network::Joined;
use jiff::{SignedDuration, Timestamp};
use model::{
    error::Code,
    meta::{Labels, Meta},
    volume::{Volume, VolumeSource},
};
use serde_json::{Value, json};

/// Adds the routes.
pub fn routes(routes: Router<Door>) -> Router<Door> {
    routes
        .route("/containers/prune", post(containers))
        .route("/networks/prune", post(networks))
        .route("/volumes/prune", post(volumes))
}

/// Which of the unused things go.
struct Choice {
    filters: Filters,
    until: Option<Timestamp>,
}

impl Choice {
    fn of(query: &Query, names: &[&str], now: Timestamp) -> Result<Self> {
        let filters = Filters::of(query, names)?;
        let until = match filters.values("until") {
            [] => None,
            [one] => Some(moment(one, now).ok_or_else(|| wrong(one))?),
            [_, second, ..] => return Err(wrong(second)),
        };
        Ok(Self { filters, until })
    }

    fn fits<I>(&self, meta: &Meta<I>, labels: &Labels) -> bool {
        self.until.is_none_or(|until| meta.created_at < until) && self.filters.fit_labels(labels)
    }
}

fn wrong(value: &str) -> Failure {
    Failure::new(Code::Invalid, format!("invalid filter 'until={value:.64}'"))
}

/// A moment as docker's clients write it: RFC 3339, seconds since 1970, or how long ago (`10m`, `1h30m`).
pub(super) fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    if let Ok(seconds) = text.parse() {
        return Timestamp::from_second(seconds).ok();
    }
    let mut rest = text;
    let mut seconds = 0_i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = rest.split_at(digits);
        let factor = match unit.as_bytes().first()? {
            b'h' => 3_600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<i64>().ok()?.checked_mul(factor)?)?;
        rest = &unit[1..];
    }
    now.checked_sub(SignedDuration::from_secs(seconds)).ok()
}

/// Removes containers that do not run.
async fn containers(State(door): State<Door>, Asker(caller): Asker, query: Query) -> Result<Json<Value>> {
    let choice = Choice::of(&query, &["until", "label", "label!"], door.control().now())?;
    let mut deleted = vec![];
    for found in container::found::all(&door, &caller) {
        let meta = &found.instance().meta;
        let is_idle = matches!(container::state_word(&found), "created" | "exited" | "dead");
        if meta.project != caller.project || !is_idle || !choice.fits(meta, &meta.labels) {
            continue;
        }
        match container::remove::end(&door, &caller, &found, found.name()).await {
            Ok(()) => deleted.push(id::of(found.id())),
            Err(failure) if is_kept(&failure) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(Json(json!({ "ContainersDeleted": deleted, "SpaceReclaimed": 0 })))
}

/// Whether something is in use by now, locked, or gone already.
fn is_kept(failure: &Failure) -> bool {
    matches!(failure.error.code, Code::InUse | Code::Conflict | Code::Forbidden | Code::NotFound)
}

/// Removes networks in which nobody is.
async fn networks(State(door): State<Door>, Asker(caller): Asker, query: Query) -> Result<Json<Value>> {
    let choice = Choice::of(&query, &["until", "label", "label!"], door.control().now())?;
    let mut deleted = vec![];
    for stored in network::shown(&door, &caller) {
        let network = &stored.record;
        let (meta, name) = (&network.meta, network::name_of(&door, network.meta.id));
        // A network has ports of routers, too; what anything else uses is no one's to prune.
        let is_idle = door.control().ports_of_network(meta.id).iter().all(|port| {
            use model::port::Device;
            matches!(port.record.device, Device::RouterInterface(_) | Device::RouterGateway(_))
        });
        let is_own = meta.project == caller.project && name != BRIDGE && !network.shared;
        if !is_own || !is_idle || !choice.fits(meta, &meta.labels) {
            continue;
        }
        let outcome = door.control().delete_network(&caller, &meta.id.to_string(), Joined::Remove).await;
        let subject = known(meta.id, &meta.name);
        match note_as(door.app(), &caller, deed("delete", "network", &name), outcome, subject).await {
            Ok(_) => deleted.push(name),
            Err(failure) if is_kept(&failure) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(Json(json!({ "NetworksDeleted": deleted })))
}

/// Removes volumes that nobody has, if all are meant: those without a name of their own went with their containers.
async fn volumes(State(door): State<Door>, Asker(caller): Asker, query: Query) -> Result<Json<Value>> {
    let choice = Choice::of(&query, &["all", "label", "label!"], door.control().now())?;
    let mut deleted = vec![];
    if choice.filters.switch("all")? == Some(true) {
        for stored in door.control().list::<Volume>(&caller) {
            let (volume, meta) = (&stored.record, &stored.record.meta);
            // Disks of VMs that hold a system, and what copies and snapshots were made of, are no containers'.
            let is_plain = !volume.bootable
                && volume.source == VolumeSource::Empty
                && door.control().snapshots_of(meta.id).is_empty();
            let is_idle = volume.attached_to.is_none() && meta.project == caller.project;
            if !is_plain || !is_idle || !choice.fits(meta, &meta.labels) {
                continue;
            }
            let outcome = door.control().delete_volume(&caller, &meta.id.to_string()).await;
            let (name, subject) = (meta.name.to_string(), known(meta.id, &meta.name));
            match note_as(door.app(), &caller, deed("delete", "volume", &name), outcome, subject).await {
                Ok(_) => deleted.push(name),
                Err(failure) if is_kept(&failure) => {}
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(Json(json!({ "VolumesDeleted": deleted, "SpaceReclaimed": 0 })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_docker_writes_them() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        for (text, wanted) in [
            ("10m", Some("2026-01-01T11:50:00Z")),
            ("1h30m5s", Some("2026-01-01T10:29:55Z")),
            ("2025-06-01T00:00:00Z", Some("2025-06-01T00:00:00Z")),
            ("1767225600", Some("2026-01-01T00:00:00Z")),
            ("soon", None),
            ("10", Some("1970-01-01T00:00:10Z")),
            ("10x", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(moment(text, now), wanted.map(|text| text.parse().unwrap()), "{text}");
        }
    }
}
