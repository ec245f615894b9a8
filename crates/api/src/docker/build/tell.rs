//! What a build says: as lines, which the classic builder's clients show, or as steps, which BuildKit's do.

use crate::docker::buildkit::Progress;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Most lines that a quiet build keeps for the case that it fails.
const HELD_MAX: usize = 10_000;

/// The way to the client.
pub enum Tell {
    /// By lines.
    Lines(Arc<Lines>),
    /// By steps.
    Steps(Progress),
}

/// A way by lines.
pub struct Lines {
    lines: mpsc::Sender<Value>,
    is_quiet: bool,
    held: Mutex<Vec<Value>>,
}

/// Where a program's output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Its standard output.
    Stdout = 1,
    /// Its standard error.
    Stderr = 2,
}

impl Tell {
    /// Tells by these lines; a quiet one only what is asked for at its end.
    pub fn new(lines: mpsc::Sender<Value>, is_quiet: bool) -> Self {
        Self::Lines(Arc::new(Lines { lines, is_quiet, held: Mutex::default() }))
    }

    /// A way for what goes on beside this one.
    #[must_use]
    pub fn beside(&self) -> Self {
        match self {
            Self::Lines(lines) => Self::Lines(Arc::clone(lines)),
            Self::Steps(steps) => Self::Steps(steps.beside()),
        }
    }

    /// Whether steps can be told that go on at the same time: lines come one after the other.
    pub fn is_by_steps(&self) -> bool {
        matches!(self, Self::Steps(_))
    }

    /// A text for who reads lines.
    pub async fn say(&self, text: impl Into<String>) {
        if let Self::Lines(lines) = self {
            lines.line(json!({ "stream": text.into() })).await;
        }
    }

    /// What a program says.
    pub async fn output(&self, from: Output, text: String) {
        match self {
            Self::Lines(_) => self.say(text).await,
            Self::Steps(steps) => steps.log(from as i64, text.into_bytes()).await,
        }
    }

    /// A line that is told whether it is quiet or not.
    pub async fn send(&self, line: Value) {
        if let Self::Lines(lines) = self {
            lines.send(line).await;
        }
    }

    /// The image's id, for programs.
    pub async fn send_aux(&self, id: &str) {
        self.send(json!({ "aux": { "ID": id } })).await;
    }

    /// Where a pull tells how it goes; `None` while nobody is to hear it.
    pub fn lines(&self) -> Option<&mpsc::Sender<Value>> {
        match self {
            Self::Lines(lines) => (!lines.is_quiet).then_some(&lines.lines),
            Self::Steps(_) => None,
        }
    }

    /// A step begins, for who is told steps.
    pub async fn begin(&self, name: impl FnOnce() -> String) {
        if let Self::Steps(steps) = self {
            steps.begin(name()).await;
        }
    }

    /// The step that goes on was done before.
    pub fn cached(&self) {
        if let Self::Steps(steps) = self {
            steps.cached();
        }
    }

    /// The step that goes on has ended well.
    pub async fn end(&self) {
        if let Self::Steps(steps) = self {
            steps.end(None).await;
        }
    }

    /// Something was done in the step that goes on.
    pub async fn done(&self, what: impl Into<String>) {
        if let Self::Steps(steps) = self {
            steps.done(what.into()).await;
        }
    }

    /// Something that people should know, as a step of its own.
    pub async fn warn(&self, text: &str) {
        match self {
            Self::Lines(_) => self.say(format!("[Warning] {text}\n")).await,
            Self::Steps(steps) => {
                steps.begin("[internal] read the options of the build".into()).await;
                steps.warn(text).await;
                steps.end(None).await;
            }
        }
    }

    /// The end of a build that failed.
    pub async fn fail(&self, message: &str, code: Option<i32>) {
        match self {
            Self::Lines(lines) => lines.fail(message, code).await,
            Self::Steps(steps) => steps.fail(message).await,
        }
    }
}

impl Lines {
    async fn line(&self, line: Value) {
        if self.is_quiet {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.len() < HELD_MAX {
                held.push(line);
            }
            return;
        }
        self.send(line).await;
    }

    /// A client that is gone hears nothing.
    async fn send(&self, line: Value) {
        let _ = self.lines.send(line).await;
    }

    async fn fail(&self, message: &str, code: Option<i32>) {
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
