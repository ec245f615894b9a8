//! Access tokens, and who the caller is.

use super::{
    audit::{deed, known, note_as},
    routes::{Doc, Routes},
    scene::Scene,
    types::{
        List,
        token::{CreateToken, CreatedToken, Role as RoleView, Token as View},
        version::{API_VERSION, CallerView, Version},
    },
};
use crate::{
    app::{App, Asker},
    auth::secret,
    error::{Failure, Result},
    request::Input,
};
use axum::{
    Json,
    extract::{Path, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use control::{Role, token::Token};
use jiff::SignedDuration;
use model::{error::Code, name::Name};

/// Longest life of a token that ends, in seconds: ten years.
const LIFETIME_S_MAX: u64 = 10 * 366 * 24 * 3_600;

/// Adds the routes of tokens and of the version.
pub fn routes(routes: Routes) -> Routes {
    let tag = "tokens";
    routes
        .add(
            Method::GET,
            "/v1/tokens",
            tag,
            Doc::new("List")
                .details("Never their secrets.")
                .page::<View>(200, "All that the caller may see."),
            list,
        )
        .add(
            Method::GET,
            "/v1/tokens/{ref}",
            tag,
            Doc::new("Show one").answer::<View>(200, "The token."),
            show,
        )
        .add(
            Method::POST,
            "/v1/tokens",
            tag,
            Doc::new("Make a token for the project")
                .details("Admin only. The secret is told this once.")
                .input::<CreateToken>()
                .answer::<CreatedToken>(201, "Made."),
            create,
        )
        .add(
            Method::DELETE,
            "/v1/tokens/{ref}",
            tag,
            Doc::new("End a token at once").details("Admin only.").empty(204, "Gone."),
            delete,
        )
        .add(
            Method::GET,
            "/v1/version",
            "version",
            Doc::new("What answers here, and who the caller is taken for")
                .answer::<Version>(200, "Versions."),
            version,
        )
}

fn role_view(role: Role) -> RoleView {
    match role {
        Role::Reader => RoleView::Reader,
        Role::Member => RoleView::Member,
        Role::Admin => RoleView::Admin,
    }
}

fn view(token: &Token, scene: &Scene<'_>) -> View {
    View {
        id: token.id.clone(),
        name: token.name.clone(),
        project: scene.project(token.project),
        role: role_view(token.role),
        created_at: token.created_at,
        expires_at: token.expires_at,
    }
}

async fn list(State(app): State<App>, Asker(caller): Asker) -> Result<Json<List<View>>> {
    let scene = Scene::new(app.control(), &caller);
    let mut items: Vec<View> =
        app.control().tokens(&caller).iter().map(|t| view(&t.record, &scene)).collect();
    items.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(Json(List { items, next: None }))
}

/// The token with this name, id or unique beginning of its id.
fn one(app: &App, caller: &control::Caller, reference: &str) -> Result<Token> {
    let all = app.control().tokens(caller);
    let fits: Vec<_> = all
        .iter()
        .filter(|t| t.record.name == reference || reference.len() >= 4 && t.record.id.starts_with(reference))
        .collect();
    match fits.as_slice() {
        [one] => Ok(one.record.clone()),
        [] => Err(Failure::new(Code::NotFound, format!("no token {reference:?}"))
            .hint("`holm token list` shows them")),
        several => {
            Err(Failure::new(Code::Conflict, format!("{} tokens are meant by {reference:?}", several.len()))
                .hint("name it by its id"))
        }
    }
}

async fn show(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
) -> Result<Json<View>> {
    let token = one(&app, &caller, &reference)?;
    Ok(Json(view(&token, &Scene::new(app.control(), &caller))))
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Input(input): Input<CreateToken>,
) -> Result<Response> {
    let name: Name = input.name.parse().map_err(|e| control::Error::invalid("name", e))?;
    if input.lifetime_s.is_some_and(|seconds| seconds == 0 || seconds > LIFETIME_S_MAX) {
        let message = format!("a token lives 1 to {LIFETIME_S_MAX} seconds, or for ever");
        return Err(Failure::new(Code::Invalid, message).field("lifetime_s"));
    }
    let now = app.control().now();
    let lifetime = input.lifetime_s.map(|seconds| SignedDuration::from_secs(seconds.cast_signed()));
    let fresh = secret::make(random_bytes());
    let token = Token {
        id: fresh.id.clone(),
        name: name.to_string(),
        project: caller.project,
        role: match input.role {
            RoleView::Reader => Role::Reader,
            RoleView::Member => Role::Member,
            RoleView::Admin => Role::Admin,
        },
        secret_sha256: fresh.secret_sha256,
        created_at: now,
        expires_at: lifetime
            .map(|lifetime| now.saturating_add(lifetime))
            .transpose()
            .map_err(|_| Failure::new(Code::Invalid, "the token would live too long").field("lifetime_s"))?,
    };
    let outcome = app.control().create_token(&caller, token.clone()).await;
    note_as(&app, &caller, deed("create", "token", &input.name), outcome, known(&token.id, &token.name))
        .await?;
    let created =
        CreatedToken { token: view(&token, &Scene::new(app.control(), &caller)), secret: fresh.text };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

/// Bytes of the operating system's own random source.
fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::TryRngCore::try_fill_bytes(&mut rand::rngs::OsRng, &mut bytes)
        .expect("the kernel gives random bytes, or nothing on this host is safe");
    bytes
}

async fn delete(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
) -> Result<StatusCode> {
    let token = one(&app, &caller, &reference)?;
    let outcome = app.control().delete_token(&caller, &token.id).await;
    note_as(&app, &caller, deed("delete", "token", &reference), outcome, known(&token.id, &token.name))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn version(State(app): State<App>, Asker(caller): Asker) -> Json<Version> {
    let scene = Scene::new(app.control(), &caller);
    Json(Version {
        name: "holm".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        api_versions: vec![API_VERSION.to_string()],
        caller: CallerView {
            actor: caller.actor.clone(),
            role: caller.role.as_str().to_string(),
            project: scene.project(caller.project),
        },
        openstack: app.openstack().filter(|_| caller.role == Role::Admin).cloned(),
        image_server: app.image_server().map(str::to_string),
    })
}
