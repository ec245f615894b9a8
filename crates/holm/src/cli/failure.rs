//! How a command fails: what is said on stderr and which exit code is left.
//!
//! ```text
//!   error: no image "debain" in this project
//!   field: image
//!   hint: did you mean "debian"?
//! ```
//! Exit codes come from the code of the error (see `model::error::Code::exit_code`); 2 is also wrong usage, 125 to 127
//! and 128+n are left by programs that ran inside an instance. Must never print twice: [`Failure::tell`] is called
//! once, at the top.

use api::client;
use model::error::Code;
use std::{fmt::Display, io};

/// Why a command ends without success.
#[derive(Debug)]
pub struct Failure {
    /// What failed. Empty: there is nothing to say, only an exit code to leave.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
    /// The field of the request that is wrong.
    pub field: Option<String>,
    /// Id of the request in the server's log, for errors that are the server's fault.
    pub request_id: Option<String>,
    /// Exit code.
    pub exit: u8,
}

/// What commands return.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure of a kind.
    pub fn new(code: Code, message: impl Display) -> Self {
        Self {
            message: message.to_string(),
            hint: String::new(),
            field: None,
            request_id: None,
            exit: code.exit_code(),
        }
    }

    /// Something that was typed is wrong.
    pub fn usage(message: impl Display) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// Only an exit code, as a program inside an instance left it.
    pub fn silent(exit: u8) -> Self {
        Self { exit, ..Self::new(Code::Internal, "") }
    }

    /// A file or stream of this machine broke.
    pub fn local(what: impl Display, error: &io::Error) -> Self {
        Self { exit: 1, ..Self::new(Code::Internal, format!("{what}: {error}")) }
    }

    /// Standard output cannot be written. A reader that went away (`holm ls | head -1`) is no error to talk about.
    pub fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(0);
        }
        Self::local("cannot write the output", error)
    }

    /// The same with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = hint.to_string();
        self
    }

    /// Prints it on stderr, in colour if `colours`.
    pub fn tell(&self, colours: bool) {
        eprint!("{}", self.text(colours));
    }

    /// What [`Self::tell`] prints.
    pub fn text(&self, colours: bool) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let (red, cyan, plain) = if colours { ("\x1b[1;31m", "\x1b[36m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("{red}error:{plain} {}\n", self.message);
        if let Some(field) = &self.field {
            text.push_str(&format!("field: {field}\n"));
        }
        if let Some(id) = &self.request_id {
            text.push_str(&format!("request: {id}\n"));
        }
        for line in self.hint.lines() {
            text.push_str(&format!("{cyan}hint:{plain} {line}\n"));
        }
        text
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let code = error.code();
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            message.push_str(&format!(": {source}"));
        }
        let hint = match &error {
            client::Error::Unreachable { address, source } => unreachable_hint(address, source.kind()),
            other => other.hint(),
        };
        Self {
            message,
            hint,
            field: error.field().map(str::to_string),
            request_id: error.request_id().filter(|_| code == Code::Internal).map(str::to_string),
            exit: code.exit_code(),
        }
    }
}

fn unreachable_hint(address: &str, kind: io::ErrorKind) -> String {
    let is_socket = address.starts_with('/') || !address.contains("://");
    match kind {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused if is_socket => format!(
            "holm does not run here; start it: `sudo systemctl start holm`, or in a terminal `sudo holm serve`\n\
             if it runs elsewhere, name it: `--socket PATH` (now {address}) or `--host https://ADDRESS`"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "{address} may be opened by root and its group only: use `sudo holm ...`, or join the group{}",
            group_of(address).map_or(String::new(), |group| format!(": `sudo usermod -aG {group} $USER`, then log in again"))
        ),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut => {
            "is the address right, does holm listen there (`holm serve --listen`), and does a firewall let you through?".into()
        }
        _ => String::new(),
    }
}

/// Name of the group that owns a socket, if it is not root's.
fn group_of(path: &str) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let gid = std::fs::metadata(path).ok()?.gid();
    if gid == 0 {
        return None;
    }
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid.to_string()).then(|| name.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_nobody_answers_tells_how_to_start_holm() {
        let error = client::Error::Unreachable {
            address: "/run/holm/holm.sock".into(),
            source: io::ErrorKind::NotFound.into(),
        };
        let failure = Failure::from(error);
        assert_eq!(failure.exit, Code::Unavailable.exit_code());
        insta::assert_snapshot!(failure.text(false));
    }

    #[test]
    fn a_gone_reader_is_no_error() {
        let failure = Failure::output(&io::ErrorKind::BrokenPipe.into());
        assert_eq!((failure.text(true).as_str(), failure.exit), ("", 0));
    }
}
