//! Dockerfiles: what an image is made of, as text that anybody may have written.
//!
//! ```text
//!   text ── lines (directives, comments, continuations, heredocs) ── instructions ── stages
//!                                                                        │
//!                             words: $NAME and quotes, once what they stand for is known ── config of an image
//! ```
//!
//! Everything here is pure: nothing is run, fetched or looked up. What cannot be read is refused with its line and with
//! what to write instead. Source: the Dockerfile reference of docker's documentation.

pub mod config;
mod heredoc;
pub mod ignore;
pub mod instruction;
pub mod lines;
mod pattern;
pub mod progress;
pub mod scope;
pub mod stage;
pub mod words;

pub use instruction::{Instruction, read as read_instruction};
pub use stage::{Dockerfile, Stage, Step};

/// Most bytes of a Dockerfile.
pub const DOCKERFILE_BYTES_MAX: usize = 1 << 20;
/// Most instructions of one Dockerfile, those of triggers not counted.
pub const INSTRUCTIONS_MAX: usize = 1_000;
/// Most stages of one Dockerfile.
pub const STAGES_MAX: usize = 100;
/// Most bytes of one instruction with all its lines and heredocs.
pub const INSTRUCTION_BYTES_MAX: usize = 256 << 10;
/// Most heredocs of one instruction.
pub const HEREDOCS_MAX: usize = 16;
/// Most bytes that a value may grow to when names in it are replaced.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
/// Most bytes that all values of one instruction may grow to.
pub const EXPANDED_BYTES_MAX: usize = 1 << 20;
/// How deep `${A:-${B:-…}}` may go.
pub const NESTING_MAX: usize = 16;

/// Why a Dockerfile cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dockerfile parse error on line {line}: {message}")]
pub struct DockerfileError {
    /// Line of the file, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl DockerfileError {
    /// A fault of one line.
    pub fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into(), hint: String::new() }
    }

    /// The same, with what to write instead.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    /// The same fault on another line.
    #[must_use]
    pub fn at(self, line: u32) -> Self {
        Self { line, ..self }
    }
}

/// What reading gives.
pub type Result<T> = std::result::Result<T, DockerfileError>;
