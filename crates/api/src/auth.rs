//! Who asks: peers of the local socket, and tokens.
//!
//! ```text
//!   a token in the request        -> the token's role in the token's project (admins: in any)
//!   local socket, root or holm    -> admin
//!   local socket, anyone else who may open it (its group) -> the role that is configured for the group
//!   otherwise                     -> unauthenticated
//! ```

pub mod secret;

use crate::error::{Failure, Result};
use axum::http::{HeaderMap, header};
use control::{
    Caller, Control, Proof, Role,
    bootstrap::{ADMIN_PROJECT, DEFAULT_PROJECT},
};
use model::{
    error::Code,
    id::{DomainId, ProjectId},
    project::Project,
};

/// Header that names the project (name or id, percent-encoded).
pub const PROJECT_HEADER: &str = "x-holm-project";

/// Where a request came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The local socket.
    Unix {
        /// User id of the process at the other end.
        uid: u32,
        /// Its process id, 0 if unknown.
        pid: i32,
    },
    /// The network.
    Tcp(std::net::SocketAddr),
}

/// What peers of the local socket may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalAccess {
    /// User id that this process runs as; it and root are admins.
    pub own_uid: u32,
    /// Role of everyone else who may open the socket.
    pub group_role: Role,
}

/// Finds out who asks and for which project.
///
/// # Errors
/// `unauthenticated`, `forbidden` for another project than the token's, `not_found` for the project.
pub fn identify(
    control: &Control,
    local: LocalAccess,
    peer: &Peer,
    headers: &HeaderMap,
    request_id: &str,
) -> Result<Caller> {
    let mut caller = match headers.get(header::AUTHORIZATION) {
        Some(value) => by_token(control, value.to_str().unwrap_or(""))?,
        None => by_peer(control, local, peer)?,
    };
    caller.request_id = request_id.to_string();
    let Some(asked) = headers.get(PROJECT_HEADER) else {
        return Ok(caller);
    };
    let asked = crate::request::unescape(asked.to_str().unwrap_or(""))?;
    // Local members may work in every project but the cloud's own; a token is bound to its project.
    let is_local = matches!(peer, Peer::Unix { .. }) && !headers.contains_key(header::AUTHORIZATION);
    let role = if is_local { Role::Admin } else { caller.role };
    let seer = Caller { role, ..caller.clone() };
    let project = control.find_project(&seer, &asked)?;
    if project.record.meta.name.as_str() == ADMIN_PROJECT {
        caller.require(Role::Admin, "working in the admin project")?;
    }
    caller.project = project.record.meta.id;
    Ok(caller)
}

fn by_peer(control: &Control, local: LocalAccess, peer: &Peer) -> Result<Caller> {
    let Peer::Unix { uid, .. } = peer else {
        return Err(Failure::new(Code::Unauthenticated, "this call needs a token").hint(
            "send the header Authorization: Bearer holm_…; an admin makes tokens with `holm token create`",
        ));
    };
    let (role, actor) = match *uid {
        0 => (Role::Admin, "root (uid 0)".to_string()),
        uid if uid == local.own_uid => (Role::Admin, format!("holm (uid {uid})")),
        uid => (local.group_role, format!("uid {uid}")),
    };
    Ok(Caller {
        project: default_project(control)?,
        role,
        actor,
        request_id: String::new(),
        proof: Proof::Peer,
    })
}

fn default_project(control: &Control) -> Result<ProjectId> {
    // Projects of other domains may be called so too.
    let all = control.store().by_index(&control::schema::by_name::<Project>(), DEFAULT_PROJECT);
    let found = all.iter().find(|p| p.record.domain == DomainId::DEFAULT);
    found.map(|p| p.record.meta.id).ok_or_else(|| {
        Failure::new(Code::NotFound, format!("there is no project {DEFAULT_PROJECT:?}"))
            .hint("name a project with --project")
    })
}

fn by_token(control: &Control, header: &str) -> Result<Caller> {
    let refused = || {
        Failure::new(Code::Unauthenticated, "the token is not valid")
            .hint("it may have expired or been deleted; an admin makes tokens with `holm token create`")
    };
    let (scheme, text) = header.split_once(' ').ok_or_else(refused)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refused().hint("send the header Authorization: Bearer holm_…"));
    }
    let Some((id, secret)) = secret::split(text.trim()) else {
        // A login's session serves every door alike.
        let session = control.session(text.trim()).map_err(|_| refused())?;
        if session.credential.as_ref().is_some_and(|credential| credential.record.access_rules.is_some()) {
            let message = "the application credential is for certain calls of the OpenStack API alone";
            return Err(Failure::new(Code::Forbidden, message).hint("use one without access rules"));
        }
        return session
            .caller("")
            .ok_or_else(|| refused().hint("the login has no project, or no role in it: log in to one"));
    };
    let found = control.token(id);
    // An unknown id costs the same comparison as a known one.
    let kept = found.as_ref().map_or("", |t| t.record.secret_sha256.as_str());
    let right = secret::matches(secret, kept);
    match found {
        Some(token) if right && control.is_at_work(token.record.project) => Ok(Caller {
            project: token.record.project,
            role: token.record.role,
            actor: format!("token {}", token.record.name),
            request_id: String::new(),
            proof: Proof::Token(token.record.id.clone()),
        }),
        _ => Err(refused()),
    }
}
