//! Domains: name spaces of users, groups and projects, each with its own managers.

use crate::{id::DomainId, name::Name, record::Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Id of the default domain as OpenStack's tools write it.
pub const DEFAULT_DOMAIN_ID: &str = "default";
/// Name of the default domain.
pub const DEFAULT_DOMAIN_NAME: &str = "Default";

/// A name space of users and projects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Identity.
    pub id: DomainId,
    /// Unique in the cloud.
    pub name: Name,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Nobody of a disabled domain logs in, and nobody works in its projects.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Record for Domain {
    const TABLE: &'static str = "domain";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// A domain's id as OpenStack writes it: `default`, else 32 hex digits.
pub fn domain_text(id: DomainId) -> String {
    if id == DomainId::DEFAULT { DEFAULT_DOMAIN_ID.to_string() } else { id.hex() }
}

/// Reads what [`domain_text`] wrote, and UUIDs.
pub fn parse_domain(text: &str) -> Option<DomainId> {
    if text == DEFAULT_DOMAIN_ID { Some(DomainId::DEFAULT) } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back() {
        let other = DomainId::from_random([7; 16]);
        for id in [DomainId::DEFAULT, other] {
            assert_eq!(parse_domain(&domain_text(id)), Some(id));
        }
        assert_eq!(parse_domain(&other.to_string()), Some(other));
        assert_eq!((domain_text(DomainId::DEFAULT).as_str(), parse_domain("Default")), ("default", None));
    }
}
