//! Security groups as Nova passed them on up to 2.35, and those of a server.

use super::{form::Form, server::find as find_server};
use crate::openstack::{Door, Fault, Microversion, Result, Session, audit::Deed, body::Body, query::Query};
use crate::routing::{Router, delete, get, post};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::security_group::{NewRule, NewSecurityGroup};
use model::{
    id::{RuleId, SecurityGroupId},
    name::Name,
    security_group::{Direction, Family, Peer, Rule, SecurityGroup},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use store::Stored;

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v2.1/os-security-groups", get(list).post(create))
        .route("/v2.1/os-security-groups/{id}", get(show).put(update).delete(remove))
        .route("/v2.1/os-security-group-rules", post(add_rule))
        .route("/v2.1/os-security-group-rules/{id}", delete(remove_rule))
        .route("/v2.1/servers/{id}/os-security-groups", get(of_server))
}

/// Nova passes groups on no more from 2.36.
fn refuse_new(version: Microversion) -> Result<()> {
    if version.has(2, 36) {
        return Err(Fault::status(StatusCode::NOT_FOUND, "The resource could not be found."));
    }
    Ok(())
}

fn find(door: &Door, session: &Session, id: &str) -> Result<Arc<Stored<SecurityGroup>>> {
    let missing = || Fault::status(StatusCode::NOT_FOUND, format!("Security group {id} could not be found."));
    let parsed = id.parse::<SecurityGroupId>().map_err(|_| missing())?;
    door.control().find::<SecurityGroup>(&session.caller, &parsed.to_string()).map_err(|_| missing())
}

fn rule_view(door: &Door, group: &SecurityGroup, rule: &Rule) -> Value {
    let other = match &rule.peer {
        Peer::Group(id) => door.control().get::<SecurityGroup>(*id),
        _ => None,
    };
    let peer = other.map_or(json!({}), |other| {
        let meta = &other.record.meta;
        json!({ "name": meta.name, "tenant_id": meta.project.hex() })
    });
    let range = match &rule.peer {
        Peer::Net(net) => json!({ "cidr": net }),
        Peer::Any => json!({ "cidr": rule.family.everything() }),
        _ => json!({}),
    };
    let (from, to) = match (&rule.ports, &rule.icmp) {
        (Some(ports), _) => (json!(ports.first), json!(ports.last)),
        (None, Some(icmp)) => (json!(icmp.kind), json!(icmp.code)),
        (None, None) if rule.protocol.is_some() => (json!(-1), json!(-1)),
        (None, None) => (Value::Null, Value::Null),
    };
    json!({
        "id": rule.id,
        "parent_group_id": group.meta.id,
        "ip_protocol": rule.protocol.map(|protocol| protocol.to_string()),
        "from_port": from,
        "to_port": to,
        "group": peer,
        "ip_range": range,
    })
}

/// A group with its rules for what comes in: Nova knew no others.
fn view(door: &Door, group: &SecurityGroup) -> Value {
    let incoming = group.rules.iter().filter(|rule| rule.direction == Direction::Ingress);
    let rules: Vec<Value> = incoming.map(|rule| rule_view(door, group, rule)).collect();
    json!({
        "id": group.meta.id,
        "name": group.meta.name,
        "description": group.meta.description,
        "tenant_id": group.meta.project.hex(),
        "rules": rules,
    })
}

async fn list(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    refuse_new(version)?;
    let mut all = if session.is_admin() && query.flag("all_tenants")?.unwrap_or(false) {
        door.control().list_everywhere::<SecurityGroup>(&session.caller)?
    } else {
        door.control().list::<SecurityGroup>(&session.caller)
    };
    let skip = query.number("offset")?.map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let take = query.number("limit")?.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    all = all.into_iter().skip(skip).take(take).collect();
    let shown: Vec<Value> = all.iter().map(|group| view(&door, &group.record)).collect();
    Ok(Json(json!({ "security_groups": shown })))
}

fn named(form: &Form<'_>) -> Result<(String, String)> {
    form.refuse_others(&["name", "description"])?;
    let name = form.needed("name")?;
    let text = form.raw("description").and_then(Value::as_str).unwrap_or_default();
    for (key, text, least) in [("name", name, 1), ("description", text, 0)] {
        // Spaces around them are kept, and are no name alone.
        if text.trim().chars().count() < least || text.chars().count() > 255 {
            return Err(Fault::invalid(format!("Security group {key} has {least} to 255 characters.")));
        }
    }
    Ok((name.to_string(), text.to_string()))
}

async fn create(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Body(body): Body<Value>,
) -> Result<Response> {
    refuse_new(version)?;
    let (name, description) = named(&Form::under(&body, "security_group")?)?;
    let new = NewSecurityGroup { name, description, ..NewSecurityGroup::default() };
    let made = door.control().create_security_group(&session.caller, &new).await?;
    let shown = json!({ "security_group": view(&door, &made) });
    Ok(Deed::new("create", "security_group", made.meta.id, &made.meta.name).on(Json(shown)))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    refuse_new(version)?;
    let found = find(&door, &session, &id)?;
    Ok(Json(json!({ "security_group": view(&door, &found.record) })))
}

