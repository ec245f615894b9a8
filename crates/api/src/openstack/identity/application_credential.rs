//! Application credentials, and the access rules that they have.

use super::listing::{self, list, time};
use crate::openstack::{
    audit::Deed,
    base::Base,
    body::Body,
    door::Door,
    fault::{Fault, Result},
    query::Query,
    session::Bearer,
};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use control::{
    Control,
    access::{denied, missing},
    application_credential::{NewApplicationCredential, RoleRef},
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use model::application_credential::{AccessRule, ApplicationCredential};
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/users/{id}/application_credentials", get(index).post(create))
        .route("/v3/users/{id}/application_credentials/{credential}", get(show).delete(delete))
        .route("/v3/users/{id}/access_rules", get(rules))
        .route("/v3/users/{id}/access_rules/{rule}", get(show_rule).delete(delete_rule))
}

/// An access rule.
pub fn rule(rule: &AccessRule) -> Value {
    json!({ "id": rule.id, "service": rule.service, "method": rule.method, "path": rule.path })
}

/// A credential, without its secret.
fn view(control: &Control, credential: &ApplicationCredential, base: &Base) -> Value {
    let id = credential.id.hex();
    let own = base.link(&format!("/v3/users/{}/application_credentials/{id}", credential.user.hex()));
    let roles = credential.roles.iter().filter_map(|id| control.role(*id));
    let roles: Vec<Value> = roles
        .map(|r| {
            let domain = r.record.domain.map(model::domain::domain_text);
            json!({ "id": r.record.id.hex(), "name": r.record.name, "domain_id": domain })
        })
        .collect();
    let mut view = json!({
        "id": id,
        "name": credential.name,
        "description": credential.description,
        "user_id": credential.user.hex(),
        "project_id": credential.project.hex(),
        "system": null,
        "roles": roles,
        "unrestricted": credential.unrestricted,
        "expires_at": credential.expires_at.map(without_zone),
        "links": { "self": own },
    });
    if let Some(rules) = &credential.access_rules {
        view["access_rules"] = rules.iter().map(rule).collect();
    }
    view
}

/// Keystone writes the end of a credential without the zone, which is UTC.
fn without_zone(at: Timestamp) -> String {
    time(at).trim_end_matches('Z').to_string()
}

fn read_time(text: &str) -> Result<Timestamp> {
    let wrong = || Fault::invalid(format!("{text:?} is no time like 2030-01-31T23:59:59."));
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let at: DateTime = text.parse().map_err(|_| wrong())?;
    TimeZone::UTC.to_timestamp(at).map_err(|_| wrong())
}

#[derive(Debug, Deserialize)]
struct Input {
    application_credential: Fields,
}

#[derive(Debug, Deserialize)]
struct Fields {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    roles: Option<Vec<RoleField>>,
    #[serde(default)]
    unrestricted: Option<bool>,
    #[serde(default)]
    access_rules: Option<Vec<RuleField>>,
}

