//! Logging in, looking at tokens, ending them; and what the holder of one may choose from.

use super::{catalog, noun::listed, token};
use crate::openstack::{
    audit::Deed,
    base::Base,
    body::Body,
    door::Door,
    fault::{Fault, Result},
    query::Query,
    session::Bearer,
};
use crate::routing::{Router, get, post};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode},
    response::{IntoResponse, Response},
};
use control::{
    access::denied,
    login::{CredentialRef, DomainRef, Proof, Reference, Wanted},
    session::{Place, Session},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Header with the token that a call is about.
const SUBJECT: HeaderName = HeaderName::from_static("x-subject-token");

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/v3/auth/tokens", post(log_in).get(show).delete(end))
        .route("/v3/auth/catalog", get(own_catalog))
        .route("/v3/auth/projects", get(projects))
        .route("/v3/auth/domains", get(domains))
        .route("/v3/auth/system", get(system))
}

#[derive(Debug, Deserialize)]
struct Request {
    auth: Auth,
}

#[derive(Debug, Deserialize)]
struct Auth {
    identity: Identity,
    #[serde(default)]
    scope: Option<ScopeField>,
}

#[derive(Debug, Deserialize)]
struct Identity {
    methods: Vec<String>,
    #[serde(default)]
    password: Option<PasswordField>,
    #[serde(default)]
    token: Option<TokenField>,
    #[serde(default)]
    application_credential: Option<CredentialField>,
}

#[derive(Debug, Deserialize)]
struct PasswordField {
    user: PasswordUser,
}

#[derive(Debug, Deserialize)]
struct PasswordUser {
    #[serde(flatten)]
    named: Named,
    password: String,
}

#[derive(Debug, Deserialize)]
struct TokenField {
    id: String,
}

#[derive(Debug, Deserialize)]
struct CredentialField {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    user: Option<Named>,
    secret: String,
}

/// Somebody or something by id, or by name in a domain.
#[derive(Debug, Deserialize)]
struct Named {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    domain: Option<DomainField>,
}

