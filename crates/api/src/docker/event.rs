//! Events: what becomes of containers, told as it happens. What was before the call is not told.

use super::{
    container::{found, found::Found, health_event, image_name, state_word},
    door::Door,
    filter::Filters,
    id,
    query::Query,
};
use crate::{app::Asker, docker::container::time_ns, error::Result};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use control::Caller;
use futures::StreamExt;
use jiff::Timestamp;
use model::{
    health::status::{ContainerHealth, Word},
    id::InstanceId,
    instance::{Instance, InstanceStatus, State as Seen},
    record::Record,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, convert::Infallible, time::Duration};
use store::Change;
use tokio::time::{Instant, timeout_at};

const FILTERS: [&str; 6] = ["container", "event", "image", "label", "type", "scope"];
/// A call without an end of its own.
const LONG: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What is remembered of a container, to tell what changed.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    name: String,
    image: String,
    labels: BTreeMap<String, String>,
    word: &'static str,
    boot: u64,
    code: i32,
    health: Option<Word>,
}

/// A caller's containers, as they were when they were last looked at.
struct Watch {
    door: Door,
    caller: Caller,
    filters: Filters,
    known: BTreeMap<InstanceId, Known>,
    changes: store::Changes,
    deadline: Instant,
}

/// GET of events.
pub async fn events(State(door): State<Door>, Asker(caller): Asker, query: Query) -> Result<Response> {
    let filters = Filters::of(&query, &FILTERS)?;
    let now = door.control().now();
    let left = time_ns(&query, "until")?.map(|until| {
        let left = i128::from(until) - now.as_nanosecond();
        Duration::from_nanos(u64::try_from(left.max(0)).unwrap_or(u64::MAX)).min(LONG)
    });
    let slot = door.app().stream_slot(&caller)?;
    let ended = slot.ended();
    let changes = door.control().store().subscribe();
    let mut watch = Watch {
        known: BTreeMap::new(),
        deadline: Instant::now() + left.unwrap_or(LONG),
        changes,
        door,
        caller,
        filters,
    };
    watch.known = watch.look();
    let lines = futures::stream::unfold((watch, slot), |(mut watch, slot)| async move {
        let lines = watch.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(lines)), (watch, slot)))
    });
    let body = Body::from_stream(lines.take_until(ended.cancelled_owned()));
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

impl Watch {
    fn look(&self) -> BTreeMap<InstanceId, Known> {
        let all = found::all(&self.door, &self.caller);
        all.iter().map(|found| (found.id(), self.known_of(found))).collect()
    }

    fn known_of(&self, found: &Found) -> Known {
        Known {
            name: found.name().to_string(),
            image: image_name(&self.door, found),
            labels: found.instance().meta.labels.clone(),
            word: state_word(found),
            boot: found.status().map_or(0, |status| status.boot),
            code: match found.state() {
                Seen::Stopped { code, .. } => code.unwrap_or(255),
                _ => 0,
            },
            health: found.health().map(|health| health.word),
        }
    }

    /// The next events, a line each; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            let change = timeout_at(self.deadline, self.changes.next()).await.ok()??;
            let about = match &change {
                Change::Record { table, .. } => {
                    [Instance::TABLE, InstanceStatus::TABLE, ContainerHealth::TABLE].contains(table)
                }
                Change::Resync => true,
            };
            if !about {
                continue;
            }
            let now = self.look();
            let lines = self.lines(&now);
            self.known = now;
            if !lines.is_empty() {
                return Some(lines);
            }
        }
    }

    fn lines(&self, now: &BTreeMap<InstanceId, Known>) -> String {
        let at = self.door.control().now();
        let mut lines = String::new();
        for (id, known) in now {
            for action in actions(self.known.get(id), known) {
                self.put(&mut lines, *id, known, action, at);
            }
        }
        for (id, known) in self.known.iter().filter(|(id, _)| !now.contains_key(id)) {
            self.put(&mut lines, *id, known, "destroy", at);
        }
        lines
    }

    fn put(&self, lines: &mut String, id: InstanceId, known: &Known, action: &str, at: Timestamp) {
        let whole = id::of(id);
        let filters = &self.filters;
        let fits = filters.any("container", |text| text == known.name || whole.starts_with(text))
            && filters.any("event", |text| text == action)
            && filters.any("image", |text| text == known.image)
            && filters.any("type", |text| text == "container")
            && filters.any("scope", |text| text == "local")
            && filters.fit_labels(&known.labels);
        if fits {
            lines.push_str(&format!("{}\n", event(&whole, known, action, at)));
        }
    }
}

