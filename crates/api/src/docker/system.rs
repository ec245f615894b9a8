//! What answers here: ping, version, info, and how much space is used.

use super::{
    container::found as containers,
    door::Door,
    frame::{API_VERSION_MAX, API_VERSION_MIN},
    id, image,
    query::Json as Body,
    refusal::not_served,
};
use crate::{app::Asker, error::Result};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, HeaderValue, Method, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use control::Caller;
use model::{
    node::{Node, NodeStatus},
    volume::Volume,
};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// Adds the routes.
pub fn routes(routes: Router<Door>) -> Router<Door> {
    routes
        .route("/_ping", get(ping).head(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/auth", post(auth))
        .route("/system/df", get(disk_usage))
        .route("/events", get(super::event::events))
}

async fn ping(method: Method) -> Response {
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        // The classic builder: what it asks for is refused with a reason.
        (HeaderName::from_static("builder-version"), HeaderValue::from_static("1")),
        (HeaderName::from_static("swarm"), HeaderValue::from_static("inactive")),
    ];
    (headers, if method == Method::HEAD { "" } else { "OK" }).into_response()
}

fn node(door: &Door) -> Option<(Arc<Stored<Node>>, Arc<Stored<NodeStatus>>)> {
    let store = door.control().store();
    let node = store.list::<Node>().into_iter().next()?;
    let status = store.get::<NodeStatus>(&node.record.id.to_string())?;
    Some((node, status))
}

/// An architecture as Go names it.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn version(State(door): State<Door>, Asker(_caller): Asker) -> Json<Value> {
    let (arch, kernel) = node(&door)
        .map(|(_, status)| (status.record.arch.clone(), status.record.kernel.clone()))
        .unwrap_or_else(|| (std::env::consts::ARCH.to_string(), String::new()));
    let own = env!("CARGO_PKG_VERSION");
    let details = json!({
        "ApiVersion": API_VERSION_MAX,
        "MinAPIVersion": API_VERSION_MIN,
        "Arch": go_arch(&arch),
        "Os": "linux",
        "KernelVersion": kernel,
        "Experimental": "false",
    });
    Json(json!({
        "Platform": {"Name": format!("holm {own}")},
        "Version": own,
        "ApiVersion": API_VERSION_MAX,
        "MinAPIVersion": API_VERSION_MIN,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": go_arch(&arch),
        "KernelVersion": kernel,
        "BuildTime": "",
        "Components": [{"Name": "Engine", "Version": own, "Details": details}],
    }))
}

async fn info(State(door): State<Door>, Asker(caller): Asker) -> Json<Value> {
    let all = containers::all(&door, &caller);
    let count = |fits: &dyn Fn(&containers::Found) -> bool| all.iter().filter(|found| fits(found)).count();
    let (paused, alive) = (count(&|f| f.is_paused()), count(&|f| f.is_alive()));
    let images = image::found::all(&door, &caller).len();
    let host = node(&door).map(|(node, status)| (node.record.clone(), status.record.clone()));
    let (node, status) = (host.as_ref().map(|(node, _)| node), host.as_ref().map(|(_, status)| status));
    let id = node.map(|node| node.id.to_string()).unwrap_or_default();
    let name = node.map(|node| node.name.to_string()).unwrap_or_default();
    let text = |of: fn(&NodeStatus) -> &str| status.map_or("", of).to_string();
    let (os, kernel, arch) = (text(|s| &s.os), text(|s| &s.kernel), text(|s| &s.arch));
    let (cpus, memory_mib) = status.map_or((0, 0), |s| (s.cpus, s.memory_mib));
    Json(json!({
        "ID": id,
        "Name": name,
        "Containers": all.len(),
        "ContainersRunning": alive - paused,
        "ContainersPaused": paused,
        "ContainersStopped": all.len() - alive,
        "Images": images,
        "Driver": "overlay2",
        "DriverStatus": [["Backing", "holm's content store, idmapped overlayfs"]],
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "none"], "Authorization": null, "Log": ["json-file"]},
        "MemoryLimit": true, "SwapLimit": true, "CpuCfsPeriod": true, "CpuCfsQuota": true, "CPUShares": true,
        "CPUSet": true, "PidsLimit": true, "IPv4Forwarding": true, "BridgeNfIptables": true, "BridgeNfIp6tables": true,
        "OomKillDisable": false, "Debug": false, "NFd": 0, "NGoroutines": 0, "NEventsListener": 0,
        "SystemTime": door.control().now().to_string(),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "KernelVersion": kernel,
        "OperatingSystem": os,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": arch,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {"InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": {}, "Mirrors": []},
        "NCPU": cpus,
        "MemTotal": memory_mib << 20,
        "GenericResources": null,
        "DockerRootDir": "/var/lib/holm",
        "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": concat!("holm-", env!("CARGO_PKG_VERSION")),
        "Runtimes": {"holm": {"path": "holm"}},
        "DefaultRuntime": "holm",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null},
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": ""}, "RuncCommit": {"ID": ""}, "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns", "name=no-new-privileges"],
        "Warnings": null,
    }))
}

/// Credentials are not kept: a client that logs in would believe that its pulls use them.
async fn auth(Body(_asked): Body<Value>) -> Result<Response> {
    Err(not_served("logging in to registries"))
}

async fn disk_usage(State(door): State<Door>, Asker(caller): Asker) -> Json<Value> {
    Json(json!({
        "LayersSize": image::found::all(&door, &caller).iter().map(|local| local.content.virtual_bytes).sum::<u64>(),
        "Images": images(&door, &caller),
        "Containers": containers::all(&door, &caller).iter().map(|found| container(&door, found)).collect::<Vec<_>>(),
        "Volumes": volumes(&door, &caller),
        "BuildCache": [],
    }))
}

fn images(door: &Door, caller: &Caller) -> Vec<Value> {
    let used = containers::all(door, caller);
    let all = image::found::all(door, caller);
    let one = |local: &image::found::Local| {
        let users = used.iter().filter(|found| found.spec().image == Some(local.image().meta.id)).count();
        json!({
            "Id": local.id(), "ParentId": "", "RepoTags": local.tag().into_iter().collect::<Vec<_>>(),
            "RepoDigests": local.repo_digest().into_iter().collect::<Vec<_>>(),
            "Created": local.image().meta.created_at.as_second(), "Size": local.content.virtual_bytes,
            "SharedSize": 0, "Labels": local.oci.labels, "Containers": users,
        })
    };
    all.iter().map(one).collect()
}

fn container(door: &Door, found: &containers::Found) -> Value {
    json!({
        "Id": id::of(found.id()),
        "Names": [format!("/{}", found.name())],
        "Image": super::container::image_name(door, found),
        "ImageID": "",
        "Created": found.instance().meta.created_at.as_second(),
        "SizeRw": 0,
        "SizeRootFs": 0,
        "State": super::container::state_word(found),
        "Status": "",
        "Mounts": [],
    })
}

fn volumes(door: &Door, caller: &Caller) -> Vec<Value> {
    let all = door.control().list::<Volume>(caller);
    let one = |stored: &Arc<Stored<Volume>>| {
        let volume = &stored.record;
        let used = door.control().volume_status(volume.meta.id).map_or(0, |status| status.record.used_bytes);
        json!({
            "Name": volume.meta.name, "Driver": "local", "Mountpoint": "", "Labels": volume.meta.labels,
            "Scope": "local", "Options": null, "CreatedAt": volume.meta.created_at.to_string(),
            "UsageData": {"Size": used, "RefCount": u8::from(volume.attached_to.is_some())},
        })
    };
    all.iter().map(one).collect()
}
