//! Who may look at and manage identities: domains, users, groups, roles, projects.
//!
//! ```text
//!                          looks                                manages
//!   the cloud              admin, reader of the system          admin
//!   a domain               those, reader of the domain          admin, manager of the domain
//!   oneself                always                               one's own password and application credentials
//! ```
//!
//! A manager of a domain gives the roles manager, member and reader alone, or managing a domain would be running the
//! cloud. For the same reason it leaves users and groups alone that have another role, or one outside of the domain
//! (`Control::refuse_above`): whoever sets a password or joins a group has what that has. A session by an application
//! credential manages no identity unless it is unrestricted.

use crate::{
    Error, Result,
    session::{Place, Session},
};
use model::{
    error::Code,
    id::{DomainId, UserId},
    role::{MANAGER, MEMBER, READER, Role},
};

/// Whose identities a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Realm {
    /// Those of the whole cloud: domains, roles, the system.
    Cloud,
    /// Those of one domain.
    Domain(DomainId),
}

impl Session {
    /// The domain that the session works in itself; not the one of its project.
    fn own_domain(&self) -> Option<DomainId> {
        match &self.place {
            Place::Domain(domain) => Some(domain.record.id),
            _ => None,
        }
    }

    /// The domain that is meant when a call names none: the one that the session works in, its project's, its user's.
    pub fn home_domain(&self) -> DomainId {
        match &self.place {
            Place::Domain(domain) | Place::Project(_, domain) => domain.record.id,
            Place::Unscoped | Place::System => self.domain.record.id,
        }
    }

    /// Whether the holder may look at all of a realm.
    pub fn looks(&self, realm: Realm) -> bool {
        let in_system = matches!(self.place, Place::System) && self.has_role(READER);
        let in_domain = match realm {
            Realm::Cloud => false,
            Realm::Domain(id) => self.own_domain() == Some(id) && self.has_role(READER),
        };
        self.is_admin() || in_system || in_domain
    }

    /// Whether the holder may change a realm.
    pub fn manages(&self, realm: Realm) -> bool {
        let in_domain = match realm {
            Realm::Cloud => false,
            Realm::Domain(id) => self.own_domain() == Some(id) && self.has_role(MANAGER),
        };
        self.is_unrestricted() && (self.is_admin() || in_domain)
    }

    /// Whether the holder may give or take a role in a realm.
    pub fn gives(&self, realm: Realm, role: &Role) -> bool {
        self.is_unrestricted() && self.is_admin() || is_small(role) && self.manages(realm)
    }

    /// Whether the holder is this user.
    pub fn is_user(&self, user: UserId) -> bool {
        self.claims.user == user
    }

    /// Whether it may make and take what acts for its user.
    pub fn is_unrestricted(&self) -> bool {
        self.credential.as_ref().is_none_or(|credential| credential.record.unrestricted)
    }

    /// Lets a call through or refuses it with the name that OpenStack has for it, like `identity:create_user`.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn allow(&self, allowed: bool, rule: &str) -> Result<()> {
        if allowed {
            return Ok(());
        }
        Err(denied(rule))
    }
}

/// Whether a manager of a domain gives the role.
pub(crate) fn is_small(role: &Role) -> bool {
    [MANAGER, MEMBER, READER].contains(&role.name.as_str()) && role.domain.is_none()
}

/// The refusal of a call that the holder may not make.
pub fn denied(rule: &str) -> Error {
    let message = format!("You are not authorized to perform the requested action: {rule}.");
    Error::new(Code::Forbidden, message)
}

/// What Identity says of what is not there. Those who may not look are told that they may not, and learn nothing.
pub fn missing(noun: &str, id: &str) -> Error {
    Error::new(Code::NotFound, format!("Could not find {noun}: {id}."))
}
