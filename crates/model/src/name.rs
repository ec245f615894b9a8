//! Names that people give: what is allowed, and a DNS label made of any of them.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Longest name in characters (OpenStack allows 255, so do we).
pub const NAME_CHARS_MAX: usize = 255;

/// A name given by a user: 1 to 255 characters, no control characters. A name that is typed has no space at either end;
/// one that a program of OpenStack's sends is kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name must have at least one character")]
    Empty,
    /// More than [`NAME_CHARS_MAX`] characters.
    #[error("a name has at most {NAME_CHARS_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// A control character or a space at an end.
    #[error("a name cannot contain control characters, nor start or end with a space")]
    Forbidden,
}

impl Name {
    /// The name of a thing that was given none: what it is and the start of its id.
    pub fn made_up(word: &str, short_id: &str) -> Self {
        Self(format!("{word}-{short_id}"))
    }

    /// A name with the spaces that it was written with.
    ///
    /// # Errors
    /// As for a name that is typed, but for spaces at the ends.
    pub fn as_written(text: &str) -> Result<Self, NameError> {
        let chars = text.chars().count();
        if chars == 0 {
            return Err(NameError::Empty);
        }
        if chars > NAME_CHARS_MAX {
            return Err(NameError::TooLong(chars));
        }
        if text.chars().any(char::is_control) {
            return Err(NameError::Forbidden);
        }
        Ok(Self(text.to_string()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = Self::as_written(text)?;
        if text.trim() == text { Ok(name) } else { Err(NameError::Forbidden) }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::as_written(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A DNS label (RFC 1123: letters, digits and dashes, at most 63) made from any name; `fallback` is used when
/// nothing of the name survives.
pub fn dns_label(name: &str, fallback: &str) -> String {
    let mut label = String::with_capacity(name.len().min(63));
    for c in name.chars() {
        if label.len() == 63 {
            break;
        }
        match c {
            'a'..='z' | '0'..='9' => label.push(c),
            'A'..='Z' => label.push(c.to_ascii_lowercase()),
            _ if label.is_empty() || label.ends_with('-') => {}
            _ => label.push('-'),
        }
    }
    let label = label.trim_end_matches('-');
    if label.is_empty() { fallback.to_string() } else { label.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!("web-1".parse::<Name>().is_ok());
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("a".repeat(256).parse::<Name>(), Err(NameError::TooLong(256)));
        assert!("library/httpd:2.4".parse::<Name>().is_ok());
        assert_eq!("a\nb".parse::<Name>(), Err(NameError::Forbidden));
        assert_eq!(" a".parse::<Name>(), Err(NameError::Forbidden));
        let written = Name::as_written(" a ").unwrap();
        assert_eq!(written.as_str(), " a ");
        let stored = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<Name>(&stored).unwrap(), written);
        assert_eq!(Name::as_written("a\tb"), Err(NameError::Forbidden));
    }

    #[test]
    fn labels_are_dns_safe() {
        for (name, label) in
            [("web", "web"), ("My Server_1", "my-server-1"), ("--x--", "x"), ("日本", "i-1"), ("a..b", "a-b")]
        {
            assert_eq!(dns_label(name, "i-1"), label, "{name}");
        }
        assert_eq!(dns_label(&"x".repeat(200), "f").len(), 63);
    }
}
