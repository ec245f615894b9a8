//! Every operation of every service but Identity, which has a table of its own, against every role; and the one row that
//! each leaves in the record of what was asked.
//!
//! The routes are read from the sources, so that none can be left out. The table is a golden file: each line is an
//! operation, and what nobody, a reader, a member and an admin of the project are answered for an empty body. What is
//! named is there, so that 403 is said for who asks and not for what is missing; what is deleted is not.

use crate::cloud::Cloud;
use axum::{body::Body, http::Method};
use jiff::Timestamp;
use model::{instance::State, operation::Operation, quota::Resource};
use regex::Regex;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";
const ROLES: [&str; 4] = ["nobody", "reader", "member", "admin"];
/// Actions of servers, each with what admins alone may do marked so by the table.
const SERVER_ACTIONS: &[&str] = &[
    "addSecurityGroup",
    "changePassword",
    "confirmResize",
    "createBackup",
    "createImage",
    "evacuate",
    "forceDelete",
    "injectNetworkInfo",
    "lock",
    "migrate",
    "os-getConsoleOutput",
    "os-getSerialConsole",
    "os-getVNCConsole",
    "os-migrateLive",
    "os-resetState",
    "os-start",
    "os-stop",
    "pause",
    "reboot",
    "rebuild",
    "removeSecurityGroup",
    "rescue",
    "resetNetwork",
    "resize",
    "restore",
    "resume",
    "revertResize",
    "shelve",
    "shelveOffload",
    "suspend",
    "trigger_crash_dump",
    "unlock",
    "unpause",
    "unrescue",
    "unshelve",
];
/// Actions of volumes.
const VOLUME_ACTIONS: &[&str] = &[
    "os-attach",
    "os-begin_detaching",
    "os-detach",
    "os-extend",
    "os-force_delete",
    "os-force_detach",
    "os-initialize_connection",
    "os-migrate_volume",
    "os-reset_status",
    "os-reserve",
    "os-retype",
    "os-set_bootable",
    "os-set_image_metadata",
    "os-show_image_metadata",
    "os-unmanage",
    "os-update_readonly_flag",
    "os-volume_upload_image",
    "revert",
];

/// An operation: where it is, and its body.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    service: String,
    path: String,
    method: String,
    action: String,
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files
}

