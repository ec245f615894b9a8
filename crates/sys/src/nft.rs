//! Packet filter rules: a script goes into a network namespace as one transaction, whole or not at all.
//!
//! The `nft` program is the one stable interface to all of nftables; it runs as a child of a thread that is inside the
//! namespace. Only elements that come and go are spoken of with the kernel itself. Must never be given text that a user wrote: callers compile scripts from parsed values.

mod element;
mod standby;

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Context, Error};
use crate::netns::NetNs;

pub use element::{ElementChange, Elements};
pub use standby::{HeldRuns, Standby};

/// Where nft is looked for beside the directories of `PATH`, in which a user's shell may not have it.
const DIRECTORIES: &str = "/usr/local/sbin:/usr/sbin:/sbin";
/// Longer texts of nft are cut: one wrong line of a large set would repeat the whole set.
const MESSAGE_SIZE_BYTES_MAX: usize = 4096;

/// Why a script was not applied. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// nft refused the script.
    #[error("nft refused the rules: {message}{}", place(*.line, .text))]
    Refused {
        /// nft's own words.
        message: String,
        /// The line of the script that they speak of, counted from 1.
        line: Option<usize>,
        /// That line.
        text: Option<String>,
    },
    /// The program is missing.
    #[error("the program nft is missing: install the package nftables")]
    Missing,
    /// It could not be run.
    #[error(transparent)]
    System(#[from] Error),
}

fn place(line: Option<usize>, text: &Option<String>) -> String {
    match (line, text) {
        (Some(line), Some(text)) => format!(" (line {line}: {text})"),
        _ => String::new(),
    }
}

/// Applies a script inside the namespace: all of it, or nothing and an error.
pub fn apply(namespace: &NetNs, script: &str) -> Result<(), NftError> {
    run(namespace, &["-f", "-"], script).map(drop)
}

/// Checks a script inside the namespace without applying it.
pub fn check(namespace: &NetNs, script: &str) -> Result<(), NftError> {
    run(namespace, &["-c", "-f", "-"], script).map(drop)
}

/// The table `family name` ("inet holm") as nft's JSON. For tests and diagnosis only: rules are written from intent and
/// never read back to decide what to write.
pub fn list_json(namespace: &NetNs, table: &str) -> Result<serde_json::Value, NftError> {
    let mut arguments = vec!["-j", "list", "table"];
    arguments.extend(table.split_whitespace());
    let output = run(namespace, &arguments, "")?;
    let broken =
        |error| Error::new("read nft's list of", table, io::Error::new(io::ErrorKind::InvalidData, error));
    Ok(serde_json::from_slice(&output).map_err(broken)?)
}

fn run(namespace: &NetNs, arguments: &[&str], script: &str) -> Result<Vec<u8>, NftError> {
    let input = script_file(script)?;
    let output = namespace
        .run(|| {
            Command::new(program())
                .args(arguments)
                .stdin(input)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .output()
        })
        .context("run nft in", namespace.name().display())?;
    judge(output, namespace, script)
}

/// What nft printed, or why it did not do as it was told.
fn judge(output: io::Result<Output>, namespace: &NetNs, script: &str) -> Result<Vec<u8>, NftError> {
    match output {
        Ok(Output { status, stdout, .. }) if status.success() => Ok(stdout),
        Ok(output) => {
            Err(refusal(&String::from_utf8_lossy(&output.stderr), &output.status.to_string(), script))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NftError::Missing),
        Err(error) => Err(Error::new("run nft in", namespace.name().display(), error).into()),
    }
}

/// Where nft is: looked for once, since a search costs each run as many failed calls as `PATH` has directories before it.
/// What is not found is left to be found later, by its name.
fn program() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return found;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(DIRECTORIES.split(':')).filter(|part| part.starts_with('/'));
    match directories.map(|directory| Path::new(directory).join("nft")).find(|file| file.is_file()) {
        Some(file) => FOUND.get_or_init(|| file),
        None => Path::new("nft"),
    }
}

/// The script in memory that reads like a file: no pipe that could fill up while nft writes its complaints.
fn script_file(script: &str) -> Result<File, Error> {
    let descriptor = memfd_create(c"nft-script", MFdFlags::MFD_CLOEXEC).context("create", "file for nft")?;
    let mut file = File::from(descriptor);
    file.write_all(script.as_bytes()).context("write", "file for nft")?;
    file.seek(SeekFrom::Start(0)).context("rewind", "file for nft")?;
    Ok(file)
}

/// nft writes `/dev/stdin:3:5-9: Error: syntax error, unexpected foo`, then the line, then marks under it.
fn refusal(stderr: &str, status: &str, script: &str) -> NftError {
    let first = stderr.lines().find(|line| line.contains("rror")).or(stderr.lines().next()).unwrap_or(status);
    let mut parts = first.splitn(3, ':');
    let line = parts.nth(1).and_then(|number| number.parse::<usize>().ok());
    let message = match (line, parts.next()) {
        (Some(_), Some(rest)) => rest.split_once(": ").map_or(rest, |(_, message)| message),
        _ => first,
    };
    let text = line.and_then(|line| script.lines().nth(line.checked_sub(1)?)).map(|text| cut(text.trim()));
    NftError::Refused { message: cut(message), line, text }
}

fn cut(text: &str) -> String {
    let end = (0..=text.len().min(MESSAGE_SIZE_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_line_and_repeats_it() {
        let stderr = "/dev/stdin:2:7-9: Error: syntax error, unexpected foo\n  add foo\n      ^^^\n";
        let error = refusal(stderr, "exit status: 1", "one\n  add foo\n");
        let NftError::Refused { message, line, text } = &error else { panic!("{error:?}") };
        assert_eq!(message, "Error: syntax error, unexpected foo");
        assert_eq!((*line, text.as_deref()), (Some(2), Some("add foo")));
        let NftError::Refused { message, line, .. } = refusal("", "signal: 9", "") else { panic!() };
        assert_eq!((message.as_str(), line), ("signal: 9", None));
    }
}
