//! What clients see of images.

use super::found::{Local, all};
use crate::{
    app::Asker,
    docker::{container, door::Door, filter::Filters, query::Query},
    error::Result,
};
use axum::{Json, extract::State};
use control::Caller;
use jiff::Timestamp;
use model::{id::ImageId, instance::Instance, meta::Labels};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const FILTERS: [&str; 6] = ["reference", "label", "dangling", "before", "since", "until"];

/// GET of all.
pub async fn list(State(door): State<Door>, Asker(caller): Asker, query: Query) -> Result<Json<Value>> {
    let filters = Filters::of(&query, &FILTERS)?;
    let dangling = filters.switch("dangling")?;
    let edge = |name: &str| match filters.values(name).first() {
        Some(text) => super::found::find(&door, &caller, text).map(|local| Some(created(&local))),
        None => Ok(None),
    };
    let (before, since) = (edge("before")?, edge("since")?);
    let mut by_id: BTreeMap<String, Vec<Local>> = BTreeMap::new();
    for local in all(&door, &caller) {
        let fits = filters.fit_labels(&local.oci.labels)
            && filters.any("reference", |pattern| fits_pattern(&local, pattern))
            && before.is_none_or(|edge| created(&local) < edge)
            && since.is_none_or(|edge| created(&local) > edge);
        if fits {
            by_id.entry(local.id().to_string()).or_default().push(local);
        }
    }
    let is_nameless = |same: &[Local]| same.iter().all(|local| local.tag().is_none());
    by_id.retain(|_, same| dangling.is_none_or(|wanted| is_nameless(same) == wanted));
    let users = users(&door, &caller);
    let mut shown: Vec<(i64, Value)> =
        by_id.values().map(|same| (created(&same[0]), summary(same, &users))).collect();
    shown.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
    Ok(Json(shown.into_iter().map(|(_, value)| value).collect()))
}

/// How many containers stand on each image.
fn users(door: &Door, caller: &Caller) -> BTreeMap<ImageId, i64> {
    let mut users = BTreeMap::new();
    for found in container::found::all(door, caller) {
        let instance: &Instance = found.instance();
        for id in instance.containers.iter().filter_map(|c| c.image) {
            *users.entry(id).or_default() += 1;
        }
    }
    users
}

fn summary(same: &[Local], users: &BTreeMap<ImageId, i64>) -> Value {
    let first = &same[0];
    let containers: i64 = same.iter().filter_map(|local| users.get(&local.image().meta.id)).sum();
    json!({
        "Id": first.id(),
        "ParentId": "",
        "RepoTags": tags(same),
        "RepoDigests": digests(same),
        "Created": created(first),
        "Size": first.content.virtual_bytes,
        "SharedSize": -1,
        "VirtualSize": first.content.virtual_bytes,
        "Labels": first.oci.labels,
        "Containers": containers,
    })
}

fn tags(same: &[Local]) -> Vec<String> {
    let mut all: Vec<String> = same.iter().filter_map(Local::tag).collect();
    all.sort();
    all
}

fn digests(same: &[Local]) -> Vec<String> {
    let mut all: Vec<String> = same.iter().filter_map(Local::repo_digest).collect();
    all.sort();
    all.dedup();
    all
}

/// When an image was made, in seconds since 1970: as it says itself, else when it came here.
fn created(local: &Local) -> i64 {
    let told: Option<Timestamp> = local.oci.created.parse().ok();
    told.unwrap_or(local.image().meta.created_at).as_second()
}

/// Whether a name fits a pattern of `docker images PATTERN`: `*` is any text without a slash.
fn fits_pattern(local: &Local, pattern: &str) -> bool {
    let Some(reference) = local.reference() else { return false };
    let (name, tagged) = (reference.familiar_name(), local.tag().unwrap_or_default());
    [name.as_str(), tagged.as_str()].iter().any(|text| fits_glob(pattern, text))
}

fn fits_glob(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.any(|end| !text[..end].contains('/') && fits_glob(rest, &text[end..]))
        }
        Some(first) => {
            let mut chars = text.chars();
            match chars.next() {
                Some(c) if first == c || (first == '?' && c != '/') => {
                    fits_glob(&pattern[first.len_utf8()..], chars.as_str())
                }
                _ => false,
            }
        }
    }
}