#[derive(Debug, Deserialize)]
struct RoleField {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

/// A rule, or the id of one that another credential has already.
#[derive(Debug, Deserialize)]
struct RuleField {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    service: Option<String>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    path: Option<String>,
}

impl Fields {
    fn wish(self, known: &[AccessRule]) -> Result<NewApplicationCredential> {
        let role = |field: RoleField| match (field.id, field.name) {
            (Some(id), _) => Ok(RoleRef::Id(id)),
            (None, Some(name)) => Ok(RoleRef::Name(name)),
            (None, None) => Err(Fault::invalid("A role has an id or a name.")),
        };
        let rule = |field: RuleField| match field {
            RuleField { service: Some(service), method: Some(method), path: Some(path), .. } => {
                Ok((service, method, path))
            }
            RuleField { id: Some(id), .. } => {
                let found = known.iter().find(|rule| rule.id == id);
                let found = found.ok_or_else(|| Fault::invalid(format!("There is no access rule {id}.")))?;
                Ok((found.service.clone(), found.method.clone(), found.path.clone()))
            }
            _ => Err(Fault::invalid("An access rule has a service, a method and a path.")),
        };
        let rules = self.access_rules.filter(|rules| !rules.is_empty());
        Ok(NewApplicationCredential {
            name: self.name,
            description: self.description,
            secret: self.secret,
            roles: self.roles.unwrap_or_default().into_iter().map(role).collect::<Result<_>>()?,
            unrestricted: self.unrestricted.unwrap_or(false),
            expires_at: self.expires_at.as_deref().map(read_time).transpose()?,
            access_rules: rules.map(|rules| rules.into_iter().map(rule).collect()).transpose()?,
        })
    }
}

async fn index(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Path(user): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let control = door.control();
    let all = control.application_credentials(&session, &user)?;
    let all = all.iter().map(|c| view(control, &c.record, &base)).collect();
    Ok(Json(list("application_credentials", all, &base, &query)?))
}

async fn show(
    State(door): State<Door>,
    base: Base,
    Path((user, id)): Path<(String, String)>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let found = door.control().application_credential(&session, &user, &id)?;
    Ok(Json(json!({ "application_credential": view(door.control(), &found.record, &base) })))
}

async fn create(
    State(door): State<Door>,
    base: Base,
    Path(user): Path<String>,
    Bearer { session, .. }: Bearer,
    Body(input): Body<Input>,
) -> Result<Response> {
    let control = door.control();
    let known =
        if session.is_user(listing::user(&user)?) { known_rules(control, &session, &user)? } else { vec![] };
    let wish = input.application_credential.wish(&known)?;
    let (made, secret) = control.create_application_credential(&session, &user, wish).await?;
    let mut body = view(control, &made, &base);
    body["secret"] = json!(secret);
    let deed = Deed::new("create", "application_credential", made.id, &made.name);
    Ok(deed.on((StatusCode::CREATED, Json(json!({ "application_credential": body })))))
}

async fn delete(
    State(door): State<Door>,
    Path((user, id)): Path<(String, String)>,
    Bearer { session, .. }: Bearer,
) -> Result<Response> {
    door.control().delete_application_credential(&session, &user, &id).await?;
    Ok(Deed::new("delete", "application_credential", &id, "").on(StatusCode::NO_CONTENT))
}

fn known_rules(control: &Control, asker: &control::session::Session, user: &str) -> Result<Vec<AccessRule>> {
    let all = control.application_credentials(asker, user)?;
    Ok(all.iter().filter_map(|c| c.record.access_rules.clone()).flatten().collect())
}

async fn rules(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Path(user): Path<String>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let all = known_rules(door.control(), &session, &user)?.iter().map(rule).collect();
    Ok(Json(list("access_rules", all, &base, &query)?))
}

async fn show_rule(
    State(door): State<Door>,
    Path((user, id)): Path<(String, String)>,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let all = known_rules(door.control(), &session, &user)?;
    let found =
        all.iter().find(|rule| rule.id == id).ok_or_else(|| Fault::from(missing("access rule", &id)))?;
    Ok(Json(json!({ "access_rule": rule(found) })))
}

/// A rule lives as long as its credential: what is there is in use.
async fn delete_rule(
    State(door): State<Door>,
    Path((user, id)): Path<(String, String)>,
    Bearer { session, .. }: Bearer,
) -> Result<StatusCode> {
    let all = known_rules(door.control(), &session, &user)?;
    if all.iter().all(|rule| rule.id != id) {
        return Err(missing("access rule", &id).into());
    }
    Err(denied("identity:delete_access_rule (the rule is in use by an application credential)").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_with_and_without_a_zone_and_written_without() {
        for text in ["2030-01-31T23:59:59", "2030-01-31T23:59:59.000000", "2030-01-31T23:59:59Z"] {
            assert_eq!(without_zone(read_time(text).unwrap()), "2030-01-31T23:59:59.000000", "{text}");
        }
        assert!(read_time("soon").is_err());
    }
}
