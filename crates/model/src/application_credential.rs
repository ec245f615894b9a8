//! Application credentials: secrets that act for a user in one project, with some of the user's roles and, if wished,
//! for some calls alone. A program gets one instead of a password.

use crate::{
    id::{ApplicationCredentialId, ProjectId, RoleId, UserId},
    name::Name,
    record::Record,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most access rules of one credential.
pub const ACCESS_RULES_MAX: usize = 64;
/// Longest path of an access rule in bytes.
pub const RULE_PATH_BYTES_MAX: usize = 1_024;

/// A secret that acts for a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationCredential {
    /// Identity; what a program names to log in.
    pub id: ApplicationCredentialId,
    /// Unique among the user's.
    pub name: Name,
    /// Free text.
    #[serde(default)]
    pub description: Option<String>,
    /// For whom it acts.
    pub user: UserId,
    /// Where it acts.
    pub project: ProjectId,
    /// With which roles; those that the user loses are lost here too.
    pub roles: BTreeSet<RoleId>,
    /// Whether it may make and delete credentials of its user.
    pub unrestricted: bool,
    /// SHA-256 of the secret in hex; the secret is random or, where a user chose it, hashed by the password hash.
    pub secret_hash: String,
    /// The only calls that it may make; none for all.
    #[serde(default)]
    pub access_rules: Option<Vec<AccessRule>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// Calls that a credential may make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    /// Identity, 32 hex digits.
    pub id: String,
    /// Type of the service, like `compute`.
    pub service: String,
    /// Method, like `GET`.
    pub method: String,
    /// Path without its host, like `/v2.1/servers/*`: `*` is one segment, `**` any number, `{name}` one segment.
    pub path: String,
}

impl Record for ApplicationCredential {
    const TABLE: &'static str = "application_credential";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl ApplicationCredential {
    /// Whether it may make this call.
    pub fn allows(&self, service: &str, method: &str, path: &str) -> bool {
        self.access_rules.as_ref().is_none_or(|rules| rules.iter().any(|r| r.allows(service, method, path)))
    }
}

impl AccessRule {
    /// Whether this rule lets the call through.
    pub fn allows(&self, service: &str, method: &str, path: &str) -> bool {
        let pattern: Vec<&str> = self.path.trim_matches('/').split('/').collect();
        let path: Vec<&str> = path.trim_matches('/').split('/').collect();
        self.service == service && self.method.eq_ignore_ascii_case(method) && fits(&pattern, &path)
    }
}

/// Matches by segment, and tries again from the last `**` alone: at most pattern times path steps.
fn fits(pattern: &[&str], path: &[&str]) -> bool {
    let (mut p, mut at, mut again) = (0, 0, None);
    while at < path.len() {
        match pattern.get(p) {
            Some(&"**") => {
                again = Some((p, at));
                p += 1;
            }
            Some(one) if one_fits(one, path[at]) => {
                p += 1;
                at += 1;
            }
            _ => {
                let Some((star, from)) = again else { return false };
                again = Some((star, from + 1));
                (p, at) = (star + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|rest| *rest == "**")
}

fn one_fits(pattern: &str, segment: &str) -> bool {
    let any = pattern == "*" || pattern.starts_with('{') && pattern.ends_with('}');
    any && !segment.is_empty() || pattern == segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_paths_by_segment() {
        for (pattern, path, fits) in [
            ("/v2.1/servers", "/v2.1/servers", true),
            ("/v2.1/servers", "/v2.1/servers/", true),
            ("/v2.1/servers", "/v2.1/servers/1", false),
            ("/v2.1/servers/*", "/v2.1/servers/1", true),
            ("/v2.1/servers/{server_id}", "/v2.1/servers/1", true),
            ("/v2.1/servers/*", "/v2.1/servers/1/ips", false),
            ("/v2.1/servers/**", "/v2.1/servers/1/ips", true),
            ("/**/ips", "/v2.1/servers/1/ips", true),
            ("/**/ips", "/v2.1/servers/1/tags", false),
            ("/v2.1/servers/*", "/v2.1/servers/", false),
            ("/**/a/**/b", "/x/a/y/a/z/b", true),
            ("/**/a/**/b", "/x/a/y/a/z", false),
            ("/**", "/", true),
        ] {
            let rule = AccessRule {
                id: "1".into(),
                service: "compute".into(),
                method: "GET".into(),
                path: pattern.into(),
            };
            assert_eq!(rule.allows("compute", "GET", path), fits, "{pattern} {path}");
            assert!(!rule.allows("compute", "POST", path) && !rule.allows("volume", "GET", path));
        }
    }
}
