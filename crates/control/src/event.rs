//! Events and operations: what happened and what was asked, kept for a while.

use crate::{Caller, Control, schema::OPERATION_BY_SUBJECT, session::EndedSession};
use jiff::Timestamp;
use model::{
    error::Fault,
    id::{EventId, OperationId, ProjectId},
    operation::{Event, Operation, Subject},
    record::Record,
};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};
use store::{Stored, Tx};

/// Events kept in the store; the oldest go first.
pub const EVENTS_MAX: usize = 5_000;
/// Records that are forgotten by one transaction.
const FORGOTTEN_AT_ONCE: usize = 200;
/// Longest name and verb that an operation keeps, and longest words of a refusal.
const WORD_CHARS_MAX: usize = 255;
const TEXT_CHARS_MAX: usize = 1_024;
/// With so many times what is kept, old operations are forgotten at once instead of at the next round.
const HISTORY_SLACK: usize = 2;
/// Operations kept in the store; the oldest that ended go first.
pub const OPERATIONS_MAX: usize = 5_000;

impl Control {
    /// Notes what a caller asked for. Failing to note it stops nothing.
    pub async fn note_operation(
        &self,
        caller: &Caller,
        action: &str,
        noun: &str,
        id: &str,
        name: &str,
        fault: Option<Fault>,
    ) -> Operation {
        let now = self.now();
        let fault = fault.map(|fault| Fault {
            message: cut(&fault.message, TEXT_CHARS_MAX),
            hint: cut(&fault.hint, TEXT_CHARS_MAX),
            ..fault
        });
        let operation = Operation {
            id: OperationId::from_random(rand::random()),
            project: caller.project,
            action: cut(action, WORD_CHARS_MAX),
            subject: Subject { noun: cut(noun, WORD_CHARS_MAX), id: id.to_string() },
            name: cut(name, WORD_CHARS_MAX),
            actor: caller.actor.clone(),
            request_id: caller.request_id.clone(),
            started_at: now,
            ended_at: Some(now),
            fault,
        };
        let mut tx = Tx::new();
        tx.put(&operation);
        if let Err(error) = self.store.commit(tx).await {
            tracing::warn!(%error, action, noun, id, "the operation could not be noted");
        }
        if self.store.mirror().count::<Operation>() > HISTORY_SLACK * OPERATIONS_MAX
            && let Err(error) = self.trim_operations().await
        {
            tracing::warn!(%error, "old operations could not be forgotten");
        }
        operation
    }

    /// Notes that something happened. Failing to note it stops nothing.
    pub async fn note_event(
        &self,
        project: Option<ProjectId>,
        subject: Subject,
        reason: &str,
        message: &str,
        warning: bool,
    ) {
        let event = Event {
            id: EventId::from_random(rand::random()),
            at: self.now(),
            project,
            subject,
            reason: reason.to_string(),
            message: message.to_string(),
            warning,
        };
        let mut tx = Tx::new();
        tx.put(&event);
        if let Err(error) = self.store.commit(tx).await {
            tracing::warn!(%error, reason, message, "the event could not be noted");
        }
    }

    /// Events that the caller may see, newest first.
    pub fn events(&self, caller: &Caller) -> Vec<Arc<Stored<Event>>> {
        let mut all = self.store.list::<Event>();
        all.retain(|e| match e.record.project {
            Some(project) => project == caller.project,
            None => caller.role == crate::Role::Admin,
        });
        all.sort_by_key(|one| Reverse(one.record.at));
        all
    }

    /// Operations on the thing with this id, newest first.
    pub fn operations_on(&self, noun: &str, id: &str) -> Vec<Arc<Stored<Operation>>> {
        let mut all = self.store.by_index(&OPERATION_BY_SUBJECT, id);
        all.retain(|o| o.record.subject.noun == noun);
        all.sort_by_key(|one| Reverse(one.record.started_at));
        all
    }

    /// Operations of the caller's project, newest first.
    pub fn operations(&self, caller: &Caller) -> Vec<Arc<Stored<Operation>>> {
        let mut all = self.store.list::<Operation>();
        all.retain(|o| o.record.project == caller.project);
        all.sort_by_key(|one| Reverse(one.record.started_at));
        all
    }

    /// Forgets the oldest events and operations beyond what is kept.
    ///
    /// # Errors
    /// The store's, as a sentence.
    pub async fn trim_history(&self) -> Result<(), String> {
        let now = self.now();
        let events = self.store.list::<Event>();
        let old = surplus(&events, EVENTS_MAX, |one| (one.project, one.at));
        self.forget_all::<Event>(old).await?;
        self.trim_operations().await?;
        // A session that would have ended by now need not be kept out any more.
        let ended = self.store.list::<EndedSession>();
        let old = ended.iter().filter(|s| s.record.until <= now).map(|s| s.record.key()).collect();
        self.forget_all::<EndedSession>(old).await
    }

    async fn trim_operations(&self) -> Result<(), String> {
        let operations = self.store.list::<Operation>();
        let old = surplus(&operations, OPERATIONS_MAX, |one| (Some(one.project), one.started_at));
        self.forget_all::<Operation>(old).await
    }

    /// Removes records some at a time: a transaction has a limit.
    async fn forget_all<R: Record>(&self, keys: Vec<String>) -> Result<(), String> {
        for some in keys.chunks(FORGOTTEN_AT_ONCE) {
            let mut tx = Tx::new();
            for key in some {
                tx.remove::<R>(key);
            }
            self.store.commit(tx).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Keys of the records beyond `max`: the oldest of those projects that have the most, so that what one project does
/// takes no other's history.
fn surplus<R: Record>(
    all: &[Arc<Stored<R>>],
    max: usize,
    of: impl Fn(&R) -> (Option<ProjectId>, Timestamp),
) -> Vec<String> {
    let mut by_project: BTreeMap<Option<ProjectId>, Vec<(Timestamp, &R)>> = BTreeMap::new();
    for one in all {
        let (project, at) = of(&one.record);
        by_project.entry(project).or_default().push((at, &one.record));
    }
    let each = fair_share(by_project.values().map(Vec::len).collect(), max);
    let oldest = by_project.into_values().flat_map(|mut some| {
        some.sort_by_key(|(at, _)| Reverse(*at));
        some.into_iter().skip(each).map(|(_, record)| record.key())
    });
    oldest.collect()
}

/// The largest number of records that each may keep so that all together keep at most `max`.
fn fair_share(mut counts: Vec<usize>, max: usize) -> usize {
    counts.sort_unstable();
    let mut left = max;
    for (index, count) in counts.iter().enumerate() {
        let share = left / (counts.len() - index);
        if *count > share {
            return share;
        }
        left -= count;
    }
    max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_least_keeps_all() {
        for (counts, max, share) in [
            (vec![], 10, 10),
            (vec![3, 4], 10, 10),
            (vec![1_000, 3], 10, 7),
            (vec![5, 1_000, 1_000], 25, 10),
            (vec![9, 9, 9], 10, 3),
        ] {
            assert_eq!(fair_share(counts.clone(), max), share, "{counts:?}");
            assert!(counts.iter().map(|count| count.min(&share)).sum::<usize>() <= max, "{counts:?}");
        }
    }

    #[test]
    fn long_words_are_cut_at_a_character() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äöü…");
    }
}
