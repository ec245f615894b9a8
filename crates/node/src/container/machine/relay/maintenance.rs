//! A machine whose pod is not started: the relay hands on work on its files and nothing else.
//!
//! Who has work keeps a connection for as long as it takes. When the last is gone the machine stays for [`LINGER`], as the next
//! piece of work often comes soon, and is then ended in order: what was written is on its disk. So one that a daemon has left
//! behind ends by itself, too. From then on no request is answered; who asked tries again when the pod's lock is free.

use super::{FLUSH_TIMEOUT, Phase, Relay};
use crate::container::{
    machine::talk::ToGuest,
    protocol::{Reply, Request},
};
use std::time::{Duration, Instant};

/// How long a machine waits for more work.
pub(super) const LINGER: Duration = Duration::from_secs(8);

impl Relay {
    /// Whether nothing of the pod is started in this machine.
    pub(super) fn is_for_maintenance(&self) -> bool {
        self.pod.machine.as_ref().is_some_and(|machine| machine.maintenance)
    }

    pub(super) fn on_request_for_files(&mut self, id: u64, request: Request) {
        match request {
            _ if self.phase != Phase::Up || self.failure.is_some() || self.link.is_over() => self.let_go(id),
            // Whoever has this answer has the machine, until he closes his connection.
            Request::State => self.reply(id, Reply::Done, None),
            Request::Files { work } => self.work_on_files(id, work),
            Request::Shutdown => {
                self.reply(id, Reply::Done, None);
                self.end_in_order();
            }
            _ => {
                let message = "its machine is there for its files alone: nothing of it runs".into();
                self.reply(id, Reply::Failed { code: 125, message }, None);
            }
        }
    }

    /// When the machine is ended if nobody comes.
    pub(super) fn idle_until(&self) -> Option<Instant> {
        self.idle_since.map(|since| since + LINGER)
    }

    /// Ends a machine that nobody has used for a while.
    pub(super) fn look_whether_idle(&mut self, now: Instant) {
        let is_idle = self.is_for_maintenance() && self.phase == Phase::Up && self.connections.is_empty();
        if !is_idle {
            self.idle_since = None;
            return;
        }
        self.idle_since.get_or_insert(now);
        if self.idle_until().is_some_and(|until| until <= now) {
            self.end_in_order();
        }
    }

    fn end_in_order(&mut self) {
        self.idle_since = None;
        self.is_asked_to_end = true;
        self.phase = Phase::Ended;
        self.say(&ToGuest::Bye);
        self.kill_at = Some(Instant::now() + FLUSH_TIMEOUT);
    }
}
