//! The one error of every door: a code for programs, a message for people, a hint that says the way out, and the
//! field that was wrong.

use model::error::Code;
use std::fmt::Display;

/// A refusal or failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Kind.
    pub code: Code,
    /// What was refused or failed.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// The input that was wrong, as the API names it.
    pub field: Option<String>,
}

impl Error {
    /// An error without hint or field.
    pub fn new(code: Code, message: impl Display) -> Self {
        Self { code, message: message.to_string(), hint: String::new(), field: None }
    }

    /// A wrong value of `field`.
    pub fn invalid(field: &str, message: impl Display) -> Self {
        Self::new(Code::Invalid, message).field(field)
    }

    /// The same with the field that was wrong.
    pub fn field(mut self, field: &str) -> Self {
        self.field = Some(field.to_string());
        self
    }

    /// The same with what to do about it.
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = hint.to_string();
        self
    }
}

/// What every action gives.
pub type Result<T> = std::result::Result<T, Error>;
