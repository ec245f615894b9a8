//! What a build says, as the docker command shows it.

use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// Most lines that a quiet build keeps for the case that it fails.
const HELD_MAX: usize = 10_000;

/// The way to the client.
pub struct Tell {
    lines: mpsc::Sender<Value>,
    is_quiet: bool,
    held: Mutex<Vec<Value>>,
}

impl Tell {
    /// Tells by these lines; a quiet one only what is asked for at its end.
    pub fn new(lines: mpsc::Sender<Value>, is_quiet: bool) -> Self {
        Self { lines, is_quiet, held: Mutex::default() }
    }

    /// A text.
    pub async fn say(&self, text: impl Into<String>) {
        self.line(json!({ "stream": text.into() })).await;
    }

    /// A line of another form.
    pub async fn line(&self, line: Value) {
        if self.is_quiet {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.len() < HELD_MAX {
                held.push(line);
            }
            return;
        }
        self.send(line).await;
    }

    /// A line that is told whether it is quiet or not. A client that is gone hears nothing.
    pub async fn send(&self, line: Value) {
        let _ = self.lines.send(line).await;
    }

    /// The image's id, for programs.
    pub async fn send_aux(&self, id: &str) {
        self.send(json!({ "aux": { "ID": id } })).await;
    }

    /// Where a pull tells how it goes; `None` while nobody is to hear it.
    pub fn lines(&self) -> Option<&mpsc::Sender<Value>> {
        (!self.is_quiet).then_some(&self.lines)
    }

    /// The end of a build that failed.
    pub async fn fail(&self, message: &str, code: Option<i32>) {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        for line in held {
            self.send(line).await;
        }
        let detail = match code {
            Some(code) => json!({ "code": code, "message": message }),
            None => json!({ "message": message }),
        };
        self.send(json!({ "errorDetail": detail, "error": message })).await;
    }
}
