//! The states of a container in docker's words, and times as docker tells them to people.

use super::{found::Found, health};
use jiff::Timestamp;
use model::instance::{State, phase::Phase};

/// Docker's states.
pub const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

/// The time that docker tells where there is none.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// Which of [`STATES`] a container is in.
pub fn word(found: &Found) -> &'static str {
    if found.phase() == Phase::Deleting {
        return "removing";
    }
    match found.state() {
        State::Running { .. } if found.is_restarting() => "restarting",
        State::Running { .. } => "running",
        State::Paused { .. } => "paused",
        State::Absent => "created",
        State::Stopped { .. } if found.not_started().is_some() => "created",
        State::Stopped { .. } => "exited",
    }
}

/// The exit code that it is told with: of its last run, 0 where there was none.
pub fn exit_code(found: &Found) -> i32 {
    match found.state() {
        State::Stopped { code, .. } => code.unwrap_or(255),
        State::Running { .. } if found.is_restarting() => {
            let code = found.fact("exit_code").and_then(serde_json::Value::as_i64);
            code.and_then(|code| i32::try_from(code).ok()).unwrap_or(0)
        }
        _ => 0,
    }
}

/// `Up 5 minutes`, `Exited (0) 3 seconds ago`.
pub fn sentence(found: &Found, now: Timestamp) -> String {
    let ago = |then: Timestamp| how_long(now.as_second() - then.as_second());
    match (found.state(), word(found)) {
        (_, "removing") => "Removal In Progress".into(),
        (_, "created") => "Created".into(),
        (State::Running { since }, "restarting") => {
            format!("Restarting ({}) {} ago", exit_code(found), ago(*since))
        }
        (State::Running { since }, _) => match found.health() {
            Some(health) => format!("Up {} ({})", ago(*since), health::in_brackets(health.word)),
            None => format!("Up {}", ago(*since)),
        },
        (State::Paused { since }, _) => format!("Up {} (Paused)", ago(*since)),
        (State::Stopped { at, .. }, _) => format!("Exited ({}) {} ago", exit_code(found), ago(*at)),
        (State::Absent, _) => "Created".into(),
    }
}

/// A duration in docker's words (github.com/docker/go-units, `HumanDuration`).
pub fn how_long(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let hours = (seconds + HOUR / 2) / HOUR;
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..MINUTE => format!("{seconds} seconds"),
        _ if seconds / MINUTE == 1 => "About a minute".into(),
        _ if seconds / MINUTE < 60 => format!("{} minutes", seconds / MINUTE),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / DAY / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_as_docker_does() {
        for (seconds, words) in [
            (-3, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3_599, "59 minutes"),
            (3_600, "About an hour"),
            (7_200, "2 hours"),
            (47 * 3_600, "47 hours"),
            (48 * 3_600, "2 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(how_long(seconds), words, "{seconds}");
        }
    }
}
