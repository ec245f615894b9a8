//! A server on a unix socket that answers canned JSON, and takes streams over as the real one does.

use api::frame::{Frame, FrameCodec, PROTOCOL};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{collections::HashMap, path::PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::Framed;

const DB: &str = "0190a000-0000-4000-8000-000000000001";
const BROKEN: &str = "0190a000-0000-4000-8000-000000000009";
const WEB: &str = "0190a000-0000-4000-8000-000000000002";

/// A running server; it ends with the value.
pub struct Fake {
    /// Its socket.
    pub socket: PathBuf,
    _directory: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

/// Starts one.
pub fn start() -> Fake {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("holm.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(async { tokio::net::UnixListener::bind(&socket) }).unwrap();
    runtime.spawn(async move { axum::serve(listener, routes()).await });
    Fake { socket, _directory: directory, _runtime: runtime }
}

fn routes() -> Router {
    Router::new()
        .route("/v1/version", get(|| async { Json(version()) }))
        .route("/v1/instances", get(|| async { Json(list([instance("db"), instance("web")])) }).post(create))
        .route("/v1/instances/{name}", get(show).delete(remove))
        .route("/v1/instances/{name}/stop", post(act))
        .route("/v1/instances/{name}/start", post(act))
        .route("/v1/instances/{name}/exec", post(exec))
        .route("/v1/instances/{name}/console", get(console))
        .route("/v1/instances/{name}/logs", get(logs))
        .route(
            "/v1/flavors",
            get(|| async { Json(list([flavor("g1.c1m512", 512, 0), flavor("g4.r8c4", 8192, 80)])) }),
        )
        .route("/v1/flavors/{name}", get(|| async { Json(flavor("g1.c1m512", 512, 0)) }))
        .route("/v1/security_groups/{name}", get(|| async { Json(group()) }))
        .route("/v1/security_groups/{name}/rules", post(add_rule))
        .route("/v1/quotas", get(|| async { Json(quotas()) }))
        .route("/v1/quotas/{name}", get(|| async { Json(quota()) }))
        .route(
            "/v1/volumes/{name}",
            get(|| async { Json(volume()) }).delete(|| async { StatusCode::NO_CONTENT }),
        )
        .route(
            "/v1/images/{name}",
            delete(|| async {
                error(StatusCode::CONFLICT, "in_use", "image web is in use", "delete web first", None)
            }),
        )
        .fallback(any(|| async {
            error(StatusCode::NOT_FOUND, "not_found", "there is nothing here", "", None)
        }))
}

fn error(status: StatusCode, code: &str, message: &str, hint: &str, field: Option<&str>) -> Response {
    let body = json!({"error": {"code": code, "message": message, "hint": hint, "field": field, "request_id": "r-1"}});
    (status, Json(body)).into_response()
}

fn list<const N: usize>(items: [Value; N]) -> Value {
    json!({ "items": items.to_vec() })
}

fn reference(name: &str) -> Value {
    json!({"id": "0190a000-0000-4000-8000-0000000000ff", "name": name})
}

/// Three minutes old at any time.
fn recent() -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(200)
}

fn instance(name: &str) -> Value {
    let is_vm = name == "db";
    json!({
        "id": match name { "db" => DB, "broken" => BROKEN, _ => WEB }, "project": reference("default"), "name": name, "labels": {},
        "created_at": recent(), "updated_at": recent(), "kind": if is_vm { "vm" } else { "container" },
        "phase": if name == "broken" { "failed" } else if name == "old" { "stopped" } else { "running" },
        "power": "on", "size": {"vcpus": 1, "memory_mib": 512, "disk_gib": 8}, "flavor": reference("g1.c1m512"),
        "image": reference(if is_vm { "debian-12" } else { "web" }), "node": reference("host"),
        "addresses": [if is_vm { "10.0.0.5" } else { "10.0.0.6" }, "fd00::5"],
        "floating_ips": if is_vm { json!(["172.31.240.9"]) } else { json!([]) },
        "ports": [], "volumes": [], "keypairs": ["me"], "login": if is_vm { Some("debian") } else { None },
        "config_drive": false, "accelerator": "auto", "autostart": false, "restart": "no", "grace_s": 60,
        "remove_on_exit": false, "locked": false, "boots": 1,
        "fault": (name == "broken").then(|| json!({"code": "no_capacity", "message": "the disk is full", "hint": "free some space", "since": "2026-01-01T00:00:00Z"})),
        "facts": {"acceleration": "KVM, hardware virtualization on", "guest_os": "Debian GNU/Linux 12"},
    })
}

fn flavor(name: &str, memory_mib: u64, disk_gib: u64) -> Value {
    json!({
        "id": "0190a000-0000-4000-8000-000000000003", "project": reference("admin"), "name": name, "labels": {},
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "vcpus": 1, "memory_mib": memory_mib,
        "disk_gib": disk_gib, "public": true, "extra_specs": {},
    })
}

fn rule(id: u8, direction: &str, ports: Option<&str>, peer: &str) -> Value {
    json!({
        "id": format!("0190a000-0000-4000-8000-0000000001{id:02}"), "direction": direction, "family": "ipv4",
        "protocol": if ports.is_some() { "tcp" } else { "any" }, "ports": ports, "peer": peer,
    })
}

fn group() -> Value {
    json!({
        "id": "0190a000-0000-4000-8000-000000000004", "project": reference("default"), "name": "web", "labels": {},
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "is_default": false,
        "rules": [rule(1, "egress", None, "any"), rule(2, "ingress", Some("80"), "any"), rule(3, "ingress", Some("22"), "203.0.113.7/32")],
    })
}

fn quota() -> Value {
    let one = |limit: Option<u64>, used: u64| json!({"limit": limit, "used": used, "is_default": true});
    json!({"project": reference("default"), "resources": {"instances": one(Some(10), 9), "ports": one(None, 3), "vcpus": one(Some(40), 4)}})
}

fn quotas() -> Value {
    let mut shop = quota();
    shop["project"] = reference("shop");
    shop["resources"]["memory_mib"] = json!({"limit": 4096, "used": 512, "is_default": false});
    let total = |limit: Option<u64>, used: u64| json!({"limit": limit, "used": used});
    json!({
        "items": [quota(), shop],
        "total": {"instances": total(Some(20), 18), "vcpus": total(Some(80), 8), "memory_mib": total(Some(4096), 512),
            "volume_gib": total(None, 70)},
        "capacity": {"vcpus": 8, "memory_mib": 16_384, "volume_gib": 200},
    })
}

fn volume() -> Value {
    json!({
        "id": "0190a000-0000-4000-8000-000000000005", "project": reference("default"), "name": "data", "labels": {},
        "created_at": recent(), "updated_at": recent(), "size_gib": 10, "thick": false, "delete_with_instance": false,
        "read_only": false, "bootable": true, "serial": "0190a000-0000-4000-8", "state": "available", "used_bytes": 3_221_225_472_u64,
    })
}

fn version() -> Value {
    json!({"name": "holm", "version": env!("CARGO_PKG_VERSION"), "api_versions": ["v1"],
        "caller": {"actor": "root", "role": "admin", "project": reference("default")}})
}

async fn show(Path(name): Path<String>) -> Response {
    match name.as_str() {
        "wbe" => error(
            StatusCode::NOT_FOUND,
            "not_found",
            "no instance \"wbe\" in this project",
            "did you mean \"web\"?",
            None,
        ),
        DB => Json(instance("db")).into_response(),
        BROKEN => Json(instance("broken")).into_response(),
        WEB => Json(instance("web")).into_response(),
        name => Json(instance(name)).into_response(),
    }
}

async fn create(Json(request): Json<Value>) -> Response {
    if request["flavor"] == "huge" {
        let message = "quota: 10 instances are allowed, 10 are used";
        return error(
            StatusCode::FORBIDDEN,
            "quota_exceeded",
            message,
            "delete some, or ask an admin for more",
            Some("flavor"),
        );
    }
    let name = request["name"].as_str().unwrap_or_default();
    let mut made = instance(if request["image"] == "debian-12" { "db" } else { name });
    made["name"] = json!(name);
    made["phase"] = json!("creating");
    (StatusCode::CREATED, Json(made)).into_response()
}

async fn act(Path(name): Path<String>) -> Response {
    if name == "old" {
        return error(StatusCode::CONFLICT, "conflict", "old is stopped already", "", None);
    }
    Json(instance(&name)).into_response()
}

async fn remove(Path(name): Path<String>, Query(_): Query<HashMap<String, String>>) -> Response {
    if name == "wbe" { show(Path(name)).await } else { StatusCode::NO_CONTENT.into_response() }
}

async fn add_rule(Json(request): Json<Value>) -> Response {
    if request["ports"] == "99999" {
        return error(StatusCode::BAD_REQUEST, "invalid", "99999 is no port: 1 to 65535", "", Some("ports"));
    }
    let mut made =
        rule(4, request["direction"].as_str().unwrap_or_default(), request["ports"].as_str(), "any");
    made["peer"] = request["peer"].clone();
    made["protocol"] = request["protocol"].clone();
    (StatusCode::CREATED, Json(list([made]))).into_response()
}

async fn logs() -> Response {
    let line = |stream: &str, text: &str| {
        json!({"time": "2026-01-01T00:00:00Z", "stream": stream, "text": text}).to_string() + "\n"
    };
    Response::new(Body::from(
        line("stdout", "hello\n") + &line("stderr", "careful\n") + &line("stdout", "no line end"),
    ))
}

fn upgraded() -> Response {
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, PROTOCOL)
        .body(Body::empty())
        .unwrap()
}

/// `fail N` ends with N; `cat` gives its input back; anything else is told on both streams.
async fn exec(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let upgrade = hyper::upgrade::on(Request::from_parts(parts, Body::empty()));
    tokio::spawn(async move {
        let mut wire = Framed::new(TokioIo::new(upgrade.await.unwrap()), FrameCodec);
        let mut code = 0;
        match asked["argv"][0].as_str().unwrap() {
            "cat" => {
                while let Some(Ok(frame)) = wire.next().await {
                    match frame {
                        Frame::Stdin(bytes) if bytes.is_empty() => break,
                        Frame::Stdin(bytes) => wire.send(Frame::Stdout(bytes)).await.unwrap(),
                        Frame::Resize { rows, columns } => {
                            wire.send(Frame::Stdout(format!("{rows}x{columns}\r\n").into())).await.unwrap();
                        }
                        _ => {}
                    }
                }
            }
            "fail" => code = asked["argv"][1].as_str().unwrap().parse().unwrap(),
            _ => {
                wire.send(Frame::Stdout(Bytes::from_static(b"out\n"))).await.unwrap();
                wire.send(Frame::Stderr(Bytes::from(format!("env {}\n", asked["env"])))).await.unwrap();
            }
        }
        wire.send(Frame::Exit(code)).await.unwrap();
    });
    upgraded()
}

/// Greets, and gives back what is typed.
async fn console(mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut wire = TokioIo::new(upgrade.await.unwrap());
        wire.write_all(b"login: ").await.unwrap();
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = wire.read(&mut buffer).await {
            if wire.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    });
    upgraded()
}
