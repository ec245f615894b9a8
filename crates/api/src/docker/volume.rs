//! Volumes: directories of containers, which belong to one container at a time.

use super::{
    container::host_config::{HostConfig, Mount, is_empty, refuse_rest},
    door::Door,
    filter::Filters,
    query::{Json as Body, Query},
    refusal::{conflict, not_honoured},
};
use crate::routing::{Router, get, post};
use crate::{
    app::Asker,
    error::{Failure, Result},
    v1::audit::{deed, known, note, note_as},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use control::{
    Caller,
    instance::{DiskAsked, VolumeAsked},
    volume::{Attach, NewVolume},
};
use model::{
    error::Code,
    id::InstanceId,
    instance::content::{Mount as Lent, Shows},
    meta::Labels,
    volume::Volume,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use store::Stored;

/// Size of a volume for which none is asked, in GiB: space is taken as it is written.
const SIZE_GIB: u64 = 10;
const FILTERS: [&str; 4] = ["name", "label", "dangling", "driver"];

/// Adds the routes.
pub fn routes(routes: Router<Door>) -> Router<Door> {
    routes
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NewDockerVolume {
    name: String,
    driver: String,
    driver_opts: Option<BTreeMap<String, String>>,
    labels: Option<Labels>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

fn find(door: &Door, caller: &Caller, name: &str) -> Result<Arc<Stored<Volume>>> {
    let found = door.control().named::<Volume>(caller, name).into_iter().next();
    found.ok_or_else(|| Failure::new(Code::NotFound, format!("get {name}: no such volume")))
}

fn view(volume: &Volume) -> Value {
    json!({
        "CreatedAt": volume.meta.created_at.to_string(),
        "Driver": "local",
        "Labels": volume.meta.labels,
        "Mountpoint": "",
        "Name": volume.meta.name,
        "Options": {"size": format!("{}g", volume.size_gib)},
        "Scope": "local",
    })
}

async fn list(State(door): State<Door>, Asker(caller): Asker, query: Query) -> Result<Json<Value>> {
    let filters = Filters::of(&query, &FILTERS)?;
    let dangling = filters.switch("dangling")?;
    let all = door.control().list::<Volume>(&caller);
    let shown: Vec<Value> = all
        .iter()
        .map(|stored| &stored.record)
        .filter(|volume| {
            filters.any("name", |text| volume.meta.name.as_str().contains(text))
                && filters.any("driver", |text| text == "local")
                && filters.fit_labels(&volume.meta.labels)
                && dangling.is_none_or(|wanted| wanted == volume.attached_to.is_none())
        })
        .map(view)
        .collect();
    Ok(Json(json!({ "Volumes": shown, "Warnings": null })))
}

async fn inspect(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
) -> Result<Json<Value>> {
    Ok(Json(view(&find(&door, &caller, &name)?.record)))
}

async fn create(
    State(door): State<Door>,
    Asker(caller): Asker,
    Body(asked): Body<NewDockerVolume>,
) -> Result<Response> {
    if !matches!(asked.driver.as_str(), "" | "local") {
        return Err(not_honoured("Driver", format!("{:?}: volumes are holm's own", asked.driver)));
    }
    refuse_rest(&asked.rest, "")?;
    let mut size_gib = SIZE_GIB;
    for (name, value) in asked.driver_opts.iter().flatten() {
        if name != "size" {
            return Err(not_honoured(
                &format!("driver option {name}"),
                "the one that holm knows is size, like 10g",
            ));
        }
        let digits = value.trim_end_matches(['g', 'G']);
        size_gib = digits.parse().map_err(|_| {
            Failure::new(Code::Invalid, format!("invalid size {value:?}: write whole GiB like 10g"))
        })?;
    }
    // Docker gives the volume that is there, where there is one.
    if !asked.name.is_empty()
        && let Ok(found) = find(&door, &caller, &asked.name)
    {
        return Ok((StatusCode::CREATED, Json(view(&found.record))).into_response());
    }
    let labels = asked.labels.unwrap_or_default();
    let made = make(&door, &caller, &asked.name, size_gib, labels).await?;
    Ok((StatusCode::CREATED, Json(view(&made))).into_response())
}

async fn make(door: &Door, caller: &Caller, name: &str, size_gib: u64, labels: Labels) -> Result<Volume> {
    control::change::check_labels(&labels)?;
    let new = NewVolume { name: name.to_string(), size_gib: Some(size_gib), labels, ..NewVolume::default() };
    let outcome = door.control().create_volume(caller, new).await;
    note(door.app(), caller, deed("create", "volume", name), outcome).await
}

async fn remove(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<StatusCode> {
    let found = match find(&door, &caller, &name) {
        Err(_) if query.flag("force") => return Ok(StatusCode::NO_CONTENT),
        found => found?,
    };
    let meta = &found.record.meta;
    if let Some(user) = found.record.attached_to {
        return Err(conflict(format!("remove {name}: volume is in use - [{}]", super::id::of(user))));
    }
    let outcome = door.control().delete_volume(&caller, &meta.id.to_string()).await;
    note_as(door.app(), &caller, deed("delete", "volume", &name), outcome, known(meta.id, &meta.name))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The volumes that a new container asks for. One that is named and not there is made, as docker does. What the container
/// has whose place the new one takes may be asked for.
///
/// # Errors
/// `invalid` for directories of the host, and what the cloud refuses.
pub(super) async fn asked(
    door: &Door,
    caller: &Caller,
    host: &HostConfig,
    succeeds: Option<InstanceId>,
    anonymous: Option<&BTreeMap<String, Value>>,
) -> Result<Vec<VolumeAsked>> {
    let mut wanted: Vec<(Option<String>, String, bool)> = vec![];
    for bind in host.binds.iter().flatten().filter(|bind| !bind.starts_with('/')) {
        wanted.push(read_bind(bind)?);
    }
    let is_disk = |mount: &&Mount| mount.kind != "tmpfs" && mount.kind != "bind";
    for mount in host.mounts.iter().flatten().filter(is_disk) {
        wanted.push(read_mount(mount)?);
    }
    for path in anonymous.into_iter().flat_map(BTreeMap::keys) {
        if !wanted.iter().any(|(_, target, _)| target == path) {
            wanted.push((None, path.clone(), false));
        }
    }
    for (_, target, _) in &wanted {
        if !target.starts_with('/') {
            let message = format!("invalid mount config: mount path must be absolute: {target:?}");
            return Err(Failure::new(Code::Invalid, message));
        }
    }
    let mut asked = vec![];
    for (name, target, read_only) in wanted {
        if let Some(name) = &name {
            match find(door, caller, name) {
                Ok(found) if succeeds.is_some() && found.record.attached_to == succeeds => {}
                Ok(found) => refuse_used(door, name, &found.record)?,
                Err(_) => drop(make(door, caller, name, SIZE_GIB, Labels::new()).await?),
            }
        }
        // One without a name of its own goes with its container.
        let delete_with_instance = name.is_none().then_some(true);
        let disk = match name {
            Some(name) => DiskAsked::Volume(name),
            None => DiskAsked::New(NewVolume { size_gib: Some(SIZE_GIB), ..NewVolume::default() }),
        };
        let attach = Attach { mount_path: Some(target), read_only, delete_with_instance, tag: None };
        asked.push(VolumeAsked { disk, attach });
    }
    Ok(asked)
}

/// Directories of the host that a new container asks for: whether they are lent is the cloud's to say.
///
/// # Errors
/// `invalid` for options.
pub(super) fn lent(host: &HostConfig) -> Result<Vec<Lent>> {
    let show = |path: &str, exists: bool, target: &str, read_only: bool| Lent {
        shows: Shows::Host { path: path.to_string(), exists },
        path: target.to_string(),
        sub_path: None,
        read_only,
        group: None,
    };
    let mut all = vec![];
    for bind in host.binds.iter().flatten().filter(|bind| bind.starts_with('/')) {
        let (source, target, read_only) = read_bind(bind)?;
        all.push(show(&source.unwrap_or_default(), false, &target, read_only));
    }
    for mount in host.mounts.iter().flatten().filter(|mount| mount.kind == "bind") {
        let mut rest = mount.rest.clone();
        let options = rest.remove("BindOptions").unwrap_or_default();
        refuse_rest(&rest, "Mounts.")?;
        let mut exists = true;
        for (name, value) in options.as_object().into_iter().flatten().filter(|(_, value)| !is_empty(value)) {
            match name.as_str() {
                "CreateMountpoint" => exists = false,
                "NonRecursive" => {}
                "Propagation" if matches!(value.as_str(), Some("rprivate" | "private")) => {}
                other => {
                    let why = format!("it was set to {value:.100}", value = value.to_string());
                    return Err(not_honoured(&format!("Mounts.BindOptions.{other}"), why));
                }
            }
        }
        all.push(show(&mount.source, exists, &mount.target, mount.read_only));
    }
    Ok(all)
}

fn refuse_used(door: &Door, name: &str, volume: &Volume) -> Result<()> {
    let Some(user) = volume.attached_to else { return Ok(()) };
    let user = door.control().get::<model::instance::Instance>(user).map(|i| i.record.meta.name.to_string());
    Err(conflict(format!("volume {name} belongs to {}", user.unwrap_or_default()))
        .hint("a volume of holm belongs to one container at a time"))
}

/// Reads `NAME:/path[:ro]`.
fn read_bind(text: &str) -> Result<(Option<String>, String, bool)> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(Failure::new(Code::Invalid, format!("invalid volume specification: {text:?}"))),
    };
    refuse_relative(source)?;
    let mut read_only = false;
    for option in options.split(',') {
        match option {
            "" | "rw" | "z" | "Z" | "copy" | "nocopy" | "rprivate" | "private" => {}
            "ro" => read_only = true,
            other => return Err(not_honoured("Binds", format!("option {other:?} of {text:?}"))),
        }
    }
    Ok((Some(source.to_string()), target.to_string(), read_only))
}

/// Clients tell directories by their whole path.
fn refuse_relative(source: &str) -> Result<()> {
    if source.starts_with(['.', '~']) {
        let why = format!("{source}: a directory of the host is told by its whole path");
        return Err(not_honoured("Binds", why).hint("or name a volume: -v NAME:/path"));
    }
    Ok(())
}

fn read_mount(mount: &Mount) -> Result<(Option<String>, String, bool)> {
    if mount.kind != "volume" {
        let why = format!("a mount of type {:?}: volume, bind and tmpfs are known", mount.kind);
        return Err(
            not_honoured("Mounts", why).hint("name a volume instead: --mount type=volume,src=NAME,dst=/path")
        );
    }
    refuse_rest(&mount.rest, "Mounts.")?;
    let name = Some(mount.source.clone()).filter(|name| !name.is_empty());
    Ok((name, mount.target.clone(), mount.read_only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_and_directories_refused() {
        assert_eq!(read_bind("data:/srv:ro").unwrap(), (Some("data".into()), "/srv".into(), true));
        assert_eq!(read_bind("data:/srv").unwrap(), (Some("data".into()), "/srv".into(), false));
        for bad in ["/etc:/etc:shared", "./x:/x", "data", "a:b:c:d", "data:/x:shared"] {
            assert!(read_bind(bad).is_err(), "{bad}");
        }
    }
}
