//! The command line as people and programs meet it: the real binary against a server that answers canned JSON.
//!
//! Golden files under `snapshots/` are transcripts: what was typed, what came on stdout and stderr, and the exit code.

mod fake;
mod streams;
mod transcripts;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// The program with nothing of the tester's own environment that it would listen to.
pub fn holm(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holm"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOLM_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("COMPLETE")
        .env("COLUMNS", "100")
        .env("HOLM_SOCKET", socket)
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// What was typed and what came of it, in one text.
pub fn transcript(socket: &Path, arguments: &[&str]) -> String {
    let output = holm(socket, arguments).output().expect("the binary was built with the tests");
    let place = socket.display().to_string();
    let text =
        told(arguments, &output).replace(&place, "SOCKET").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    without_days(&text)
}

/// Golden files do not grow older: `(324d ago)` becomes `(DAYS ago)`.
fn without_days(text: &str) -> String {
    let mut parts = text.split("d ago)");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        out.truncate(out.trim_end_matches(|c: char| c.is_ascii_digit()).len());
        out.push_str("DAYS ago)");
        out.push_str(part);
    }
    out
}

fn told(arguments: &[&str], output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut text = format!("$ holm {}\n{stdout}", arguments.join(" "));
    for line in stderr.lines() {
        text.push_str(&format!("stderr| {line}\n"));
    }
    match output.status.code() {
        Some(0) => text,
        Some(code) => text + &format!("[exit {code}]\n"),
        None => text + "[killed]\n",
    }
}
