//! `/v2.0/security-groups`.

use super::{
    attributes::{About as Described, Attributes, Bodies},
    head::{self, with_head},
    listing,
    refusal::About,
    security_group_rules::rule_view,
};
use crate::openstack::{Base, Door, Fault, Result, Session, audit::Deed, body::Body, query::Query, shape};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::security_group::NewSecurityGroup;
use model::{error::Code, security_group::SecurityGroup};
use serde_json::{Value, json};

pub(super) const ABOUT: About = About::SecurityGroup;

/// The routes of security groups.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.0/security-groups", get(list).post(create))
        .route("/v2.0/security-groups/{id}", get(show).put(update).delete(delete))
}

fn view(group: &SecurityGroup) -> Value {
    let rules: Vec<Value> = group.rules.iter().map(|rule| rule_view(group, rule)).collect();
    let rest = json!({ "stateful": true, "shared": false, "security_group_rules": rules });
    with_head(group, "group", &group.meta.id.short(), rest)
}

async fn list(State(door): State<Door>, session: Session, base: Base, query: Query) -> Result<Json<Value>> {
    let all = listing::all::<SecurityGroup>(door.control(), &session);
    let views = all.iter().map(|group| view(&group.record)).collect();
    listing::reply(views, "security_groups", &base, &query).map(Json)
}

async fn show(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let found = listing::one::<SecurityGroup>(door.control(), &session, ABOUT, &id)?;
    Ok(Json(json!({ "security_group": shape::fields(view(&found.record), &query) })))
}

/// Every project has one group of that name from its beginning, and no second one.
fn refuse_default(name: &str) -> Result<()> {
    if name != "default" {
        return Ok(());
    }
    Err(Fault::conflict("Default security group already exists.").kind("SecurityGroupDefaultAlreadyExists"))
}

async fn create(State(door): State<Door>, session: Session, Body(body): Body<Value>) -> Result<Response> {
    let mut body = match Bodies::read(body, "security_group", "security_groups")? {
        Bodies::One(body) => body,
        Bodies::Many(_) => return Err(Fault::invalid("Security groups are made one at a time")),
    };
    let control = door.control();
    let owner = body.owner(control, &session.caller)?;
    let name = body.text("name")?.unwrap_or_default();
    let description = body.text("description")?.unwrap_or_default();
    body.only("stateful", &[json!(true)])?;
    body.finish()?;
    refuse_default(&name)?;
    let new = NewSecurityGroup { name, description, ..NewSecurityGroup::default() };
    let made = control.create_security_group(&owner, &new).await.map_err(ABOUT.refuse())?;
    let reply = json!({ "security_group": view(&made) });
    Ok(Deed::new("create", "security_group", made.meta.id, &made.meta.name)
        .on((StatusCode::CREATED, Json(reply))))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    let control = door.control();
    listing::one::<SecurityGroup>(control, &session, ABOUT, &id)?;
    let mut body = Attributes::read(body, "security_group")?;
    let described = Described::take(&mut body)?;
    body.only("stateful", &[json!(true)])?;
    body.finish()?;
    let edit = |group: &mut SecurityGroup| {
        let before = group.meta.name.clone();
        let short = group.meta.id.short();
        described.apply(&mut group.meta, "group", &short)?;
        if group.meta.name != before && (group.is_default || group.meta.name.as_str() == "default") {
            let message = "Updating default security group not allowed.";
            return Err(control::Error::new(Code::Conflict, message).field("name"));
        }
        Ok(())
    };
    let changed = control.change::<SecurityGroup>(&session.caller, &id, edit).await.map_err(|error| {
        let is_name = error.field.as_deref() == Some("name") && error.code == Code::Conflict;
        let fault = ABOUT.refuse()(error);
        if is_name { fault.kind("SecurityGroupCannotUpdateDefault") } else { fault }
    })?;
    let reply = json!({ "security_group": view(&changed) });
    Ok(Deed::new("update", "security_group", changed.meta.id, &changed.meta.name).on(Json(reply)))
}

async fn delete(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Response> {
    let control = door.control();
    let found = listing::one::<SecurityGroup>(control, &session, ABOUT, &id)?;
    let meta = &found.record.meta;
    control.delete_security_group(&session.caller, &id).await.map_err(ABOUT.refuse())?;
    let name = head::name(meta, "group", &meta.id.short());
    Ok(Deed::new("delete", "security_group", meta.id, name).on(StatusCode::NO_CONTENT))
}
