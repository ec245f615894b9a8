//! Power: start, stop, kill, restart, pause, suspend, resume and the end of a rescue, of one or several instances at once.

use super::{
    completion,
    failure::{Failure, Result},
    noun::{for_each, tell},
    session::Session,
    wait::{self, WaitArgs},
};
use api::{
    client::Verb,
    v1::types::{instance::Instance, list::WaitQuery},
};
use hyper::Method;
use model::{error::Code, instance::phase::Phase};
use serde_json::json;

/// Which instances.
#[derive(Debug, Clone, clap::Args)]
pub struct PowerArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(required = true, value_name = "NAME", add = completion::names("instances"))]
    pub names: Vec<String>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// How to stop.
#[derive(Debug, Clone, clap::Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub power: PowerArgs,
    /// Pull the plug at once
    #[arg(long, conflicts_with = "grace")]
    pub kill: bool,
    /// Seconds to stop by itself before the plug is pulled [default: the instance's own]
    #[arg(long, value_name = "SECONDS")]
    pub grace: Option<u32>,
}

/// How to restart.
#[derive(Debug, Clone, clap::Args)]
pub struct RestartArgs {
    #[command(flatten)]
    pub power: PowerArgs,
    /// Pull the plug instead of asking the guest
    #[arg(long)]
    pub kill: bool,
}

/// `holm start`.
///
/// # Errors
/// As the server refuses.
pub async fn start(session: &Session, args: &PowerArgs) -> Result {
    act(session, args, Verb::Start, None, "is running").await
}

/// `holm stop`.
///
/// # Errors
/// As the server refuses.
pub async fn stop(session: &Session, args: &StopArgs) -> Result {
    if args.kill {
        return kill(session, &args.power).await;
    }
    let Some(grace_s) = args.grace else {
        return act(session, &args.power, Verb::Stop, None, "is stopped").await;
    };
    for_each(session, &args.power.names, async |name| {
        let path = format!("/v1/instances/{}/stop", super::raw::escape(&name));
        let instance: Instance =
            session.client.call(Method::POST, &path, Some(&json!({"grace_s": grace_s})), None).await?;
        finish(session, instance, &args.power.wait, None, "is stopped").await
    })
    .await
}

/// `holm kill`.
///
/// # Errors
/// As the server refuses.
pub async fn kill(session: &Session, args: &PowerArgs) -> Result {
    act(session, args, Verb::Kill, None, "is stopped").await
}

/// `holm restart`.
///
/// # Errors
/// As the server refuses.
pub async fn restart(session: &Session, args: &RestartArgs) -> Result {
    let verb = if args.kill { Verb::Reset } else { Verb::Reboot };
    act(session, &args.power, verb, None, "is running again").await
}

/// `holm pause`.
///
/// # Errors
/// As the server refuses.
pub async fn pause(session: &Session, args: &PowerArgs) -> Result {
    act(session, args, Verb::Pause, Some(Phase::Paused), "is paused").await
}

/// `holm suspend`.
///
/// # Errors
/// As the server refuses.
pub async fn suspend(session: &Session, args: &PowerArgs) -> Result {
    act(session, args, Verb::Suspend, Some(Phase::Suspended), "is suspended").await
}

/// `holm unrescue`.
///
/// # Errors
/// As the server refuses.
pub async fn unrescue(session: &Session, args: &PowerArgs) -> Result {
    act(session, args, Verb::Unrescue, Some(Phase::Running), "starts from its own disk").await
}

/// `holm resume`.
///
/// # Errors
/// As the server refuses.
pub async fn resume(session: &Session, args: &PowerArgs) -> Result {
    act(session, args, Verb::Resume, Some(Phase::Running), "is running again").await
}

async fn act(session: &Session, args: &PowerArgs, verb: Verb, phase: Option<Phase>, what: &str) -> Result {
    for_each(session, &args.names, async |name| {
        let instance = session.client.act(&name, verb, &WaitQuery::default()).await?;
        finish(session, instance, &args.wait, phase, what).await
    })
    .await
}

async fn finish(
    session: &Session,
    instance: Instance,
    args: &WaitArgs,
    phase: Option<Phase>,
    what: &str,
) -> Result {
    let name = instance.head.name.clone();
    if args.no_wait {
        session.say(format!("instance {name}: {}", instance.phase));
        return session.printer.made(&instance);
    }
    let id = instance.head.id.to_string();
    let instance = match wait::settle::<Instance>(session, &id, &name, phase, args).await {
        Ok(instance) => instance,
        // An instance that is removed when it ends has ended.
        Err(failure) if failure.exit == Code::NotFound.exit_code() && instance.remove_on_exit => {
            session.say(format!("instance {name} ended and is gone"));
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    if what.contains("running") && instance.phase == Phase::Exited {
        return Err(ended(&instance));
    }
    tell(session, &instance, what)
}

/// The failure of an instance that ended where it was to run.
pub fn ended(instance: &Instance) -> Failure {
    let name = &instance.head.name;
    let how = instance.exit.as_ref().map_or("it ended".to_string(), |exit| {
        exit.code.map_or(exit.cause.clone(), |code| format!("{} (exit code {code})", exit.cause))
    });
    Failure::new(Code::Conflict, format!("{name} ended at once: {how}"))
        .hint(format!("see what it said: `holm logs {name}`"))
}
