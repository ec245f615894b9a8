//! Aliases: further names by which the DNS server of a network finds a port there.
//!
//! Several ports of a network may have the same alias: they are then found in turn, which is how the copies of a service
//! share one name. An alias means nothing outside its port's own network.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Most aliases of one port.
pub const ALIASES_MAX: usize = 32;
/// Longest alias in bytes (RFC 1035, section 2.3.4).
pub const ALIAS_BYTES_MAX: usize = 253;
/// Longest part between two dots.
const LABEL_BYTES_MAX: usize = 63;

/// Labels of letters, digits, dashes and underscores with dots between them. It is kept as it was written; case counts
/// for nothing when it is asked for (RFC 4343).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Alias(String);

/// Why a text is no alias.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// More than [`ALIAS_BYTES_MAX`] bytes.
    #[error("an alias has at most {ALIAS_BYTES_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// Something else than labels with dots between them.
    #[error(
        "an alias is made of letters, digits, dashes and underscores, 1 to {LABEL_BYTES_MAX} of them between two dots"
    )]
    Forbidden,
}

impl Alias {
    /// The text, as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether somebody who asks for `name` means this.
    pub fn is_meant(&self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }
}

/// Each alias once, in the order in which it came first.
pub fn distinct(all: impl IntoIterator<Item = Alias>) -> Vec<Alias> {
    let mut kept: Vec<Alias> = vec![];
    for alias in all {
        if !kept.iter().any(|known| known.is_meant(alias.as_str())) {
            kept.push(alias);
        }
    }
    kept
}

impl FromStr for Alias {
    type Err = AliasError;
    fn from_str(text: &str) -> Result<Self, AliasError> {
        if text.len() > ALIAS_BYTES_MAX {
            return Err(AliasError::TooLong(text.chars().count()));
        }
        let fits = |label: &str| {
            (1..=LABEL_BYTES_MAX).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if text.split('.').all(fits) { Ok(Self(text.to_string())) } else { Err(AliasError::Forbidden) }
    }
}

impl TryFrom<String> for Alias {
    type Error = AliasError;
    fn try_from(text: String) -> Result<Self, AliasError> {
        text.parse()
    }
}

impl From<Alias> for String {
    fn from(alias: Alias) -> String {
        alias.0
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_checked() {
        for (text, is_alias) in [
            ("db", true),
            ("My_Shop-web-1", true),
            ("db.example.org", true),
            ("", false),
            (".", false),
            ("db.", false),
            ("a..b", false),
            ("grün", false),
            ("a b", false),
            (&"x".repeat(63), true),
            (&"x".repeat(64), false),
        ] {
            assert_eq!(text.parse::<Alias>().is_ok(), is_alias, "{text:?}");
        }
        let longest = format!("{0}.{0}.{0}.{1}", "x".repeat(63), "y".repeat(61));
        assert_eq!(longest.len(), ALIAS_BYTES_MAX);
        assert!(longest.parse::<Alias>().is_ok());
        assert_eq!(format!("{longest}y").parse::<Alias>(), Err(AliasError::TooLong(ALIAS_BYTES_MAX + 1)));
    }

    #[test]
    fn an_alias_is_had_once_whatever_its_case() {
        let read = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<Alias>>();
        assert_eq!(distinct(read(&["db", "DB", "web", "db"])), read(&["db", "web"]));
        assert!(read(&["Db"])[0].is_meant("dB"));
    }
}
