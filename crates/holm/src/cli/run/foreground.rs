//! A container in the foreground: its output here, its exit code ours.
//!
//! Without a terminal the output is read from the log, from its beginning, so that nothing said before this command
//! listened is lost. With `-i` or `-t` the command attaches, and shows what the log has until then.

use super::RunArgs;
use crate::cli::{
    failure::{Failure, Result},
    logs, power,
    session::Session,
    stream,
    wait::{self, WaitArgs, Waited},
};
use api::{
    client::Verb,
    v1::types::{
        instance::Instance,
        list::WaitQuery,
        stream::{AttachQuery, LogQuery},
    },
};
use model::instance::phase::Phase;

/// How long a container that closed its output may take to end.
const END_TIMEOUT_S: u64 = 30;

/// Shows the container until it ends.
///
/// # Errors
/// The container's exit code, if it is not 0.
pub async fn follow(session: &Session, instance: &Instance, args: &RunArgs) -> Result {
    let id = instance.head.id.to_string();
    if let Some(failure) = instance.failure() {
        if args.life.rm {
            remove(session, &id).await;
        } else {
            say_kept(session, instance);
        }
        return Err(failure);
    }
    let is_interactive = args.container.interactive || args.container.tty;
    let shown = if is_interactive && instance.phase == Phase::Running {
        attached(session, instance, args).await
    } else {
        logged(session, instance, args.life.rm).await
    };
    let code = match shown {
        Ok(code) => code,
        Err(failure) => {
            if args.life.rm && failure.exit != LEFT {
                remove(session, &id).await;
            }
            return Err(failure);
        }
    };
    let code = match code {
        Some(code) => Some(code),
        None => ended(session, instance).await?,
    };
    if args.life.rm {
        remove(session, &id).await;
    }
    match code {
        None | Some(0) => Ok(()),
        Some(code) => Err(Failure::silent(u8::try_from(code).unwrap_or(1))),
    }
}

/// Exit code after Ctrl-C that left the container running.
const LEFT: u8 = 130;

async fn attached(session: &Session, instance: &Instance, args: &RunArgs) -> Result<Option<i32>> {
    let id = instance.head.id.to_string();
    let frames = session.client.attach(&id, &AttachQuery::default()).await?;
    // What it said before we listened. A line that comes at this moment may be shown twice; none is lost.
    if let Ok(mut earlier) = session.client.logs_plain(&id, &LogQuery::default()).await {
        while let Ok(Some(bytes)) = earlier.next().await {
            crate::cli::output::write(&bytes)?;
        }
    }
    let io = stream::Io {
        stdin: args.container.interactive,
        terminal: args.container.tty && session.stdin_is_terminal,
        escape: true,
    };
    stream::relay(session, frames, io).await.map(Some)
}

/// `Ok(None)`: the log is at its end.
async fn logged(session: &Session, instance: &Instance, stops: bool) -> Result<Option<i32>> {
    let id = instance.head.id.to_string();
    let name = &instance.head.name;
    let query = LogQuery { follow: (instance.phase == Phase::Running).then_some(1), ..LogQuery::default() };
    tokio::select! {
        done = logs::copy(session, &id, &query) => done.map(|()| None),
        _ = tokio::signal::ctrl_c() => {
            if stops {
                session.say(format!("stopping {name}"));
                let _ = session.client.act(&id, Verb::Stop, &WaitQuery::default()).await;
                return Ok(None);
            }
            session.say(format!("{name} goes on running: `holm logs -f {name}` shows it, `holm stop {name}` stops it"));
            Err(Failure::silent(LEFT))
        }
    }
}

/// Its exit code, once it has ended; `None` if it was started again.
async fn ended(session: &Session, instance: &Instance) -> Result<Option<i32>> {
    let args = WaitArgs { no_wait: false, timeout: END_TIMEOUT_S };
    let id = instance.head.id.to_string();
    // One that had ended when it was first seen has told how.
    let mut now = match instance.phase {
        Phase::Exited => instance.clone(),
        _ => session.client.get(&id).await?,
    };
    if now.exit.is_none() {
        now = wait::watch(session, &id, &instance.head.name, Some(Phase::Exited), &args).await?;
    }
    match &now.exit {
        Some(exit) => {
            if exit.code.is_none() {
                session.say(format!("{}: {}", instance.head.name, exit.cause));
                return Err(power::ended(&now));
            }
            Ok(exit.code)
        }
        None => Ok(None),
    }
}

/// Tells what becomes of an instance that could not be started.
pub(super) fn say_kept(session: &Session, instance: &Instance) {
    let name = &instance.head.name;
    session.say(format!("{name} is kept: `holm start {name}` tries again, `holm rm {name}` removes it"));
}

async fn remove(session: &Session, id: &str) {
    if let Err(error) = session.client.delete::<Instance>(id, &WaitQuery::default()).await
        && error.code() != model::error::Code::NotFound
    {
        session.warn(format!("it could not be deleted: {error}"));
    }
}
