//! What answers here: ping, version, info, and how much space is used.

use super::{
    container::found as containers,
    door::Door,
    frame::{API_VERSION_MAX, API_VERSION_MIN},
    id, image,
};
use crate::app::Asker;
use crate::routing::{Router, get, post};
use axum::{
    Json,
    extract::State,
    http::{HeaderName, HeaderValue, Method, header},
    response::{IntoResponse, Response},
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
        // None can be installed.
        .route("/plugins", get(async || Json(json!([]))))
        .route("/auth", post(image::log_in))
        .route("/system/df", get(disk_usage))
        .route("/events", get(super::event::events))
}

async fn ping(method: Method) -> Response {
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        // BuildKit: what clients build with unless they are told otherwise (DOCKER_BUILDKIT=0).
        (HeaderName::from_static("builder-version"), HeaderValue::from_static("2")),
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
        "Runtimes": {"holm": {"path": "holm"}, "vm": {"path": "holm"}},
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

async fn disk_usage(State(door): State<Door>, Asker(caller): Asker) -> Json<Value> {
    let sizes = image::prune::Sizes::of(&door, &caller).await;
    let mut shown = vec![];
    for found in containers::all(&door, &caller) {
        shown.push(container(&door, &found).await);
    }
    Json(json!({
        "LayersSize": sizes.total(),
        "Images": images(&door, &caller, &sizes),
        "Containers": shown,
        "Volumes": volumes(&door, &caller),
        "BuildCache": super::build::cached(&door, &caller).await,
    }))
}

fn images(door: &Door, caller: &Caller, sizes: &image::prune::Sizes) -> Vec<Value> {
    let used = containers::all(door, caller);
    let one = |same: &Vec<image::found::Local>| {
        let first = &same[0];
        let stands = |found: &&containers::Found| {
            same.iter().any(|local| found.spec().image == Some(local.image().meta.id))
        };
        json!({
            "Id": first.id(), "ParentId": "",
            "RepoTags": same.iter().filter_map(image::found::Local::tag).collect::<Vec<_>>(),
            "RepoDigests": same.iter().filter_map(image::found::Local::repo_digest).collect::<Vec<_>>(),
            "Created": first.image().meta.created_at.as_second(), "Size": first.content.virtual_bytes,
            "SharedSize": sizes.shared(first), "Labels": first.oci.labels,
            "Containers": used.iter().filter(stands).count(),
        })
    };
    image::prune::by_id(door, caller).values().map(one).collect()
}

async fn container(door: &Door, found: &containers::Found) -> Value {
    let (written, all) = super::container::sizes(door, found).await;
    json!({
        "Id": id::of(found.id()),
        "Names": [format!("/{}", found.name())],
        "Image": super::container::image_name(door, found),
        "ImageID": "",
        "Created": found.instance().meta.created_at.as_second(),
        "SizeRw": written,
        "SizeRootFs": all,
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