/// What follows a route's path, up to the end of its parentheses.
fn handlers(rest: &str) -> &str {
    let mut depth = 1;
    let end = rest.find(|c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    &rest[..end.unwrap_or(rest.len())]
}

fn operations() -> BTreeSet<Asked> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/openstack");
    let route = Regex::new(r#"\.route\(\s*"([^"]+)",\s*"#).unwrap();
    let verb = Regex::new(r"\b(get|post|put|patch|delete)\(").unwrap();
    let mut all = BTreeSet::new();
    let mut add = |service: &str, path: &str, method: &str, action: &str| {
        let [service, path, method, action] = [service, path, method, action].map(str::to_string);
        all.insert(Asked { service, path, method, action });
    };
    for file in sources(&root) {
        let inside = file.strip_prefix(&root).unwrap();
        let service =
            inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if !["compute", "image", "network", "placement", "volume"].contains(&service) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for found in route.captures_iter(&text) {
            let rest = handlers(&text[found.get(0).unwrap().end()..]);
            for method in verb.captures_iter(rest) {
                add(service, &found[1], &method[1].to_uppercase(), "");
            }
        }
    }
    // Those whose paths are put together.
    for noun in ["networks", "subnets", "ports", "routers", "floatingips", "security-groups"] {
        for method in ["GET", "PUT", "DELETE"] {
            add("network", &format!("/v2.0/{noun}/{{id}}/tags"), method, "");
            add("network", &format!("/v2.0/{noun}/{{id}}/tags/{{tag}}"), method, "");
        }
    }
    for noun in ["volumes", "snapshots"] {
        for method in ["GET", "POST", "PUT"] {
            add("volume", &format!("/v3/{noun}/{{id}}/metadata"), method, "");
        }
        for method in ["GET", "PUT", "DELETE"] {
            add("volume", &format!("/v3/{noun}/{{id}}/metadata/{{key}}"), method, "");
        }
    }
    for action in SERVER_ACTIONS {
        add("compute", "/v2.1/servers/{id}/action", "POST", action);
    }
    for action in VOLUME_ACTIONS {
        add("volume", "/v3/volumes/{id}/action", "POST", action);
    }
    all
}

/// A cloud with one of most things, and a session of each role.
struct Scene {
    cloud: Cloud,
    tokens: Vec<String>,
    there: BTreeMap<&'static str, String>,
}

impl Scene {
    async fn open() -> Self {
        let cloud = Cloud::open().await;
        let mut tokens = vec![String::new()];
        for role in &ROLES[1..] {
            tokens.push(cloud.as_role(role).await);
        }
        let root = control::finalize::system_caller(model::id::ProjectId(uuid::Uuid::nil()));
        let none =
            [Resource::Instances, Resource::Vcpus, Resource::MemoryMib, Resource::Ports].map(|r| (r, None));
        cloud.house.control.set_quota(&root, "default", &none).await.unwrap();
        let mut scene = Self { cloud, tokens, there: BTreeMap::new() };
        let network = json!({ "network": { "name": "n" } });
        let network = scene.make("network", "networks", "/network/v2.0/networks", network).await;
        let subnet = json!({ "subnet": { "network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24" } });
        scene.make("subnet", "subnets", "/network/v2.0/subnets", subnet).await;
        for (noun, many, body) in [
            ("port", "ports", json!({ "port": { "network_id": network } })),
            ("router", "routers", json!({ "router": { "name": "r" } })),
            ("security_group", "security-groups", json!({ "security_group": { "name": "g" } })),
        ] {
            scene.make(noun, many, &format!("/network/v2.0/{many}"), body).await;
        }
        let volume =
            scene.make("volume", "volumes", "/volume/v3/volumes", json!({ "volume": { "size": 1 } })).await;
        crate::volume::supply(&scene.cloud).await;
        let snapshot = json!({ "snapshot": { "volume_id": volume, "force": true } });
        scene.make("snapshot", "snapshots", "/volume/v3/snapshots", snapshot).await;
        let image = json!({ "name": "i", "disk_format": "raw", "container_format": "bare" });
        let made = scene.cloud.post(&scene.tokens[2], "/image/v2/images", &image).await.expect(201);
        scene.there.insert("images", made["id"].as_str().unwrap().to_string());
        let flavors = scene.cloud.get(&scene.tokens[2], "/compute/v2.1/flavors").await.expect(200);
        scene.there.insert("flavors", flavors["flavors"][0]["id"].as_str().unwrap().to_string());
        scene.server().await;
        scene
    }

    async fn make(&mut self, noun: &str, many: &'static str, path: &str, body: Value) -> String {
        let reply = self.cloud.post(&self.tokens[2], path, &body).await;
        assert!(reply.status.is_success(), "{path}: {}", reply.text());
        let id = reply.json()[noun]["id"].as_str().unwrap().to_string();
        self.there.insert(many, id.clone());
        id
    }

    /// A container that runs, for actions that leave it another one than it was.
    async fn server(&mut self) {
        let caller = self.cloud.house.caller(control::Role::Member);
        let request: api::v1::types::instance::CreateInstance = serde_json::from_value(
            json!({ "name": format!("s{}", rand::random::<u32>()), "kind": "container", "image": "busybox" }),
        )
        .unwrap();
        let wait = api::v1::types::list::WaitQuery::default();
        let client = &self.cloud.house.client;
        let made = client.create::<api::v1::types::instance::Instance>(&request, &wait).await.unwrap();
        assert_eq!(made.head.project.id, caller.project.0);
        self.cloud.house.seen(made.head.id, State::Running { since: Timestamp::now() }).await;
        self.there.insert("servers", made.head.id.to_string());
    }

    /// The path with what is there in the places of its names; what is deleted is not there.
    fn path(&self, asked: &Asked) -> String {
        let mut before = "";
        let parts: Vec<&str> = asked.path.split('/').collect();
        let filled = parts.iter().enumerate().map(|(place, part)| {
            let is_doomed = asked.method == "DELETE" && place + 1 == parts.len();
            let shown = match part.starts_with('{') {
                true if is_doomed => NOBODY,
                true => self.there.get(before).map_or(NOBODY, String::as_str),
                false => part,
            };
            before = part;
            shown
        });
        format!("/{}{}", asked.service, filled.collect::<Vec<_>>().join("/"))
    }

    fn rows(&self) -> usize {
        self.cloud.house.control.store().list::<Operation>().len()
    }
}

#[tokio::test]
async fn every_operation_is_for_its_roles_and_leaves_one_row() {
    let mut scene = Scene::open().await;
    let mut table = String::new();
    for asked in operations() {
        let method: Method = asked.method.parse().unwrap();
        let mut line = format!("{} {} {} {}", asked.service, asked.method, asked.path, asked.action);
        line.truncate(line.trim_end().len());
        let mut answers = vec![];
        for (role, token) in ROLES.into_iter().zip(scene.tokens.clone()) {
            if asked.path.contains("/servers/{id}") && method != Method::GET {
                scene.server().await;
            }
            let before = scene.rows();
            let body = match (&method, asked.action.as_str()) {
                (&Method::GET | &Method::DELETE, _) => Body::empty(),
                (_, "") => Body::from("{}"),
                (_, action) => Body::from(json!({ action: null }).to_string()),
            };
            let headers = [
                ("content-type", "application/json"),
                (
                    "openstack-api-version",
                    if asked.service == "volume" { "volume 3.71" } else { "compute 2.1" },
                ),
            ];
            let reply = scene.cloud.call(method.clone(), &scene.path(&asked), &token, &headers, body).await;
            let status = reply.status.as_u16();
            assert!(status < 500, "{line} by {role}: {}", reply.text());
            let wanted = usize::from(method != Method::GET && role != "nobody");
            assert_eq!(scene.rows() - before, wanted, "{line} by {role}: {}", reply.text());
            if role == "reader" && method != Method::GET {
                assert_eq!(status, 403, "{line}: readers change nothing");
            }
            answers.push(status.to_string());
        }
        writeln!(table, "{line}: {}", answers.join(" ")).unwrap();
    }
    insta::assert_snapshot!(table);
}
