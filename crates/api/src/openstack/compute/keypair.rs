//! Keypairs: a user's own, in every project. A private key that the cloud makes is told once, and kept nowhere.

mod generate;

use super::form::{Form, wrong};
use crate::openstack::{
    Base, Door, Fault, Microversion, Result, Session,
    audit::Deed,
    body::Body,
    compute::server::view::micros,
    paging::{LIMIT_MAX, Page},
    query::Query,
};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use control::keypair::NewKeypair;
use md5::{Digest, Md5};
use model::{
    error::Code,
    id::UserId,
    keypair::{KeyKind, Keypair},
};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/os-keypairs", get(list).post(create))
        .route("/v2.1/os-keypairs/{name}", get(show).delete(delete))
}

/// The user whose keys a call is about: the one who asks, or one whom an admin names (from 2.10).
fn user_asked(session: &Session, version: Microversion, named: Option<&str>, rule: &str) -> Result<UserId> {
    let own = session.user.record.id;
    let Some(text) = named.filter(|_| version.has(2, 10)) else { return Ok(own) };
    let user = text.parse().map_err(|_| wrong("user_id", &json!(text), "it is no id of a user"))?;
    if user != own {
        session.require_admin(&format!("os_compute_api:os-keypairs:{rule}"))?;
    }
    Ok(user)
}

/// What a user has. The project's keys, which the native door makes, are for everyone in it.
fn all(door: &Door, session: &Session, user: UserId) -> Vec<Arc<Stored<Keypair>>> {
    if user == session.user.record.id {
        door.control().keypairs_for(&session.caller, user)
    } else {
        door.control().keypairs_of(user)
    }
}

fn find(door: &Door, session: &Session, user: UserId, name: &str) -> Result<Arc<Stored<Keypair>>> {
    let missing = || {
        let user = user.hex();
        Fault::status(StatusCode::NOT_FOUND, format!("Keypair {name} not found for user {user}"))
    };
    let mut all = all(door, session, user).into_iter();
    all.find(|key| key.record.meta.name.as_str() == name).ok_or_else(missing)
}

/// The id of the key that a user means by a name: its own or the project's.
pub fn named(door: &Door, session: &Session, name: &str) -> Result<String> {
    let found = find(door, session, session.user.record.id, name);
    let found = found.map_err(|_| Fault::invalid("Invalid key_name provided."))?;
    Ok(found.record.meta.id.to_string())
}

fn brief(keypair: &Keypair, version: Microversion) -> Value {
    let mut shown = json!({
        "name": keypair.meta.name,
        "public_key": keypair.public_key,
        "fingerprint": fingerprint(keypair),
    });
    if version.has(2, 2) {
        shown["type"] = keypair.kind.as_str().into();
    }
    shown
}

/// The fingerprint as Nova's clients compare it: MD5 for SSH keys (RFC 4716, section 4), as `ssh-keygen -l -E md5` prints
/// it. holm's own has SHA256.
fn fingerprint(keypair: &Keypair) -> String {
    let data = keypair.public_key.split_whitespace().nth(1).and_then(|text| STANDARD.decode(text).ok());
    match (keypair.kind, data) {
        (KeyKind::Ssh, Some(data)) => {
            let pairs: Vec<String> = Md5::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
            pairs.join(":")
        }
        _ => keypair.fingerprint.clone(),
    }
}

/// A number for a key, as Nova has them: the same for the same key.
fn number(keypair: &Keypair) -> u32 {
    let digits = keypair.meta.id.to_string();
    u32::from_str_radix(&digits[..8], 16).unwrap_or(0) & 0x7fff_ffff
}

