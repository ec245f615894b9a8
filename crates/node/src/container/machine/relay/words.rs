//! What a relay passes on for people: ends of logs, what a guest says, errors with their causes.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// Most bytes of logs that are looked at where a guest does not come up.
const TAIL_BYTES: u64 = 2000;

/// The last lines of a file; `None` where it has none.
pub(super) fn tail(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().to_string();
    (!text.is_empty()).then_some(text)
}

/// What a guest says, for people: without what moves a terminal, and not endless.
pub(super) fn readable(text: &str) -> String {
    const CHARS_MAX: usize = 2000;
    let plain = text.chars().map(|it| if it.is_control() && it != '\n' { ' ' } else { it });
    plain.take(CHARS_MAX).collect::<String>().trim().to_string()
}

/// An error with its causes.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
