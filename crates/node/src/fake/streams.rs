//! Streams of fake guests: a console that echoes, a log that was put there, and four programs.

use crate::driver::{DriverError, ExecHandle, ExecRequest, LogLine, LogQuery, Stdio, Stream};
use async_trait::async_trait;
use std::{
    fs::File,
    io::{self, Write},
};
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, watch},
};

/// Signals end a program with 128 and their number.
const SIGNAL_BASE: i32 = 128;

fn io_error(operation: &str) -> impl FnOnce(io::Error) -> DriverError {
    let operation = operation.to_string();
    move |source| DriverError::Io { operation, source }
}

/// A console that answers what it is sent. It ends when the caller closes.
pub fn echo() -> Result<Stream, DriverError> {
    let (ours, theirs) = Stream::pair().map_err(io_error("open a console"))?;
    tokio::spawn(async move {
        let (mut read, mut write) = ours.into_split();
        // Either end may go away at any time; that is how consoles end.
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    });
    Ok(theirs)
}

/// The part of a log that was asked for.
pub fn chosen(mut lines: Vec<LogLine>, query: &LogQuery) -> Vec<LogLine> {
    lines.retain(|line| query.since_ms.is_none_or(|since| line.time_ns / 1_000_000 >= since));
    let drop = query.tail_lines.map_or(0, |n| lines.len().saturating_sub(n));
    lines.split_off(drop)
}

/// Lines through a channel that ends behind the last.
pub fn send(lines: Vec<LogLine>) -> mpsc::Receiver<LogLine> {
    let (sender, receiver) = mpsc::channel(lines.len().max(1));
    for line in lines {
        // There is room for all.
        let _ = sender.try_send(line);
    }
    receiver
}

struct Program {
    code: watch::Sender<Option<i32>>,
}

/// Runs `true`, `false`, `echo WORDS`, `exit CODE`, or `sleep`, which ends by a signal alone.
pub fn exec(request: &ExecRequest, stdio: Stdio) -> Result<Box<dyn ExecHandle>, DriverError> {
    let words: Vec<&str> = request.argv.iter().map(String::as_str).collect();
    let code = match words.as_slice() {
        ["true"] => Some(0),
        ["false"] => Some(1),
        ["exit", code] => Some(code.parse().unwrap_or(2)),
        ["sleep", ..] => None,
        ["echo", words @ ..] => {
            if let Some(stdout) = stdio.stdout.or(stdio.stdin) {
                writeln!(File::from(stdout), "{}", words.join(" "))
                    .map_err(io_error("write the program's output"))?;
            }
            Some(0)
        }
        _ => Some(127),
    };
    Ok(Box::new(Program { code: watch::channel(code).0 }))
}

#[async_trait]
impl ExecHandle for Program {
    async fn wait(&self) -> Result<i32, DriverError> {
        let mut ended = self.code.subscribe();
        let code = ended.wait_for(Option::is_some).await.map_err(|_| DriverError::NotRunning)?;
        code.ok_or(DriverError::NotRunning)
    }

    async fn resize(&self, _rows: u16, _columns: u16) -> Result<(), DriverError> {
        Ok(())
    }

    async fn signal(&self, signal: i32) -> Result<(), DriverError> {
        self.code.send_if_modified(|code| {
            let runs = code.is_none();
            *code = code.or(Some(SIGNAL_BASE + signal));
            runs
        });
        Ok(())
    }
}
