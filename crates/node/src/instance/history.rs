//! What of a changed status is worth telling later: starts, ends, and what went wrong.

use jiff::Timestamp;
use model::{
    id::EventId,
    instance::{Instance, InstanceStatus, State},
    operation::{Event, Subject},
};

/// The event that lies between two statuses of an instance, if any.
pub fn event(
    instance: &Instance,
    old: Option<&InstanceStatus>,
    next: &InstanceStatus,
    now: Timestamp,
) -> Option<Event> {
    let (reason, message, warning) = happened(instance, old, next)?;
    Some(Event {
        id: EventId::from_random(rand::random()),
        at: now,
        project: Some(instance.meta.project),
        subject: Subject { noun: "instance".into(), id: instance.meta.id.to_string() },
        reason: reason.into(),
        message,
        warning,
    })
}

fn happened(
    instance: &Instance,
    old: Option<&InstanceStatus>,
    next: &InstanceStatus,
) -> Option<(&'static str, String, bool)> {
    let name = &instance.meta.name;
    if next.gone && !old.is_some_and(|o| o.gone) {
        return Some(("deleted", format!("{name} is gone from its host"), false));
    }
    let fault_before = old.and_then(|o| o.fault.as_ref()).map(|f| &f.message);
    if let Some(fault) = next.fault.as_ref().filter(|f| Some(&f.message) != fault_before) {
        return Some(("failed", format!("{name}: {}", fault.message), true));
    }
    let slept = old.is_some_and(|o| o.asleep);
    match &next.state {
        _ if next.asleep && !slept => {
            return Some(("suspended", format!("{name} sleeps: its memory is on disk"), false));
        }
        State::Running { .. } | State::Paused { .. } if slept => {
            return Some(("resumed", format!("{name} goes on"), false));
        }
        _ => {}
    }
    let before = old.map_or(&State::Absent, |o| &o.state);
    match (before, &next.state) {
        (State::Paused { .. }, State::Running { .. }) => Some(("resumed", format!("{name} goes on"), false)),
        (State::Running { since: a }, State::Running { since: b }) if a == b => None,
        (_, State::Running { .. }) => Some(("started", format!("{name} runs"), false)),
        (State::Paused { .. }, State::Paused { .. }) => None,
        (_, State::Paused { .. }) => Some(("paused", format!("{name} is frozen"), false)),
        (State::Stopped { at: a, .. }, State::Stopped { at: b, .. }) if a == b => None,
        (_, State::Stopped { cause, failed, .. }) => {
            let reason = if *failed { "crashed" } else { "stopped" };
            Some((reason, format!("{name} ended: {cause}"), *failed))
        }
        (_, State::Absent) => None,
    }
}
