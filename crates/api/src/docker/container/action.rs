//! Starting, stopping and freezing containers, with an answer once it is done.

use super::found::{self, Found, NotStarted};
use crate::{
    app::Asker,
    docker::{
        door::Door,
        id,
        query::Query,
        refusal::{conflict, failed},
        watch::{self, Sight},
    },
    error::{Failure, Result},
    v1::audit::{deed, known, note, note_as},
};
use axum::{
    extract::{Path, State},
    http::StatusCode,
};
use control::Caller;
use model::{
    error::Code,
    id::InstanceId,
    instance::{GRACE_S_MAX, Instance, State as Seen, phase},
};
use std::time::Duration;

/// Longest wait for a container to start.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Time beyond the grace period for a container to be ended, and for all else.
const END_TIMEOUT: Duration = Duration::from_secs(60);

const SIGKILL: i32 = 9;

/// Docker's seconds until killing as holm's grace period; a negative number is without end.
pub fn grace(seconds: i64) -> u32 {
    u32::try_from(seconds).unwrap_or(GRACE_S_MAX).min(GRACE_S_MAX)
}

/// POST of a start.
pub async fn start(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
) -> Result<StatusCode> {
    let found = found::find(&door, &caller, &name)?;
    if found.is_paused() {
        return Err(conflict("cannot start a paused container, try unpause instead"));
    }
    if found.is_alive() {
        return Ok(StatusCode::NOT_MODIFIED);
    }
    let outcome = door.control().start_instance(&caller, &found.id().to_string()).await;
    let instance = note(door.app(), &caller, deed("start", "instance", &name), outcome).await?;
    up(&door, &caller, &instance).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How a start went.
enum Start {
    Ran,
    NotStarted(NotStarted),
    Failed(String),
}

/// Waits until the boot that is wished for has run, or cannot.
///
/// # Errors
/// Why it cannot.
pub async fn up(door: &Door, caller: &Caller, instance: &Instance) -> Result<()> {
    let id = instance.meta.id;
    let boots = instance.boots;
    match watch::until(door, id, Some(START_TIMEOUT), |sight| how_it_started(sight, boots)).await {
        Some(Start::Ran) => Ok(()),
        Some(Start::NotStarted(NotStarted { message })) => {
            Err(failed(message).with_status(StatusCode::BAD_REQUEST))
        }
        Some(Start::Failed(message)) => {
            give_up(door, caller, id).await;
            Err(failed(message))
        }
        None => Err(Failure::new(
            Code::Timeout,
            format!("the container did not start within {} s", START_TIMEOUT.as_secs()),
        )),
    }
}

fn how_it_started(sight: &Sight, boots: u64) -> Option<Start> {
    // One that goes when it ends may have come, gone, and left nothing.
    let Some(stored) = &sight.instance else { return Some(Start::Ran) };
    let status = &sight.status.as_ref()?.record;
    let instance = &stored.record;
    if status.boot >= boots {
        match &status.state {
            Seen::Running { .. } | Seen::Paused { .. } => return Some(Start::Ran),
            Seen::Stopped { .. } => {
                return Some(match found::not_started(instance, &status.state) {
                    Some(reason) => Start::NotStarted(reason),
                    None => Start::Ran,
                });
            }
            Seen::Absent => {}
        }
    }
    if phase::phase(instance, Some(status)) != phase::Phase::Failed {
        return None;
    }
    let fault = status.fault_of(instance)?;
    let hint = if fault.hint.is_empty() { String::new() } else { format!(" ({})", fault.hint) };
    Some(Start::Failed(format!("{}{hint}", fault.message)))
}

/// Docker does not try again what could not be started: neither is it wished for any longer.
async fn give_up(door: &Door, caller: &Caller, id: InstanceId) {
    if let Err(error) = door.control().stop_instance(caller, &id.to_string(), true, None).await {
        tracing::debug!(%error, "a container that could not start is tried again");
        return;
    }
    let control = door.control();
    let goes = control.get::<Instance>(id).is_some_and(|stored| stored.record.remove_on_exit);
    if goes && let Err(error) = control.delete_instance(caller, &id.to_string()).await {
        tracing::debug!(%error, "a container that could not start is left");
    }
}

/// POST of a stop.
pub async fn stop(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<StatusCode> {
    let found = found::find(&door, &caller, &name)?;
    if !found.is_alive() {
        return Ok(StatusCode::NOT_MODIFIED);
    }
    let seconds = query.number("t")?.map(grace);
    let outcome =
        door.control().stop_instance(&caller, &found.id().to_string(), seconds == Some(0), seconds).await;
    let instance = note(door.app(), &caller, deed("stop", "instance", &name), outcome).await?;
    down(&door, &instance).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Waits until nothing of it runs.
async fn down(door: &Door, instance: &Instance) -> Result<()> {
    let patience = Duration::from_secs(instance.grace_s.into()) + END_TIMEOUT;
    let ended = |sight: &Sight| {
        let runs = sight.instance.is_some()
            && sight
                .status
                .as_ref()
                .is_some_and(|s| matches!(s.record.state, Seen::Running { .. } | Seen::Paused { .. }));
        (!runs).then_some(())
    };
    let ended = watch::until(door, instance.meta.id, Some(patience), ended).await;
    ended.ok_or_else(|| {
        Failure::new(Code::Timeout, format!("the container did not end within {} s", patience.as_secs()))
    })
}

/// POST of a restart.
pub async fn restart(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<StatusCode> {
    let found = found::find(&door, &caller, &name)?;
    let id = found.id().to_string();
    let seconds = query.number("t")?.map(grace);
    let control = door.control();
    let act = async {
        if !found.is_alive() {
            return control.start_instance(&caller, &id).await;
        }
        if let Some(seconds) = seconds {
            let set = |instance: &mut Instance| {
                instance.grace_s = seconds;
                Ok(())
            };
            control.update_instance(&caller, &id, set).await?;
        }
        control.reboot_instance(&caller, &id, seconds == Some(0)).await
    };
    let outcome = act.await;
    let instance = note(door.app(), &caller, deed("reboot", "instance", &name), outcome).await?;
    if found.is_alive() {
        // The old run has its grace period; the new one its own time.
        let boots = instance.boots;
        let patience = Duration::from_secs(instance.grace_s.into()) + END_TIMEOUT;
        let began =
            |sight: &Sight| (sight.status.as_ref().is_none_or(|s| s.record.boot >= boots)).then_some(());
        watch::until(&door, instance.meta.id, Some(patience), began).await;
    }
    up(&door, &caller, &instance).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// POST of a signal.
pub async fn kill(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<StatusCode> {
    let found = found::find(&door, &caller, &name)?;
    let signal = match query.text("signal") {
        None => SIGKILL,
        Some(text) => signal_number(text)
            .ok_or_else(|| Failure::new(Code::Invalid, format!("invalid signal: {text}")))?,
    };
    if !found.is_alive() {
        let id = id::of(found.id());
        return Err(conflict(format!("cannot kill container: {name}: container {id} is not running")));
    }
    if signal == SIGKILL {
        let outcome = door.control().stop_instance(&caller, &found.id().to_string(), true, None).await;
        let instance = note(door.app(), &caller, deed("kill", "instance", &name), outcome).await?;
        down(&door, &instance).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let instance = found.instance();
    let outcome = door.app().streams().signal(instance, signal).await;
    let subject = known(instance.meta.id, &instance.meta.name);
    note_as(door.app(), &caller, deed("signal", "instance", &name), outcome, subject).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The number of a signal by name, with or without `SIG`, or by number (signal(7)).
pub fn signal_number(text: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    const REALTIME_MIN: i32 = 34;
    const MAX: i32 = 64;
    if let Ok(number) = text.parse::<i32>() {
        return (1..=MAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(place) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(place + 1).ok();
    }
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => REALTIME_MIN,
        (Some(rest), _) => REALTIME_MIN + rest.strip_prefix('+')?.parse::<i32>().ok()?,
        (_, Some("")) => MAX,
        (_, Some(rest)) => MAX - rest.strip_prefix('-')?.parse::<i32>().ok()?,
        _ => return None,
    };
    (REALTIME_MIN..=MAX).contains(&number).then_some(number)
}

/// POST of a freeze.
pub async fn pause(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
) -> Result<StatusCode> {
    let found = found::find(&door, &caller, &name)?;
    if found.is_paused() {
        return Err(conflict(format!("container {} is already paused", id::of(found.id()))));
    }
    found.require_running()?;
    let outcome = door.control().pause_instance(&caller, &found.id().to_string()).await;
    note(door.app(), &caller, deed("pause", "instance", &name), outcome).await?;
    settled(&door, &found, |state| matches!(state, Seen::Paused { .. }), "paused").await
}

/// POST of a thaw.
pub async fn unpause(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
) -> Result<StatusCode> {
    let found = found::find(&door, &caller, &name)?;
    if !found.is_paused() {
        return Err(conflict(format!("Container {} is not paused", id::of(found.id()))));
    }
    let outcome = door.control().resume_instance(&caller, &found.id().to_string()).await;
    note(door.app(), &caller, deed("resume", "instance", &name), outcome).await?;
    settled(&door, &found, |state| matches!(state, Seen::Running { .. }), "running").await
}

async fn settled(
    door: &Door,
    found: &Found,
    wanted: impl Fn(&Seen) -> bool,
    word: &str,
) -> Result<StatusCode> {
    let is_there = |sight: &Sight| match (&sight.instance, &sight.status) {
        (None, _) => Some(false),
        (_, Some(status)) if wanted(&status.record.state) => Some(true),
        // It ended before it could be brought there.
        (_, Some(status)) if matches!(status.record.state, Seen::Stopped { .. }) => Some(false),
        _ => None,
    };
    match watch::until(door, found.id(), Some(END_TIMEOUT), is_there).await {
        Some(true) => Ok(StatusCode::NO_CONTENT),
        Some(false) => Err(conflict(format!("container {} is not running", id::of(found.id())))),
        None => {
            let message =
                format!("container {} is not {word} within {} s", found.name(), END_TIMEOUT.as_secs());
            Err(Failure::new(Code::Timeout, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("KILL", Some(9)),
            ("SIGTERM", Some(15)),
            ("sigint", Some(2)),
            ("9", Some(9)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX", Some(64)),
            ("RTMAX-1", Some(63)),
            ("SYS", Some(31)),
            ("0", None),
            ("65", None),
            ("RTMIN+99", None),
            ("NOPE", None),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
        assert_eq!((grace(-1), grace(5), grace(i64::MAX)), (GRACE_S_MAX, 5, GRACE_S_MAX));
    }
}
