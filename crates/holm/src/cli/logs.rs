//! `holm logs`: what a container wrote, on the stream that it wrote it to; for a VM, what its console showed.

use super::{
    completion,
    failure::{Failure, Result},
    output,
    session::Session,
    wording,
};
use api::{
    client::Client,
    v1::types::{
        instance::Instance,
        stream::{ConsoleLogQuery, LogLine, LogQuery, LogStream},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use model::instance::Kind;
use std::io::Write;

/// Which log, and how much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct LogsArgs {
    /// Instance
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub instance: String,
    /// Go on as new lines come
    #[arg(long, short)]
    pub follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    pub tail: Option<usize>,
    /// Only since then: 10m (ago), or a time like 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Begin each line with its time
    #[arg(long, short)]
    pub timestamps: bool,
    /// Container of the pod [default: the first]
    #[arg(long, short, value_name = "CONTAINER")]
    pub container: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, args: &LogsArgs) -> Result {
    let instance: Instance = session.client.get(&args.instance).await?;
    if instance.kind == Kind::Vm {
        return console_log(session, args, &instance).await;
    }
    let query = LogQuery {
        container: args.container.clone(),
        tail: args.tail,
        since: args.since.as_deref().map(|text| since(text, session.printer.now)).transpose()?,
        follow: args.follow.then_some(1),
        format: None,
    };
    tokio::select! {
        done = copy_with(&session.client, &args.instance, &query, args.timestamps) => done,
        _ = tokio::signal::ctrl_c() => Err(Failure::silent(130)),
    }
}

async fn console_log(session: &Session, args: &LogsArgs, instance: &Instance) -> Result {
    let name = &instance.head.name;
    if args.follow || args.since.is_some() || args.timestamps || args.container.is_some() {
        return Err(Failure::usage(format!(
            "{name} is a VM: its log is what its console showed, without times"
        ))
        .hint(format!("`holm console {name}` shows it as it comes; inside, `journalctl -f` may tell more")));
    }
    let query = ConsoleLogQuery { bytes: None, tail: args.tail };
    output::write(&session.client.console_log(&args.instance, &query).await?)
}

/// A time, or how long ago.
///
/// # Errors
/// It is neither.
fn since(text: &str, now: Timestamp) -> Result<String> {
    if text.parse::<Timestamp>().is_ok() {
        return Ok(text.to_string());
    }
    let seconds = wording::parse_seconds(text).map_err(|_| {
        Failure::usage(format!("--since {text}: write 10m, 2h or a time like 2026-01-31T12:00:00Z"))
    })?;
    let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    Ok(now.saturating_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH).to_string())
}

/// Copies a log to our standard output and standard error.
///
/// # Errors
/// As the server refuses, or a stream breaks.
pub async fn copy(session: &Session, instance: &str, query: &LogQuery) -> Result {
    copy_with(&session.client, instance, query, false).await
}

async fn copy_with(client: &Client, instance: &str, query: &LogQuery, timestamps: bool) -> Result {
    let mut lines = client.logs(instance, query).await?;
    while let Some(line) = lines.next().await? {
        let bytes = bytes_of(&line, timestamps)?;
        match line.stream {
            LogStream::Stdout => output::write(&bytes)?,
            LogStream::Stderr => {
                std::io::stderr().lock().write_all(&bytes).map_err(|e| Failure::output(&e))?
            }
        }
    }
    Ok(())
}

fn bytes_of(line: &LogLine, timestamps: bool) -> Result<Vec<u8>> {
    let mut bytes = if timestamps { format!("{} ", line.time).into_bytes() } else { vec![] };
    match &line.base64 {
        None => bytes.extend_from_slice(line.text.as_bytes()),
        Some(text) => bytes.extend(STANDARD.decode(text).map_err(|e| {
            Failure::new(model::error::Code::Internal, format!("a line of the log cannot be read: {e}"))
        })?),
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_ago() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        assert_eq!(since("10m", now).unwrap(), "2026-01-01T00:50:00Z");
        assert_eq!(since("2025-01-01T00:00:00Z", now).unwrap(), "2025-01-01T00:00:00Z");
        assert!(since("yesterday", now).is_err());
    }
}
