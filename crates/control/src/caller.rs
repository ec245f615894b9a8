//! Who asks, for which project, and what their role lets them do.

use crate::{
    error::{Error, Result},
    session::Claims,
};
use model::{error::Code, id::ProjectId, image::Reach};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Roles, each with all that the ones below it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Reader,
    /// Makes, changes and removes what belongs to the project.
    Member,
    /// Runs the cloud: every project, flavors, quotas, public images, external networks, nodes.
    Admin,
}

impl Role {
    /// Name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }
}

/// The one who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Project on whose behalf.
    pub project: ProjectId,
    /// Role there.
    pub role: Role,
    /// Who, for the record: `root (uid 0)`, `token ci`.
    pub actor: String,
    /// Id of the request.
    pub request_id: String,
    /// How that is known: what is asked again while a stream of the caller's lasts.
    pub proof: Proof,
}

/// How somebody is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Proof {
    /// A peer of a local socket, or holm itself: nothing that could be taken back while a stream lasts.
    #[default]
    Peer,
    /// A token, by its public part.
    Token(String),
    /// A session.
    Session(Arc<Claims>),
}

impl Caller {
    /// Refuses callers below `role`.
    ///
    /// # Errors
    /// `forbidden`, with the role that is missing.
    pub fn require(&self, role: Role, action: &str) -> Result<()> {
        if self.role >= role {
            return Ok(());
        }
        let message =
            format!("{action} needs the role {}; {} has {}", role.as_str(), self.actor, self.role.as_str());
        Err(Error::new(Code::Forbidden, message).hint("ask an admin for a token with that role"))
    }

    /// Where the registries may be that are asked for this caller.
    pub fn reach(&self) -> Reach {
        if self.role == Role::Admin { Reach::Anywhere } else { Reach::Public }
    }

    /// Whether a record of `project` may be seen.
    pub fn sees(&self, project: ProjectId) -> bool {
        self.role == Role::Admin || self.project == project
    }
}
