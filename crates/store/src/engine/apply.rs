//! The meaning of a transaction, once, for every engine that evaluates transactions itself.
//!
//! Engines differ in where rows lie; what a compare means, which revision a change takes and which
//! events follow must not differ, so it is written here over [`Rows`].

use super::{
    Compare, Error, Event, KeyValue, LeaseId, Op, Outcome, Relation, Reply, Result, Revision, Target, Txn,
};

/// The current keys and leases, as the transaction being applied sees them.
pub trait Rows {
    /// One key.
    fn get(&mut self, key: &str) -> Result<Option<KeyValue>>;
    /// All keys with this prefix, in byte order.
    fn range(&mut self, prefix: &str) -> Result<Vec<KeyValue>>;
    /// All keys that live by this lease, in byte order.
    fn leased(&mut self, lease: LeaseId) -> Result<Vec<KeyValue>>;
    /// Whether the lease lives.
    fn lease_exists(&mut self, lease: LeaseId) -> Result<bool>;
    /// Makes the change of an event real.
    fn write(&mut self, revision: Revision, event: &Event) -> Result<()>;
}

/// Evaluates and applies `txn` on top of `head`.
///
/// Rules are checked before the first write, so an [`Error::Invalid`] or [`Error::LeaseNotFound`] leaves
/// the rows untouched; any other error comes from the rows, and the caller must roll back.
pub fn apply(txn: &Txn, rows: &mut dyn Rows, head: Revision) -> Result<(Outcome, Vec<Event>)> {
    txn.check()?;
    let mut succeeded = true;
    for compare in &txn.compares {
        succeeded = succeeded && holds(compare, rows.get(&compare.key)?.as_ref());
    }
    let ops = if succeeded { &txn.then } else { &txn.otherwise };
    for op in ops {
        if let Op::Put { lease: Some(lease), .. } = op
            && !rows.lease_exists(*lease)?
        {
            return Err(Error::LeaseNotFound { lease: *lease });
        }
    }
    let revision = head.next();
    let mut events = Vec::new();
    let mut replies = Vec::with_capacity(ops.len());
    for op in ops {
        replies.push(run(op, rows, revision, &mut events)?);
    }
    let revision = if events.is_empty() { head } else { revision };
    Ok((Outcome { succeeded, revision, replies }, events))
}

/// Deletes `keys` in one revision, as the end of a lease does.
pub fn delete_all(keys: Vec<KeyValue>, rows: &mut dyn Rows, revision: Revision) -> Result<Vec<Event>> {
    let mut events = Vec::with_capacity(keys.len());
    for before in keys {
        delete(before, rows, revision, &mut events)?;
    }
    Ok(events)
}

fn run(op: &Op, rows: &mut dyn Rows, revision: Revision, events: &mut Vec<Event>) -> Result<Reply> {
    match op {
        Op::Put { key, value, lease } => {
            let before = rows.get(key)?;
            let now = KeyValue {
                key: key.clone(),
                value: value.clone(),
                create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
                mod_revision: revision,
                version: before.as_ref().map_or(0, |kv| kv.version) + 1,
                lease: *lease,
            };
            let event = Event { key: key.clone(), now: Some(now), before };
            rows.write(revision, &event)?;
            events.push(event);
            Ok(Reply::Put)
        }
        Op::Delete { key } => match rows.get(key)? {
            Some(before) => delete(before, rows, revision, events).map(|()| Reply::Deleted(1)),
            None => Ok(Reply::Deleted(0)),
        },
        Op::DeletePrefix { prefix } => {
            let keys = rows.range(prefix)?;
            let count = keys.len() as u64;
            for before in keys {
                delete(before, rows, revision, events)?;
            }
            Ok(Reply::Deleted(count))
        }
        Op::Get { key } => rows.get(key).map(Reply::Got),
    }
}

fn delete(before: KeyValue, rows: &mut dyn Rows, revision: Revision, events: &mut Vec<Event>) -> Result<()> {
    let event = Event { key: before.key.clone(), now: None, before: Some(before) };
    rows.write(revision, &event)?;
    events.push(event);
    Ok(())
}

fn holds(compare: &Compare, found: Option<&KeyValue>) -> bool {
    let ordering = match &compare.target {
        Target::ModRevision(wanted) => found.map_or(Revision::ABSENT, |kv| kv.mod_revision).cmp(wanted),
        Target::CreateRevision(wanted) => found.map_or(Revision::ABSENT, |kv| kv.create_revision).cmp(wanted),
        Target::Version(wanted) => found.map_or(0, |kv| kv.version).cmp(wanted),
        Target::Lease(wanted) => {
            let number = |lease: Option<LeaseId>| lease.map_or(0, |lease| lease.0);
            number(found.and_then(|kv| kv.lease)).cmp(&number(*wanted))
        }
        Target::Value(wanted) => match found {
            Some(kv) => kv.value.cmp(wanted),
            None => return false,
        },
    };
    match compare.relation {
        Relation::Equal => ordering.is_eq(),
        Relation::NotEqual => ordering.is_ne(),
        Relation::Less => ordering.is_lt(),
        Relation::Greater => ordering.is_gt(),
    }
}
