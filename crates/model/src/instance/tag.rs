//! Tags: single words hung on an instance, to find it by.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Most tags of one instance.
pub const TAGS_MAX: usize = 50;
/// Longest tag in characters.
pub const TAG_CHARS_MAX: usize = 60;

/// A word without commas and slashes: lists of tags are told with commas, and a tag is a part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

/// Why a text is no tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// Nothing was given.
    #[error("a tag has at least one character")]
    Empty,
    /// More than [`TAG_CHARS_MAX`] characters.
    #[error("a tag has at most {TAG_CHARS_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// A comma, a slash or a control character.
    #[error("a tag has no comma, slash or control character")]
    Forbidden,
}

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = TagError;
    fn from_str(text: &str) -> Result<Self, TagError> {
        match text.chars().count() {
            0 => Err(TagError::Empty),
            chars if chars > TAG_CHARS_MAX => Err(TagError::TooLong(chars)),
            _ if text.contains([',', '/']) || text.chars().any(char::is_control) => Err(TagError::Forbidden),
            _ => Ok(Self(text.to_string())),
        }
    }
}

impl TryFrom<String> for Tag {
    type Error = TagError;
    fn try_from(text: String) -> Result<Self, TagError> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> String {
        tag.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_checked() {
        for (text, wanted) in [
            ("blue", Ok(())),
            ("grün 1", Ok(())),
            ("", Err(TagError::Empty)),
            (&"x".repeat(TAG_CHARS_MAX), Ok(())),
            (&"x".repeat(TAG_CHARS_MAX + 1), Err(TagError::TooLong(TAG_CHARS_MAX + 1))),
            ("a,b", Err(TagError::Forbidden)),
            ("a/b", Err(TagError::Forbidden)),
            ("a\nb", Err(TagError::Forbidden)),
        ] {
            assert_eq!(text.parse::<Tag>().map(|_| ()), wanted, "{text:?}");
        }
    }
}