async fn list(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    base: Base,
    query: Query,
) -> Result<Json<Value>> {
    let user = user_asked(&session, version, query.get("user_id"), "index")?;
    let all = all(&door, &session, user);
    let view = |key: &Arc<Stored<Keypair>>| json!({ "keypair": brief(&key.record, version) });
    if !version.has(2, 35) {
        return Ok(Json(json!({ "keypairs": all.iter().map(view).collect::<Vec<_>>() })));
    }
    let page = Page::cut(all, &query, LIMIT_MAX, |key| key.record.meta.name.to_string())?;
    let mut reply = json!({ "keypairs": page.items.iter().map(view).collect::<Vec<_>>() });
    let links = page.links(&base, &query);
    if !links.is_empty() {
        reply["keypairs_links"] = links.into();
    }
    Ok(Json(reply))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(name): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let user = user_asked(&session, version, query.get("user_id"), "show")?;
    let found = find(&door, &session, user, &name)?;
    let mut shown = brief(&found.record, version);
    for (key, value) in [
        ("user_id", json!(found.record.user.unwrap_or(user).hex())),
        ("id", json!(number(&found.record))),
        ("created_at", json!(micros(found.record.meta.created_at))),
        ("updated_at", Value::Null),
        ("deleted", json!(false)),
        ("deleted_at", Value::Null),
    ] {
        shown[key] = value;
    }
    Ok(Json(json!({ "keypair": shown })))
}

async fn create(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Body(body): Body<Value>,
) -> Result<Response> {
    let form = Form::under(&body, "keypair")?;
    let mut known = vec!["name", "public_key"];
    if version.has(2, 2) {
        known.push("type");
    }
    if version.has(2, 10) {
        known.push("user_id");
    }
    form.refuse_others(&known)?;
    let name = form.name("name")?.ok_or_else(|| Fault::invalid("'name' is a required property"))?;
    check_name(name, version)?;
    let kind = match form.text("type")? {
        None | Some("ssh") => KeyKind::Ssh,
        Some("x509") => KeyKind::X509,
        Some(other) => return Err(wrong("type", &json!(other), "it is neither ssh nor x509")),
    };
    let user = user_asked(&session, version, form.text("user_id")?, "create")?;
    let given = form.text("public_key")?;
    if given.is_none() && version.has(2, 92) {
        return Err(Fault::invalid("'public_key' is a required property"));
    }
    let (public, private) = match given {
        Some(text) => (text.to_string(), None),
        None => {
            let made = generate::pair(kind, &door.control().user_name(user), rand::random())?;
            (made.public, Some(made.private))
        }
    };
    let new = NewKeypair { name: name.to_string(), kind, public_key: public, user: Some(user) };
    let made = door.control().add_keypair(&session.caller, new).await.map_err(|error| match error.code {
        Code::Taken => Fault::conflict(format!("Key pair '{name}' already exists.")),
        Code::NotFound => Fault::invalid(error.message),
        _ => error.into(),
    })?;
    let mut shown = brief(&made, version);
    shown["user_id"] = user.hex().into();
    if let Some(private) = private {
        shown["private_key"] = private.into();
    }
    let status = if version.has(2, 2) { StatusCode::CREATED } else { StatusCode::OK };
    let reply = (status, Json(json!({ "keypair": shown })));
    Ok(Deed::new("create", "keypair", made.meta.id, &made.meta.name).on(reply))
}

/// Nova lets names have more characters from 2.92 on.
fn check_name(name: &str, version: Microversion) -> Result<()> {
    let more = if version.has(2, 92) { "@." } else { "" };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_ ".contains(c) || more.contains(c);
    if name.chars().all(plain) {
        return Ok(());
    }
    let why = format!("a name has letters, digits, spaces and -_{more} alone");
    Err(wrong("name", &json!(name), &why))
}

async fn delete(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let user = user_asked(&session, version, query.get("user_id"), "delete")?;
    let found = find(&door, &session, user, &name)?;
    let id = found.record.meta.id.to_string();
    door.control().delete_keypair(&session.caller, Some(user), &id).await?;
    let status = if version.has(2, 2) { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED };
    let meta = &found.record.meta;
    Ok(Deed::new("delete", "keypair", meta.id, &meta.name).on(status))
}
