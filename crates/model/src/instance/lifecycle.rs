//! What is done for a container after its start and before its end.
//!
//! ```text
//!   started ──postStart──▶ counts as running ── … ──asked to end──preStop──▶ stop signal ──▶ killed
//!                                                   └───────── the grace period ─────────┘
//! ```
//! A postStart hook that fails ends the container, and its restart policy decides what follows. A preStop hook that fails,
//! or takes all of the grace period, is told of and the container is ended all the same.

use super::GRACE_S_MAX;
use crate::health::probe::Action;
use serde::{Deserialize, Serialize};

/// Longest that a postStart hook may take, in seconds, and the longest pause that is a hook.
pub const HOOK_S_MAX: u32 = GRACE_S_MAX;
/// How long a container has between its stop signal and being killed when its hook took all of the grace period, in
/// seconds; as Kubernetes has it.
pub const EXTENSION_S: u32 = 2;

/// The hooks of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lifecycle {
    /// Once its program was started. Until it has ended well nothing else is started in the pod, and nothing is asked of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_start: Option<Hook>,
    /// Before it is asked to end; not where it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<Hook>,
}

/// What a hook does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Hook {
    /// Asks as a probe does. By HTTP each answer is a good one, whatever its status.
    Ask {
        /// What.
        action: Action,
    },
    /// Waits.
    Sleep {
        /// So many seconds.
        seconds: u32,
    },
}

impl Lifecycle {
    /// Whether there is no hook.
    pub fn is_empty(&self) -> bool {
        self.post_start.is_none() && self.pre_stop.is_none()
    }

    /// Those that there are, with their names.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Hook)> {
        let all = [("post_start", &self.post_start), ("pre_stop", &self.pre_stop)];
        all.into_iter().filter_map(|(name, hook)| Some((name, hook.as_ref()?)))
    }
}

impl Hook {
    /// Refuses what no hook can do.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Sleep { seconds } if *seconds > HOOK_S_MAX => {
                Err(format!("a hook waits {HOOK_S_MAX} seconds at most, not {seconds}"))
            }
            Self::Sleep { .. } => Ok(()),
            Self::Ask { action: Action::Grpc { .. } } => {
                Err("a hook is a program, a connection, a page or a pause; gRPC is for probes".into())
            }
            Self::Ask { action } => {
                action.check_bounds().map_err(|wrong| wrong.to_string())?;
                match action.breaks_lines() {
                    true => Err(crate::health::probe::LINES_RULE.into()),
                    false => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_hook_can_do_is_refused() {
        let ask = |action| Hook::Ask { action };
        let page = |path: &str| Action::Http { port: 80, path: path.into(), headers: vec![], tls: false };
        for (hook, fits) in [
            (Hook::Sleep { seconds: 0 }, true),
            (Hook::Sleep { seconds: HOOK_S_MAX }, true),
            (Hook::Sleep { seconds: HOOK_S_MAX + 1 }, false),
            (ask(Action::Exec { argv: vec!["true".into()] }), true),
            (ask(Action::Exec { argv: vec![] }), false),
            (ask(Action::Tcp { port: 1 }), true),
            (ask(Action::Tcp { port: 0 }), false),
            (ask(page("/a")), true),
            (ask(page("/a\r\nB: c")), false),
            (ask(Action::Grpc { port: 1, service: String::new() }), false),
        ] {
            assert_eq!(hook.check().is_ok(), fits, "{hook:?}");
        }
    }
}
