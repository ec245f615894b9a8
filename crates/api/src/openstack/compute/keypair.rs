//! Keypairs. A private key that the cloud makes is told once, and kept nowhere.

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
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::get,
};
use model::keypair::{KeyKind, Keypair};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/os-keypairs", get(list).post(create))
        .route("/v2.1/os-keypairs/{name}", get(show).delete(delete))
}

fn find(door: &Door, session: &Session, name: &str) -> Result<Arc<Stored<Keypair>>> {
    let missing = || {
        let user = session.user_id();
        Fault::status(StatusCode::NOT_FOUND, format!("Keypair {name} not found for user {user}"))
    };
    let all = door.control().list::<Keypair>(&session.caller);
    all.into_iter().find(|key| key.record.meta.name.as_str() == name).ok_or_else(missing)
}

fn brief(keypair: &Keypair, version: Microversion) -> Value {
    let mut shown = json!({
        "name": keypair.meta.name,
        "public_key": keypair.public_key,
        "fingerprint": keypair.fingerprint,
    });
    if version.has(2, 2) {
        shown["type"] = keypair.kind.as_str().into();
    }
    shown
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
    let all = door.control().list::<Keypair>(&session.caller);
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
) -> Result<Json<Value>> {
    let found = find(&door, &session, &name)?;
    let mut shown = brief(&found.record, version);
    for (key, value) in [
        ("user_id", json!(session.user_id())),
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
    let plain = |c: char| c.is_alphanumeric() || "-_ @.".contains(c);
    if !name.chars().all(plain) {
        let value = json!(name);
        return Err(wrong("name", &value, "a name has letters, digits, spaces and -_@. alone"));
    }
    let kind = match form.text("type")? {
        None | Some("ssh") => KeyKind::Ssh,
        Some("x509") => KeyKind::X509,
        Some(other) => return Err(wrong("type", &json!(other), "it is neither ssh nor x509")),
    };
    if form.text("user_id")?.is_some_and(|user| !crate::openstack::paging::same_id(user, &session.user_id()))
    {
        session.require_admin("os_compute_api:os-keypairs:create")?;
    }
    let given = form.text("public_key")?;
    if given.is_none() && version.has(2, 92) {
        return Err(Fault::invalid("'public_key' is a required property"));
    }
    let (public, private) = match given {
        Some(text) => (text.to_string(), None),
        None => {
            let made = generate::pair(kind, session.user_name(), rand::random())?;
            (made.public, Some(made.private))
        }
    };
    let made = door.control().create_keypair(&session.caller, name, kind, &public).await?;
    let mut shown = brief(&made, version);
    shown["user_id"] = session.user_id().into();
    if let Some(private) = private {
        shown["private_key"] = private.into();
    }
    let status = if version.has(2, 2) { StatusCode::CREATED } else { StatusCode::OK };
    let reply = (status, Json(json!({ "keypair": shown })));
    Ok(Deed::new("create", "keypair", made.meta.id, &made.meta.name).on(reply))
}

async fn delete(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(name): Path<String>,
) -> Result<Response> {
    let found = find(&door, &session, &name)?;
    door.control().delete_keypair(&session.caller, &found.record.meta.id.to_string()).await?;
    let status = if version.has(2, 2) { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED };
    let meta = &found.record.meta;
    Ok(Deed::new("delete", "keypair", meta.id, &meta.name).on(status))
}