/// What `docker inspect` shows.
pub async fn inspect(door: &Door, local: &Local) -> Value {
    // An image whose config cannot be read is shown all the same.
    let details = door.app().streams().image_details(&local.content).await.unwrap_or_default();
    let text = |name: &str| details.config[name].as_str().unwrap_or("").to_string();
    let same: Vec<Local> = {
        let all = door.control().store().list::<model::image::Image>();
        let of_project = all.into_iter().filter(|i| i.record.meta.project == local.image().meta.project);
        let named = of_project.filter_map(|stored| super::found::of_record(door, stored));
        named.filter(|other| other.id() == local.id()).collect()
    };
    let oci = &local.oci;
    let made =
        if oci.created.is_empty() { local.image().meta.created_at.to_string() } else { oci.created.clone() };
    json!({
        "Id": local.id(),
        "RepoTags": tags(&same),
        "RepoDigests": digests(&same),
        "Parent": "",
        "Comment": text("comment"),
        "Created": made,
        "DockerVersion": "",
        "Author": text("author"),
        "Config": config(local),
        "Architecture": oci.architecture,
        "Os": oci.os,
        "Size": local.content.virtual_bytes,
        "VirtualSize": local.content.virtual_bytes,
        "GraphDriver": {"Name": "overlay2", "Data": null},
        "RootFS": {"Type": "layers", "Layers": oci.diff_ids},
        "Metadata": {"LastTagTime": local.image().meta.updated_at.to_string()},
    })
}

/// What an image says of the programs that run from it.
fn config(local: &Local) -> Value {
    let oci = &local.oci;
    let set =
        |all: &[String]| -> Map<String, Value> { all.iter().map(|key| (key.clone(), json!({}))).collect() };
    let words = |all: &[String]| if all.is_empty() { Value::Null } else { json!(all) };
    let labels: &Labels = &oci.labels;
    json!({
        "Hostname": "",
        "Domainname": "",
        "User": oci.user,
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "ExposedPorts": set(&oci.exposed_ports),
        "Tty": false,
        "OpenStdin": false,
        "StdinOnce": false,
        "Env": oci.env,
        "Cmd": words(&oci.cmd),
        "Image": "",
        "Volumes": set(&oci.volumes),
        "WorkingDir": oci.working_dir,
        "Entrypoint": words(&oci.entrypoint),
        "OnBuild": null,
        "Labels": labels,
        "StopSignal": oci.stop_signal,
        "Healthcheck": oci.health.as_ref().map(container::health_check_view),
    })
}

/// How an image was made, the last step first.
pub async fn history(door: &Door, local: &Local) -> Value {
    let details = door.app().streams().image_details(&local.content).await.unwrap_or_default();
    let steps = details.config["history"].as_array().cloned().unwrap_or_default();
    let mut told = history_of(local, &steps, &details.layer_bytes);
    if let Some(top) = told.first_mut() {
        top["Id"] = json!(local.id());
        top["Tags"] = local.tag().map_or(Value::Null, |tag| json!([tag]));
    }
    Value::Array(told)
}

/// The steps that an image tells of, each with its layer. Layers below that no step made are told by themselves.
fn history_of(local: &Local, steps: &[Value], layer_bytes: &[u64]) -> Vec<Value> {
    let has_layer = |step: &Value| step["empty_layer"] != json!(true);
    let bytes_of = |number: usize| layer_bytes.get(number).copied().unwrap_or(0);
    let mut layers = local.oci.diff_ids.iter().enumerate().rev();
    let one = |created: i64, by: &str, comment: &str, size: u64| {
        json!({
            "Id": "<missing>", "Created": created, "CreatedBy": by, "Tags": null, "Size": size, "Comment": comment,
        })
    };
    let mut told: Vec<Value> = steps
        .iter()
        .rev()
        .map(|step| {
            let text = |name: &str| step[name].as_str().unwrap_or("");
            let time =
                text("created").parse::<Timestamp>().map_or_else(|_| created(local), |t| t.as_second());
            let size =
                if has_layer(step) { layers.next().map_or(0, |(number, _)| bytes_of(number)) } else { 0 };
            one(time, text("created_by"), text("comment"), size)
        })
        .collect();
    told.extend(layers.map(|(number, id)| one(created(local), id, "layer", bytes_of(number))));
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stop_at_slashes() {
        for (pattern, text, fits) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox:latest", true),
            ("*", "org/app", false),
            ("*/*", "org/app", true),
            ("b?sybox", "busybox", true),
            ("busybox:1", "busybox:latest", false),
            ("", "", true),
        ] {
            assert_eq!(fits_glob(pattern, text), fits, "{pattern} {text}");
        }
    }
}