fn event(id: &str, known: &Known, action: &str, at: Timestamp) -> Value {
    let mut attributes = known.labels.clone();
    attributes.insert("name".into(), known.name.clone());
    attributes.insert("image".into(), known.image.clone());
    if action == "die" {
        attributes.insert("exitCode".into(), known.code.to_string());
    }
    json!({
        "status": action,
        "id": id,
        "from": known.image,
        "Type": "container",
        "Action": action,
        "Actor": {"ID": id, "Attributes": attributes},
        "scope": "local",
        "time": at.as_second(),
        "timeNano": i64::try_from(at.as_nanosecond()).unwrap_or(0),
    })
}

/// What lies between two looks at a container, in docker's words.
fn actions(before: Option<&Known>, now: &Known) -> Vec<&'static str> {
    let mut all = vec![];
    let (word, boot) = match before {
        Some(before) => {
            if before.name != now.name {
                all.push("rename");
            }
            (before.word, before.boot)
        }
        None => {
            all.push("create");
            ("created", 0)
        }
    };
    let is_up = |word: &str| matches!(word, "running" | "paused" | "restarting");
    let is_new_boot = now.boot > boot;
    if is_new_boot && is_up(word) {
        all.push("die");
    }
    if is_new_boot && (is_up(now.word) || now.word == "exited") {
        all.push("start");
    }
    match (word, now.word) {
        ("running", "paused") if !is_new_boot => all.push("pause"),
        ("paused", "running") if !is_new_boot => all.push("unpause"),
        (before, "exited") if is_up(before) || is_new_boot => all.push("die"),
        _ => {}
    }
    if is_up(now.word) && before.and_then(|before| before.health) != now.health {
        all.extend(now.health.and_then(health_event));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(word: &'static str, boot: u64) -> Known {
        Known {
            name: "web".into(),
            image: "busybox".into(),
            labels: BTreeMap::new(),
            word,
            boot,
            code: 3,
            health: None,
        }
    }

    #[test]
    fn what_happened_between_two_looks_is_told() {
        for (before, now, wanted) in [
            (None, known("created", 0), &["create"][..]),
            (None, known("exited", 1), &["create", "start", "die"]),
            (Some(known("created", 0)), known("running", 1), &["start"]),
            (Some(known("running", 1)), known("exited", 1), &["die"]),
            (Some(known("running", 1)), known("running", 2), &["die", "start"]),
            (Some(known("running", 1)), known("paused", 1), &["pause"]),
            (Some(known("paused", 1)), known("running", 1), &["unpause"]),
            (Some(known("exited", 1)), known("running", 2), &["start"]),
            (Some(known("running", 1)), known("running", 1), &[]),
            (Some(known("running", 1)), known("removing", 1), &[]),
        ] {
            assert_eq!(actions(before.as_ref(), &now), wanted, "{before:?} {now:?}");
        }
        let renamed = Known { name: "other".into(), ..known("running", 1) };
        assert_eq!(actions(Some(&known("running", 1)), &renamed), ["rename"]);
        for (before, now, wanted) in [
            (None, Some(Word::Starting), &[][..]),
            (Some(Word::Starting), Some(Word::Healthy), &["health_status: healthy"]),
            (Some(Word::Healthy), Some(Word::Healthy), &[]),
            (Some(Word::Healthy), Some(Word::Unhealthy), &["health_status: unhealthy"]),
            (Some(Word::Healthy), Some(Word::Starting), &[]),
        ] {
            let with = |health| Known { health, ..known("running", 1) };
            assert_eq!(actions(Some(&with(before)), &with(now)), wanted, "{before:?} {now:?}");
        }
        let told = event("ab", &known("exited", 1), "die", Timestamp::UNIX_EPOCH);
        assert_eq!(told["Actor"]["Attributes"]["exitCode"], "3");
    }
}
