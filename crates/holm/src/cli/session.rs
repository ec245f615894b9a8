//! What a command has at hand: the client, the printer and the terminal's facts.

use super::{
    failure::{Failure, Result},
    output::Printer,
};
use api::client::Client;
use std::io::{IsTerminal, Write};

/// A running command's surroundings.
#[derive(Debug, Clone)]
pub struct Session {
    /// Speaks to holm.
    pub client: Client,
    /// Prints data on stdout.
    pub printer: Printer,
    /// Say nothing on stderr but errors.
    pub quiet: bool,
    /// Standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// Standard input is a terminal.
    pub stdin_is_terminal: bool,
    /// Standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Colours on stderr.
    pub colours: bool,
}

/// Whether colours are wanted on a stream: a terminal, not `TERM=dumb`, and no NO_COLOR (no-color.org).
pub fn colours_on(stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

impl Session {
    /// Says what happened, on stderr.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", text.as_ref());
        }
    }

    /// Says what could be typed next, on stderr, to people only.
    pub fn next(&self, text: impl AsRef<str>) {
        if !self.quiet && self.stderr_is_terminal {
            let (dim, plain) = if self.colours { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
            eprintln!("{dim}next: {}{plain}", text.as_ref());
        }
    }

    /// Says that something deserves attention, on stderr.
    pub fn warn(&self, text: impl AsRef<str>) {
        let (yellow, plain) = if self.colours { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
        eprintln!("{yellow}warning:{plain} {}", text.as_ref());
    }

    /// Asks before something is lost. `yes` is the user's `-y`.
    ///
    /// # Errors
    /// The answer is no, or nobody can be asked.
    pub fn confirm(&self, yes: bool, question: &str) -> Result {
        if yes {
            return Ok(());
        }
        if !self.stdin_is_terminal {
            return Err(
                Failure::usage(format!("{question} Nobody can be asked here")).hint("add -y to say yes")
            );
        }
        eprint!("{question} [y/N] ");
        std::io::stderr().flush().map_err(|e| Failure::output(&e))?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map_err(|e| Failure::local("cannot read the answer", &e))?;
        if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        self.say("nothing was changed");
        Err(Failure::silent(1))
    }
}
