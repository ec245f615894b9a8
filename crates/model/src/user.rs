//! Users: people and programs that log in with a password. Only hashes of passwords are kept.

use crate::{
    id::{DomainId, ProjectId, UserId},
    name::Name,
    record::Record,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest password in bytes. Longer ones are refused, never cut.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Most old passwords that are remembered.
pub const HISTORY_MAX: usize = 24;

/// Someone who logs in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Identity.
    pub id: UserId,
    /// Domain in which the name is unique.
    pub domain: DomainId,
    /// Name to log in with.
    pub name: Name,
    /// Free text.
    #[serde(default)]
    pub description: Option<String>,
    /// Address for mail, as given.
    #[serde(default)]
    pub email: Option<String>,
    /// A disabled user neither logs in nor keeps a session.
    pub enabled: bool,
    /// Project that a login means when it names none.
    #[serde(default)]
    pub default_project: Option<ProjectId>,
    /// Rules that do not hold for this user.
    #[serde(default)]
    pub options: Options,
    /// What else the makers of the user wanted kept with it.
    #[serde(default)]
    pub extra: BTreeMap<String, serde_json::Value>,
    /// The password, if there is one.
    #[serde(default)]
    pub password: Option<Password>,
    /// Hashes of earlier passwords, the newest first.
    #[serde(default)]
    pub history: Vec<String>,
    /// Sessions that began at this time or before have ended.
    #[serde(default)]
    pub sessions_after: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Rules that do not hold for a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Failed logins never lock it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_lockout_failure_attempts: Option<bool>,
    /// It cannot change its own password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_password: Option<bool>,
}

/// A password as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Password {
    /// Hash with its parameters and salt, in the PHC string format.
    pub hash: String,
    /// When it was set.
    pub set_at: Timestamp,
}

impl Record for User {
    const TABLE: &'static str = "user";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl User {
    /// A new enabled user without a password.
    pub fn new(id: UserId, domain: DomainId, name: Name, now: Timestamp) -> Self {
        Self {
            id,
            domain,
            name,
            description: None,
            email: None,
            enabled: true,
            default_project: None,
            options: Options::default(),
            extra: BTreeMap::new(),
            password: None,
            history: vec![],
            sessions_after: None,
            created_at: now,
        }
    }

    /// Whether a session that began at `began` has ended with a change of the user.
    pub fn ended(&self, began: Timestamp) -> bool {
        self.sessions_after.is_some_and(|limit| began <= limit)
    }

    /// Sets a password and moves the one before into the history, of which `remembered` stay.
    pub fn set_password(&mut self, hash: String, now: Timestamp, remembered: usize) {
        if let Some(old) = self.password.take() {
            self.history.insert(0, old.hash);
        }
        self.history.truncate(remembered.min(HISTORY_MAX));
        self.password = Some(Password { hash, set_at: now });
    }
}

/// Failed logins of one user. Its own record, so that attempts contend with nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Who.
    pub user: UserId,
    /// Failures in a row.
    pub count: u32,
    /// The last one.
    pub last: Timestamp,
}

impl Record for Failures {
    const TABLE: &'static str = "login_failure";
    fn key(&self) -> String {
        self.user.to_string()
    }
}

/// When failed logins lock a user out, and which passwords may not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Failures in a row that lock a user; 0 never locks.
    pub lockout_attempts: u32,
    /// How long the lock lasts after the last failure.
    pub lockout_duration: SignedDuration,
    /// How many of the last passwords, the present one included, a user may not choose again.
    pub unique_passwords: usize,
    /// How long a session lasts.
    pub session_lifetime: SignedDuration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            lockout_attempts: 10,
            lockout_duration: SignedDuration::from_secs(60),
            unique_passwords: 1,
            session_lifetime: SignedDuration::from_hours(12),
        }
    }
}

impl Rules {
    /// Whether a user with these failures may not log in now.
    pub fn locks(&self, user: &User, failures: Option<&Failures>, now: Timestamp) -> bool {
        if self.lockout_attempts == 0 || user.options.ignore_lockout_failure_attempts == Some(true) {
            return false;
        }
        failures.is_some_and(|f| {
            f.count >= self.lockout_attempts && now.duration_since(f.last) < self.lockout_duration
        })
    }

    /// The record after one more failure. A lock that ended begins a new count.
    pub fn failed(&self, user: UserId, before: Option<&Failures>, now: Timestamp) -> Failures {
        let count = match before {
            Some(f) if now.duration_since(f.last) < self.lockout_duration => f.count.saturating_add(1),
            Some(f) if f.count < self.lockout_attempts => f.count.saturating_add(1),
            _ => 1,
        };
        Failures { user, count, last: now }
    }

    /// Hashes that a new password must differ from.
    pub fn forbidden<'a>(&self, user: &'a User) -> Vec<&'a str> {
        let now = user.password.iter().map(|p| p.hash.as_str());
        now.chain(user.history.iter().map(String::as_str)).take(self.unique_passwords).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        let id = UserId::from_random([1; 16]);
        User::new(id, DomainId::DEFAULT, "ann".parse().unwrap(), Timestamp::UNIX_EPOCH)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn failures_lock_and_the_lock_ends() {
        let rules =
            Rules { lockout_attempts: 2, lockout_duration: SignedDuration::from_secs(5), ..Rules::default() };
        let mut user = user();
        let first = rules.failed(user.id, None, at(10));
        assert!(!rules.locks(&user, Some(&first), at(10)));
        let second = rules.failed(user.id, Some(&first), at(20));
        assert_eq!(second.count, 2);
        assert!(rules.locks(&user, Some(&second), at(24)) && !rules.locks(&user, Some(&second), at(25)));
        assert_eq!(rules.failed(user.id, Some(&second), at(26)).count, 1);
        assert_eq!(rules.failed(user.id, Some(&second), at(22)).count, 3);
        user.options.ignore_lockout_failure_attempts = Some(true);
        assert!(!rules.locks(&user, Some(&second), at(24)));
        assert!(!Rules { lockout_attempts: 0, ..rules }.locks(&self::user(), Some(&second), at(24)));
    }

    #[test]
    fn old_passwords_are_remembered_as_long_as_asked() {
        let mut user = user();
        let rules = Rules { unique_passwords: 2, ..Rules::default() };
        for (hash, forbidden) in [("a", vec!["a"]), ("b", vec!["b", "a"]), ("c", vec!["c", "b"])] {
            user.set_password(hash.into(), at(0), 2);
            assert_eq!(rules.forbidden(&user), forbidden);
        }
        assert_eq!(user.history, ["b", "a"]);
        assert!(Rules { unique_passwords: 0, ..rules }.forbidden(&user).is_empty());
    }

    #[test]
    fn sessions_end_with_the_time_before_which_they_began() {
        let mut user = user();
        assert!(!user.ended(at(1)));
        user.sessions_after = Some(at(5));
        assert!(user.ended(at(5)) && !user.ended(at(6)));
    }
}
