//! What the door tells while it pulls, pushes and loads: lines of JSON, shown as docker shows them.
//!
//! On a terminal each part has a line of its own that is written over; elsewhere only what has changed is told.

use crate::cli::{
    failure::{Failure, Result},
    output,
    session::Session,
    wait::bar,
};
use api::client::DockerLines;
use model::error::Code;
use serde_json::Value;

/// Lines that may be written over.
const PARTS_MAX: usize = 512;

/// Shows lines to their end; gives the `aux` values that came between them.
///
/// # Errors
/// What the door says went wrong.
pub async fn show(session: &Session, mut lines: DockerLines) -> Result<Vec<Value>> {
    let mut screen =
        Screen { is_terminal: session.stdout_is_terminal, is_quiet: session.quiet, parts: vec![] };
    let mut told = vec![];
    while let Some(line) = lines.next().await? {
        if let Some(message) = line["error"].as_str() {
            let is_denied = message.contains("denied") || message.contains("unauthorized");
            let code = if is_denied { Code::Forbidden } else { Code::Conflict };
            return Err(Failure::new(code, message));
        }
        if !line["aux"].is_null() {
            told.push(line["aux"].clone());
        }
        screen.tell(&line)?;
    }
    Ok(told)
}

struct Screen {
    is_terminal: bool,
    is_quiet: bool,
    parts: Vec<String>,
}

impl Screen {
    fn tell(&mut self, line: &Value) -> Result {
        if self.is_quiet {
            return Ok(());
        }
        if let Some(text) = line["stream"].as_str() {
            return output::write(text.as_bytes());
        }
        let Some(status) = line["status"].as_str() else { return Ok(()) };
        let Some(id) = line["id"].as_str().filter(|id| !id.is_empty()) else {
            self.parts.clear();
            return output::write(format!("{status}\n").as_bytes());
        };
        let progress = &line["progressDetail"];
        let (done, total) = (progress["current"].as_u64(), progress["total"].as_u64());
        if !self.is_terminal {
            // A bar is for eyes.
            return match total {
                Some(_) => Ok(()),
                None => output::write(format!("{id}: {status}\n").as_bytes()),
            };
        }
        let size = |bytes: u64| super::words::size(bytes as f64, 4);
        let text = match done.zip(total.filter(|total| *total > 0)) {
            Some((done, total)) => {
                format!("{id}: {status} {} {}/{}", bar(done, total), size(done), size(total))
            }
            None => format!("{id}: {status}"),
        };
        self.write_over(id, &text)
    }

    /// Writes a part's line over its last one.
    fn write_over(&mut self, id: &str, text: &str) -> Result {
        let place = self.parts.iter().position(|part| part == id);
        let Some(place) = place else {
            if self.parts.len() < PARTS_MAX {
                self.parts.push(id.to_string());
            }
            return output::write(format!("{text}\n").as_bytes());
        };
        let up = self.parts.len() - place;
        output::write(format!("\x1b[{up}A\x1b[2K\r{text}\x1b[{up}B\r").as_bytes())
    }
}
