//! The project of clients that do not say it.
//!
//! docker's settings name the project in a header, which its plugin for BuildKit does not send: it calls from a connection of
//! its own. Its process, or the one that has started it, has said so a moment before. So a call without the header takes
//! what was named last by these. It is a convenience and no right: who may work where is decided behind it.

use axum::http::HeaderValue;
use std::{
    collections::VecDeque,
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Most processes that are remembered.
const PROCESSES_MAX: usize = 256;

/// A process: numbers are used again, but not with the same time of start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    /// Clock ticks from the host's start to its own.
    started: u64,
}

/// What processes named last.
#[derive(Default)]
pub struct Named {
    all: Mutex<VecDeque<(Process, HeaderValue)>>,
}

impl Named {
    fn all(&self) -> MutexGuard<'_, VecDeque<(Process, HeaderValue)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process names a project. Another client in it may say nothing of it, which changes nothing.
    pub fn note(&self, pid: i32, project: &HeaderValue) {
        let Some((process, _)) = look(pid) else { return };
        let mut all = self.all();
        all.retain(|(known, _)| known.pid != pid);
        if all.len() == PROCESSES_MAX {
            all.pop_front();
        }
        all.push_back((process, project.clone()));
    }

    /// What a process named last, or the one that has started it.
    pub fn of(&self, pid: i32) -> Option<HeaderValue> {
        let (own, parent) = look(pid)?;
        let known = |process: Process| {
            self.all().iter().find(|(known, _)| *known == process).map(|(_, project)| project.clone())
        };
        known(own).or_else(|| known(look(parent)?.0))
    }
}

/// A process that is there, and the number of its parent (proc_pid_stat(5)).
fn look(pid: i32) -> Option<(Process, i32)> {
    if pid <= 0 {
        return None;
    }
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name, which may be anything, stands in brackets.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((Process { pid, started }, parent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_takes_what_it_or_its_parent_named() {
        let (named, own) = (Named::default(), std::process::id() as i32);
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id() as i32;
        assert_eq!(look(pid).map(|(_, parent)| parent), Some(own));
        assert_eq!(named.of(pid), None);
        let (shop, other) = (HeaderValue::from_static("shop"), HeaderValue::from_static("other"));
        named.note(own, &shop);
        assert_eq!((named.of(own), named.of(pid)), (Some(shop.clone()), Some(shop.clone())));
        named.note(pid, &other);
        assert_eq!((named.of(own), named.of(pid)), (Some(shop), Some(other)));
        child.kill().and_then(|()| child.wait()).unwrap();
        assert_eq!(named.of(pid), None, "it is gone");
        for _ in 0..2 * PROCESSES_MAX {
            named.note(own, &HeaderValue::from_static("x"));
        }
        assert_eq!(named.all().len(), 2, "each is remembered once");
        named.note(0, &HeaderValue::from_static("x"));
        assert_eq!(named.of(0), None);
    }
}
