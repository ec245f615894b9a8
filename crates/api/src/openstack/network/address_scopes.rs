//! `/v2.0/address-scopes`.

use super::{
    attributes::{About as Described, Attributes, wrong},
    head::with_head,
    listing,
    refusal::About,
};
use crate::openstack::{Base, Door, Result, Session, audit::Deed, body::Body, query::Query, shape};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::address_scope::NewAddressScope;
use model::address_scope::AddressScope;
use serde_json::{Value, json};

const ABOUT: About = About::AddressScope;

/// The routes of address scopes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.0/address-scopes", get(list).post(create))
        .route("/v2.0/address-scopes/{id}", get(show).put(update).delete(delete))
}

fn view(scope: &AddressScope) -> Value {
    let rest = json!({ "ip_version": if scope.ipv4 { 4 } else { 6 }, "shared": scope.shared });
    with_head(scope, "scope", &scope.meta.id.short(), rest)
}

async fn list(State(door): State<Door>, session: Session, base: Base, query: Query) -> Result<Json<Value>> {
    let all = listing::all::<AddressScope>(door.control(), &session);
    let views = all.iter().map(|scope| view(&scope.record)).collect();
    listing::reply(views, "address_scopes", &base, &query).map(Json)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let found = listing::one::<AddressScope>(door.control(), &session, ABOUT, &id)?;
    Ok(Json(json!({ "address_scope": shape::fields(view(&found.record), &query) })))
}

async fn create(State(door): State<Door>, session: Session, Body(body): Body<Value>) -> Result<Response> {
    let mut body = Attributes::read(body, "address_scope")?;
    let control = door.control();
    let owner = body.owner(control, &session.caller)?;
    let name = body.text("name")?.unwrap_or_default();
    let version = body.number("ip_version")?.unwrap_or(4);
    let shared = body.flag("shared")?.unwrap_or(false);
    body.finish()?;
    if !matches!(version, 4 | 6) {
        return Err(wrong("ip_version", format!("'{version}' is not in [4, 6]")));
    }
    let new = NewAddressScope { name, ipv4: version == 4, shared, ..NewAddressScope::default() };
    let made = control.create_address_scope(&owner, new).await.map_err(ABOUT.refuse())?;
    let reply = json!({ "address_scope": view(&made) });
    Ok(Deed::new("create", "address_scope", made.meta.id, &made.meta.name)
        .on((StatusCode::CREATED, Json(reply))))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    listing::one::<AddressScope>(control, &session, ABOUT, &id)?;
    let mut body = Attributes::read(body, "address_scope")?;
    let described = Described::take(&mut body)?;
    body.finish()?;
    let edit = |scope: &mut AddressScope| {
        let short = scope.meta.id.short();
        described.apply(&mut scope.meta, "scope", &short)
    };
    let changed = control.change::<AddressScope>(&session.caller, &id, edit).await.map_err(ABOUT.refuse())?;
    let reply = json!({ "address_scope": view(&changed) });
    Ok(Deed::new("update", "address_scope", changed.meta.id, &changed.meta.name).on(Json(reply)))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let control = door.control();
    let found = listing::one::<AddressScope>(control, &session, ABOUT, &id)?;
    let meta = &found.record.meta;
    control.delete_address_scope(&session.caller, &id).await.map_err(ABOUT.refuse())?;
    Ok(Deed::new("delete", "address_scope", meta.id, &meta.name).on(StatusCode::NO_CONTENT))
}