#[derive(Debug, Deserialize)]
struct DomainField {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ScopeField {
    Word(String),
    Fields(ScopeFields),
}

#[derive(Debug, Deserialize)]
struct ScopeFields {
    #[serde(default)]
    project: Option<Named>,
    #[serde(default)]
    domain: Option<DomainField>,
    #[serde(default)]
    system: Option<Value>,
    #[serde(default)]
    unscoped: Option<Value>,
}

fn incomplete(what: &str) -> Fault {
    Fault::invalid(format!("Expecting to find {what} in the request."))
}

impl DomainField {
    fn reference(self) -> Result<DomainRef> {
        match (self.id, self.name) {
            (Some(id), _) => Ok(DomainRef::Id(id)),
            (None, Some(name)) => Ok(DomainRef::Name(name)),
            (None, None) => Err(incomplete("the id or name of a domain")),
        }
    }
}

impl Named {
    fn reference(self) -> Result<Reference> {
        match (self.id, self.name, self.domain) {
            (Some(id), _, _) => Ok(Reference::Id(id)),
            (None, Some(name), Some(domain)) => Ok(Reference::Name(name, domain.reference()?)),
            _ => Err(incomplete("an id, or a name and a domain")),
        }
    }
}

impl Identity {
    fn proofs(self) -> Result<Vec<Proof>> {
        let (mut password, mut token, mut credential) =
            (self.password, self.token, self.application_credential);
        let proof = |method: &String| match method.as_str() {
            "password" => {
                let user = password.take().ok_or_else(|| incomplete("password"))?.user;
                Ok(Proof::Password(user.named.reference()?, user.password))
            }
            "token" => Ok(Proof::Token(token.take().ok_or_else(|| incomplete("token"))?.id)),
            "application_credential" => {
                let field = credential.take().ok_or_else(|| incomplete("application_credential"))?;
                let reference = match (field.id, field.name, field.user) {
                    (Some(id), _, _) => CredentialRef::Id(id),
                    (None, Some(name), Some(user)) => CredentialRef::Name(name, user.reference()?),
                    _ => return Err(incomplete("an id, or a name and a user")),
                };
                Ok(Proof::ApplicationCredential(reference, field.secret))
            }
            other => {
                let message = format!("Attempted to authenticate with an unsupported method: {other}.");
                Err(Fault::status(StatusCode::UNAUTHORIZED, message))
            }
        };
        self.methods.iter().map(proof).collect()
    }
}

fn wanted(scope: Option<ScopeField>) -> Result<Wanted> {
    let fields = match scope {
        None => return Ok(Wanted::Default),
        Some(ScopeField::Word(word)) if word == "unscoped" => return Ok(Wanted::Unscoped),
        Some(ScopeField::Word(_)) => return Err(incomplete("a scope")),
        Some(ScopeField::Fields(fields)) => fields,
    };
    match fields {
        ScopeFields { project: Some(project), domain: None, system: None, unscoped: None } => {
            Ok(Wanted::Project(project.reference()?))
        }
        ScopeFields { project: None, domain: Some(domain), system: None, unscoped: None } => {
            Ok(Wanted::Domain(domain.reference()?))
        }
        ScopeFields { project: None, domain: None, system: Some(system), unscoped: None } => {
            if system["all"] == json!(true) { Ok(Wanted::System) } else { Err(incomplete("system.all")) }
        }
        ScopeFields { project: None, domain: None, system: None, unscoped: Some(_) } => Ok(Wanted::Unscoped),
        _ => Err(incomplete("one scope: a project, a domain or the system")),
    }
}

async fn log_in(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Body(request): Body<Request>,
) -> Result<Response> {
    let proofs = request.auth.identity.proofs()?;
    let wanted = wanted(request.auth.scope)?;
    let (text, session) = door.control().log_in(&proofs, &wanted).await?;
    tracing::info!(user = %session.user.record.name, scope = ?session.claims.scope, "logged in");
    let body = token::view(&door, &base, &session, query.get("nocatalog").is_none());
    Ok((StatusCode::CREATED, [(SUBJECT, text)], Json(body)).into_response())
}

/// The session that a call is about, for its own user and for those who look at the cloud.
fn subject(door: &Door, asker: &Session, headers: &HeaderMap, rule: &str) -> Result<(String, Session)> {
    let text = headers.get(SUBJECT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let found = door.control().session(text).ok();
    let is_own = found.as_ref().is_some_and(|session| asker.is_user(session.claims.user));
    // Whoever asks for what is not there may know that it is not: a token is its own proof.
    if found.is_some() && !is_own && !asker.looks(control::access::Realm::Cloud) {
        return Err(denied(rule).into());
    }
    let session = found.ok_or_else(|| Fault::status(StatusCode::NOT_FOUND, "Could not find token."))?;
    Ok((text.to_string(), session))
}

async fn show(
    State(door): State<Door>,
    base: Base,
    query: Query,
    headers: HeaderMap,
    Bearer { session: asker, .. }: Bearer,
) -> Result<Response> {
    let (text, session) = subject(&door, &asker, &headers, "identity:validate_token")?;
    let body = token::view(&door, &base, &session, query.get("nocatalog").is_none());
    Ok(([(SUBJECT, text)], Json(body)).into_response())
}

async fn end(
    State(door): State<Door>,
    headers: HeaderMap,
    Bearer { session: asker, .. }: Bearer,
) -> Result<Response> {
    let rule = "identity:revoke_token";
    let (_, session) = subject(&door, &asker, &headers, rule)?;
    asker.allow(asker.is_user(session.claims.user) || asker.is_admin(), rule)?;
    door.control().end_session(&session.claims).await?;
    let deed = Deed::new("delete", "session", hex::encode(session.claims.audit), &session.user.record.name);
    Ok(deed.on(StatusCode::NO_CONTENT))
}

async fn own_catalog(
    State(door): State<Door>,
    base: Base,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    if matches!(session.place, Place::Unscoped) {
        return Err(denied("identity:get_auth_catalog").into());
    }
    let links = json!({ "self": base.link("/v3/auth/catalog") });
    Ok(Json(json!({ "catalog": catalog::view(&door, &base), "links": links })))
}

async fn projects(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let all = door.control().projects_of(session.claims.user);
    listed(all.into_iter().filter(|p| p.record.enabled), &base, &query)
}

async fn domains(
    State(door): State<Door>,
    base: Base,
    query: Query,
    Bearer { session, .. }: Bearer,
) -> Result<Json<Value>> {
    let all = door.control().domains_of(session.claims.user);
    listed(all.into_iter().filter(|d| d.record.enabled), &base, &query)
}

async fn system(State(door): State<Door>, base: Base, Bearer { session, .. }: Bearer) -> Json<Value> {
    let all = door.control().has_system_role(session.claims.user);
    let systems: Vec<Value> = all.then(|| json!({ "all": true })).into_iter().collect();
    Json(json!({ "system": systems, "links": { "self": base.link("/v3/auth/system") } }))
}
