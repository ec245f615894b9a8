//! Instances that run at certain times: each is started when its time has come, and left alone while it still runs.
//!
//! Whatever came due while nobody looked is one start, as soon as somebody does.

use crate::{Control, Result};
use jiff::Timestamp;
use model::{
    instance::{Instance, InstanceStatus, Power, phase::Phase},
    operation::Subject,
    schedule::Schedule,
};
use store::Stored;

/// What became of an instance whose time had come.
enum Begun {
    Started,
    /// It runs, is on its way somewhere, or rests for somebody's reason.
    Left(&'static str),
    NoRoom(String),
}

impl Control {
    /// When the next instance is to be started.
    pub fn next_due(&self) -> Option<Timestamp> {
        let all = self.store.list::<Instance>();
        all.iter().filter_map(|found| waits(&found.record)?.next()).min()
    }

    /// Starts the instances whose time has come, and notes what became of each.
    ///
    /// # Errors
    /// The store's. Called again it goes on.
    pub async fn start_due(&self) -> Result<()> {
        let now = self.now();
        let is_due = |schedule: &Schedule| schedule.next().is_some_and(|next| next <= now);
        for found in self.store.list::<Instance>() {
            if !waits(&found.record).is_some_and(is_due) {
                continue;
            }
            let Some(begun) = self.start_if_due(&found, now).await? else { continue };
            let record = &found.record;
            let name = &record.meta.name;
            let (reason, message, is_bad) = match begun {
                Begun::Started => ("scheduled", format!("{name} is started, as its schedule says"), false),
                Begun::Left(why) => {
                    ("skipped", format!("{name} is not started by its schedule: {why}"), true)
                }
                Begun::NoRoom(why) => {
                    ("skipped", format!("{name} cannot be started by its schedule: {why}"), true)
                }
            };
            let subject = Subject { noun: "instance".into(), id: record.meta.id.to_string() };
            self.note_event(Some(record.meta.project), subject, reason, &message, is_bad).await;
        }
        Ok(())
    }

    /// One transaction: that it was due is done with, and it is to run. `None` where that was seen to meanwhile.
    async fn start_if_due(&self, seen: &Stored<Instance>, now: Timestamp) -> Result<Option<Begun>> {
        self.transact(|tx| {
            let Some(found) = self.get::<Instance>(seen.record.meta.id) else { return Ok(None) };
            let mut next = found.record.clone();
            let Some(schedule) = next.schedule.as_mut() else { return Ok(None) };
            if schedule.next().is_none_or(|at| at > now) || found.record.meta.is_deleting() {
                return Ok(None);
            }
            schedule.since = now;
            let begun = match self.phase(&found.record) {
                Phase::Stopped | Phase::Exited | Phase::Failed => {
                    match self.refuse_without_room(&next, next.size) {
                        Err(error) if next.power == Power::Off => Begun::NoRoom(error.to_string()),
                        _ => Begun::Started,
                    }
                }
                Phase::Running | Phase::Paused => Begun::Left("it still runs"),
                _ => Begun::Left("it is on its way somewhere"),
            };
            if matches!(begun, Begun::Started) {
                let is_new = |status: &InstanceStatus| status.boot >= next.boots;
                if self.instance_status(next.meta.id).is_some_and(|status| is_new(&status.record)) {
                    next.boots += 1;
                }
                next.power = Power::On;
                next.hard = false;
            }
            next.meta.touch(now);
            tx.update(&found, &next);
            Ok(Some(begun))
        })
        .await
    }
}

/// The schedule of an instance that waits for its time. One that was put away or sleeps is nobody's to wake.
fn waits(instance: &Instance) -> Option<&Schedule> {
    let rests = instance.shelved || instance.suspended || instance.meta.is_deleting();
    instance.schedule.as_ref().filter(|_| !rests)
}
