//! `holm console`: the serial console of a VM or the terminal of a container, as if one sat before it.

use super::{
    completion,
    failure::{Failure, Result},
    input::Input,
    output,
    session::Session,
    stream::{ESCAPE_KEY, enter_raw},
};
use api::v1::types::stream::{ConsoleLogQuery, ConsoleQuery};
use std::{os::fd::AsFd, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
};

/// Once a pipe on standard input has ended: how long the console may be silent before we leave.
const SILENCE: Duration = Duration::from_millis(500);
const READ_BYTES: usize = 16 * 1024;

/// Which console.
#[derive(Debug, Clone, clap::Args)]
pub struct ConsoleArgs {
    /// Instance
    #[arg(value_name = "NAME", add = completion::names("instances"))]
    pub instance: String,
    /// Log in to a VM as root without a password, as long as the console is open: by its guest agent, where all else fails
    #[arg(long, conflicts_with = "log")]
    pub login: bool,
    /// Print what the console showed so far, and return
    #[arg(long)]
    pub log: bool,
    /// Only the last lines of it
    #[arg(long, value_name = "LINES", requires = "log")]
    pub tail: Option<usize>,
}

/// Runs the command.
///
/// # Errors
/// As the server refuses, or the connection breaks.
pub async fn run(session: &Session, args: &ConsoleArgs) -> Result {
    if args.log {
        let query = ConsoleLogQuery { bytes: None, tail: args.tail };
        let bytes = session.client.console_log(&args.instance, &query).await?;
        return output::write(&bytes);
    }
    let console = session.client.console(&args.instance, &ConsoleQuery { login: args.login }).await?;
    if session.stdin_is_terminal {
        session.say(format!("console of {}; Ctrl-] leaves it, Enter wakes a silent one", args.instance));
    }
    let outcome = relay(session, console).await;
    if session.stdin_is_terminal {
        let goes_on = if args.login { "root is logged out" } else { "it goes on" };
        session.say(format!("\nleft the console of {}; {goes_on}", args.instance));
    }
    outcome
}

async fn relay(session: &Session, console: api::client::Upgraded) -> Result {
    let stdin = std::io::stdin();
    let _raw = session.stdin_is_terminal.then(|| enter_raw(stdin.as_fd())).transpose()?;
    let (mut reader, mut writer) = tokio::io::split(console);
    let watch = |kind| signal(kind).map_err(|e| Failure::local("cannot listen to signals", &e));
    let mut terminated = watch(SignalKind::terminate())?;
    let mut hung_up = watch(SignalKind::hangup())?;
    let mut keyboard = Input::stdin();
    let mut shown = vec![0; READ_BYTES];
    let mut types = true;
    loop {
        tokio::select! {
            count = reader.read(&mut shown) => match count {
                Ok(0) => return Ok(()),
                Ok(count) => output::write(&shown[..count])?,
                Err(e) => return Err(Failure::local("the console broke off", &e)),
            },
            keys = keyboard.next(), if types => match keys {
                None => types = false,
                Some(Ok(keys)) => {
                    let end = keys.iter().position(|key| session.stdin_is_terminal && *key == ESCAPE_KEY);
                    let written = writer.write_all(&keys[..end.unwrap_or(keys.len())]).await;
                    if end.is_some() {
                        return Ok(());
                    }
                    written.map_err(|e| Failure::local("the console broke off", &e))?;
                    writer.flush().await.map_err(|e| Failure::local("the console broke off", &e))?;
                }
                Some(Err(e)) => return Err(Failure::local("cannot read standard input", &e)),
            },
            () = tokio::time::sleep(SILENCE), if !types => return Ok(()),
            _ = terminated.recv() => return Err(Failure::silent(143)),
            _ = hung_up.recv() => return Err(Failure::silent(129)),
        }
    }
}