async fn update(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response> {
    refuse_new(version)?;
    let (name, description) = named(&Form::under(&body, "security_group")?)?;
    let found = find(&door, &session, &id)?;
    if found.record.is_default && found.record.meta.name.as_str() != name {
        return Err(Fault::invalid("Unable to update system group 'default'"));
    }
    let id = found.record.meta.id.to_string();
    let rename = |group: &mut SecurityGroup| {
        group.meta.name = Name::as_written(&name).map_err(|e| control::Error::invalid("name", e))?;
        group.meta.description.clone_from(&description);
        Ok(())
    };
    let changed = door.control().change::<SecurityGroup>(&session.caller, &id, rename).await?;
    let shown = json!({ "security_group": view(&door, &changed) });
    Ok(Deed::new("update", "security_group", changed.meta.id, &changed.meta.name).on(Json(shown)))
}

async fn remove(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Response> {
    refuse_new(version)?;
    let found = find(&door, &session, &id)?;
    if found.record.is_default {
        return Err(Fault::invalid("Unable to delete system group 'default'"));
    }
    let group = found.record.meta.id.to_string();
    door.control().delete_security_group(&session.caller, &group).await.map_err(|error| {
        match error.code {
            model::error::Code::InUse => Fault::invalid(error.message),
            _ => error.into(),
        }
    })?;
    let meta = &found.record.meta;
    Ok(Deed::new("delete", "security_group", meta.id, &meta.name).on(StatusCode::ACCEPTED))
}

async fn add_rule(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Body(body): Body<Value>,
) -> Result<Response> {
    refuse_new(version)?;
    let form = Form::under(&body, "security_group_rule")?;
    let parent = find(&door, &session, form.needed("parent_group_id")?)?;
    let peer = form.text("group_id")?;
    if let Some(peer) = peer {
        find(&door, &session, peer)?;
    }
    let protocol = form.text("ip_protocol")?.map(str::to_ascii_lowercase);
    let port = |key: &str| {
        let value = form.get(key);
        value.and_then(|v| v.as_i64().or_else(|| v.as_str().and_then(|text| text.parse().ok())))
    };
    let ports = match (protocol.as_deref(), port("from_port"), port("to_port")) {
        (Some("tcp" | "udp"), Some(from @ 1..), Some(to)) if to >= from => Some(format!("{from}-{to}")),
        (Some("icmp"), _, _) | (None, None, None) => None,
        (protocol, from, to) => {
            let message = format!("Invalid port range {from:?}:{to:?} for {protocol:?}.");
            return Err(Fault::invalid(message));
        }
    };
    let new = NewRule {
        direction: Direction::Ingress,
        family: Some(Family::Ipv4),
        protocol,
        ports,
        icmp: None,
        net: if peer.is_some() { None } else { form.text("cidr")?.map(str::to_string) },
        group: peer.map(str::to_string),
        description: String::new(),
    };
    let group = parent.record.meta.id.to_string();
    let made = door.control().add_rule(&session.caller, &group, new).await?;
    let rule = made.first().ok_or_else(|| Fault::conflict("This rule already exists in group"))?;
    let shown = json!({ "security_group_rule": rule_view(&door, &parent.record, rule) });
    let meta = &parent.record.meta;
    Ok(Deed::new("add_rule", "security_group", meta.id, &meta.name).on(Json(shown)))
}

async fn remove_rule(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Response> {
    refuse_new(version)?;
    let missing =
        || Fault::status(StatusCode::NOT_FOUND, format!("Security group rule {id} could not be found."));
    let rule = id.parse::<RuleId>().map_err(|_| missing())?;
    let groups = door.control().list::<SecurityGroup>(&session.caller);
    let group = groups.iter().find(|g| g.record.rules.iter().any(|r| r.id == rule)).ok_or_else(missing)?;
    let meta = &group.record.meta;
    door.control().remove_rules(&session.caller, &meta.id.to_string(), &[rule]).await?;
    Ok(Deed::new("remove_rule", "security_group", meta.id, &meta.name).on(StatusCode::ACCEPTED))
}

/// Groups on the ports of a server.
async fn of_server(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let found = find_server(&door, &session, &id)?;
    let ports = door.control().ports_of(&found.record.ports);
    let ids: BTreeSet<SecurityGroupId> =
        ports.iter().flat_map(|p| p.security_groups.iter().copied()).collect();
    let groups = ids.into_iter().filter_map(|id| door.control().get::<SecurityGroup>(id));
    let shown: Vec<Value> = groups.map(|group| view(&door, &group.record)).collect();
    Ok(Json(json!({ "security_groups": shown })))
}
