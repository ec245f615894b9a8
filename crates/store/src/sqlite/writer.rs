//! The writer: one thread that owns the writing connection, the leases' clocks and the store's lock.
//!
//! It takes everything that waits, applies it in one SQLite transaction, commits (one fsync), announces the
//! revisions, then answers. A request that is refused by a rule leaves no trace; an error of the file fails
//! the whole group, which is rolled back.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Options,
    group::{Done, Group},
    lock::StoreLock,
    open::read_meta,
    reader::{Reader, failure},
};
use crate::engine::{Error, LeaseId, Outcome, Result, Revision, Txn};

/// The most requests that share one SQLite transaction.
const GROUP_MAX: usize = 256;
/// How long to wait before ending a lease is tried again after the file failed.
const LEASE_RETRY: Duration = Duration::from_secs(1);

/// What the writer can be asked.
pub(super) enum What {
    Commit(Txn),
    Grant(Duration),
    KeepAlive(LeaseId),
    Revoke(LeaseId),
    /// The lease's time is over; asked by the writer itself.
    Expire(LeaseId),
    Compact(Revision),
}

pub(super) struct Request {
    pub(super) what: What,
    pub(super) reply: Option<oneshot::Sender<Result<Answer>>>,
    /// The place in the queue, given back when the request is answered.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

impl Request {
    fn answer(self, answer: Result<Answer>) {
        if let Some(reply) = self.reply {
            // Who asked may have stopped waiting.
            let _ = reply.send(answer);
        }
    }
}

#[derive(Debug)]
pub(super) enum Answer {
    Outcome(Outcome),
    Lease(LeaseId),
    Ttl(Duration),
    Done,
}

impl Answer {
    pub(super) fn unexpected(self, operation: &'static str) -> Error {
        Error::Unavailable { operation, detail: format!("the writer answered {self:?}") }
    }
}

struct Lease {
    ttl: Duration,
    deadline: Instant,
}

pub(super) struct Writer {
    connection: Connection,
    reader: Arc<Reader>,
    leases: HashMap<LeaseId, Lease>,
    options: Options,
    // Last, so that the lock is let go when the connection is closed already.
    _lock: StoreLock,
}

impl Drop for Writer {
    /// However the writer ends, even by a panic, watchers are told.
    fn drop(&mut self) {
        self.reader.close();
    }
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        lock: StoreLock,
        reader: Arc<Reader>,
        leases: Vec<(LeaseId, Duration)>,
        options: Options,
    ) -> Writer {
        let now = Instant::now();
        let leases = leases.into_iter().map(|(id, ttl)| (id, Lease { ttl, deadline: now + ttl })).collect();
        Writer { connection, reader, leases, options, _lock: lock }
    }

    /// Serves until all senders are gone.
    pub(super) fn run(mut self, requests: mpsc::Receiver<Request>) {
        while let Some(group) = self.next_group(&requests) {
            self.serve(group);
        }
    }

    /// Waits for a request or the end of a lease; `None` when nobody can ask any more.
    fn next_group(&mut self, requests: &mpsc::Receiver<Request>) -> Option<Vec<Request>> {
        let mut group = Vec::new();
        let due = self.leases.values().map(|lease| lease.deadline).min();
        match due {
            None => self.admit(requests.recv().ok()?, &mut group),
            Some(due) => match requests.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(request) => self.admit(request, &mut group),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            },
        }
        while group.len() < GROUP_MAX {
            let Ok(request) = requests.try_recv() else { break };
            self.admit(request, &mut group);
        }
        let now = Instant::now();
        let over = self.leases.iter().filter(|(_, lease)| lease.deadline <= now);
        let expire =
            |(id, _): (&LeaseId, &Lease)| Request { what: What::Expire(*id), reply: None, _place: None };
        group.extend(over.map(expire));
        Some(group)
    }

    /// Keeping a lease alive needs no disk and must not come late, so it is done at once.
    fn admit(&mut self, request: Request, group: &mut Vec<Request>) {
        let What::KeepAlive(lease) = request.what else {
            return group.push(request);
        };
        let answer = match self.leases.get_mut(&lease) {
            Some(found) => {
                found.deadline = Instant::now() + found.ttl;
                Ok(Answer::Ttl(found.ttl))
            }
            None => Err(Error::LeaseNotFound { lease }),
        };
        request.answer(answer);
    }

    fn serve(&mut self, group: Vec<Request>) {
        if group.is_empty() {
            return;
        }
        match self.write(&group) {
            Ok((done, answers)) => {
                self.publish(done);
                for (request, answer) in group.into_iter().zip(answers) {
                    request.answer(answer);
                }
            }
            Err(error) => {
                tracing::error!(%error, requests = group.len(), "a group of store writes failed");
                for request in group {
                    self.retry_expiry_later(&request.what);
                    request.answer(Err(error.clone()));
                }
            }
        }
    }

    fn retry_expiry_later(&mut self, what: &What) {
        if let What::Expire(lease) = what
            && let Some(lease) = self.leases.get_mut(lease)
        {
            lease.deadline = Instant::now() + LEASE_RETRY;
        }
    }

    /// Applies all requests in one SQLite transaction and commits it.
    fn write(&mut self, group: &[Request]) -> Result<(Done, Vec<Result<Answer>>)> {
        let path = self.reader.path();
        let failed = |error: rusqlite::Error| failure("commit", path, &error);
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior).map_err(failed)?;
        let before = read_meta(&transaction).map_err(failed)?;
        let mut group_work = Group::new(&transaction, path, before);
        let mut answers = Vec::with_capacity(group.len());
        for request in group {
            let answer = group_work.run(&request.what);
            if let Err(error @ (Error::Unavailable { .. } | Error::Corrupt { .. })) = answer {
                return Err(error);
            }
            answers.push(answer);
        }
        let done = group_work.finish(before, self.options.history_revisions).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok((done, answers))
    }

    fn publish(&mut self, done: Done) {
        let now = Instant::now();
        for (lease, ttl) in done.granted {
            self.leases.insert(lease, Lease { ttl, deadline: now + ttl });
        }
        for lease in done.ended {
            self.leases.remove(&lease);
        }
        for batch in done.batches {
            self.reader.feed().publish(batch);
        }
    }
}
