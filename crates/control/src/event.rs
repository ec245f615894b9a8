//! Events and operations: what happened and what was asked, kept for a while.

use crate::{Caller, Control, schema::OPERATION_BY_SUBJECT, session::EndedSession};
use model::{
    error::Fault,
    id::{EventId, OperationId, ProjectId},
    operation::{Event, Operation, Subject},
    record::Record,
};
use std::{cmp::Reverse, sync::Arc};
use store::{Stored, Tx};

/// Events kept in the store; the oldest go first.
pub const EVENTS_MAX: usize = 5_000;
/// Records that are forgotten by one transaction.
const FORGOTTEN_AT_ONCE: usize = 200;
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
        let operation = Operation {
            id: OperationId::from_random(rand::random()),
            project: caller.project,
            action: action.to_string(),
            subject: Subject { noun: noun.to_string(), id: id.to_string() },
            name: name.to_string(),
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
        let mut events = self.store.list::<Event>();
        events.sort_by_key(|one| Reverse(one.record.at));
        let old = events.iter().skip(EVENTS_MAX).map(|e| e.record.key()).collect();
        self.forget_all::<Event>(old).await?;
        let mut operations = self.store.list::<Operation>();
        operations.sort_by_key(|one| Reverse(one.record.started_at));
        let old = operations.iter().skip(OPERATIONS_MAX).map(|o| o.record.key()).collect();
        self.forget_all::<Operation>(old).await?;
        // A session that would have ended by now need not be kept out any more.
        let ended = self.store.list::<EndedSession>();
        let old = ended.iter().filter(|s| s.record.until <= now).map(|s| s.record.key()).collect();
        self.forget_all::<EndedSession>(old).await
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
