//! The one way in which a kernel call fails: what was tried, on which object, and what the kernel said.
//!
//! Modules whose failures carry more than that (a line of an nft script, the stage of a spawn) have an enum of their own
//! and wrap this type. Must never swallow an errno.

use std::fmt::Display;
use std::io;

/// The result of a kernel operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A kernel operation that failed. `Display` names the operation and the object; the errno is the source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}{}", explained(.explanation))]
pub struct Error {
    /// What was tried, as a verb: "mount", "add route".
    pub operation: &'static str,
    /// On what: a path, a device, an address.
    pub object: String,
    /// What the kernel said beside the errno (netlink's extended acknowledgement).
    pub explanation: Option<String>,
    /// The errno.
    #[source]
    pub source: io::Error,
}

fn explained(explanation: &Option<String>) -> String {
    explanation.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

impl Error {
    /// An error of `operation` on `object`.
    pub fn new(operation: &'static str, object: impl Display, source: impl Into<io::Error>) -> Error {
        Error { operation, object: object.to_string(), explanation: None, source: source.into() }
    }

    /// An input that could never succeed, refused before the kernel saw it.
    pub(crate) fn invalid(operation: &'static str, object: impl Display, why: &str) -> Error {
        Error::new(operation, object, io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()))
    }

    /// The error of the system call that just failed in this thread.
    pub(crate) fn last(operation: &'static str, object: impl Display) -> Error {
        Error::new(operation, object, io::Error::last_os_error())
    }

    /// The errno, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// The portable kind of the error.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let text = format!("{error}: {}", error.source);
        io::Error::new(error.kind(), text)
    }
}

/// Adds operation and object to an error of the standard library or of `nix`.
pub(crate) trait Context<T> {
    /// Names what failed.
    fn context(self, operation: &'static str, object: impl Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: &'static str, object: impl Display) -> Result<T> {
        self.map_err(|source| Error::new(operation, object, source))
    }
}

/// Turns the `-1` of a raw system call into an error.
pub(crate) fn check(
    operation: &'static str,
    object: impl Display,
    result: libc::c_long,
) -> Result<libc::c_long> {
    if result < 0 { Err(Error::last(operation, object)) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_operation_and_object_and_the_source_is_the_errno() {
        let error = Error::new("mount", "/x", io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(error.to_string(), "cannot mount /x");
        assert_eq!(error.errno(), Some(libc::ENOENT));
        let error = Error { explanation: Some("Device not found".into()), ..error };
        assert_eq!(error.to_string(), "cannot mount /x (Device not found)");
        let plain = io::Error::from(error);
        assert_eq!(plain.kind(), io::ErrorKind::NotFound);
        assert!(plain.to_string().contains("No such file"), "{plain}");
    }
}
