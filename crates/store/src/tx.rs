//! A typed transaction: records, unique claims and counters that change together or not at all.
//!
//! It exists so that a caller says what must be true and what shall become true, in nouns, and gets back
//! which of these lost. It compiles to one engine transaction whose failing branch reads every key that was
//! compared, so the reason is known from the same revision that refused.

use std::collections::{BTreeMap, btree_map::Entry};

use bytes::Bytes;
use model::record::Record;

use crate::{
    engine::{Compare, KeyValue, LeaseId, Op, Reply, Revision, Txn},
    envelope,
    error::{Error, Result},
    key::{record_key, unique_key},
    quota::Count,
};

/// Changes to commit together with [`crate::Store::commit`].
///
/// A mistake (one record changed twice, a record that JSON cannot express) is kept and comes back from the
/// commit as [`Error::Invalid`], so that building needs no error handling.
#[derive(Debug, Clone, Default)]
pub struct Tx {
    records: BTreeMap<String, RecordChange>,
    uniques: BTreeMap<String, UniqueChange>,
    counts: BTreeMap<String, Count>,
    mistake: Option<String>,
}

#[derive(Debug, Clone)]
struct RecordChange {
    table: &'static str,
    key: String,
    expected: Expected,
    write: Option<Write>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Anything,
    Absent,
    Present,
    Unchanged(Revision),
}

#[derive(Debug, Clone)]
enum Write {
    Put { value: Bytes, lease: Option<LeaseId> },
    Delete,
}

#[derive(Debug, Clone)]
struct UniqueChange {
    scope: String,
    value: String,
    release: Option<String>,
    claim: Option<String>,
    /// What somebody else has stays theirs, and that is fine.
    lenient: bool,
}

/// What is known of the keys whose compare depends on what they hold: counters, and claims seen to be
/// settled already.
pub(crate) type Seen = BTreeMap<String, Option<KeyValue>>;

impl Tx {
    /// A transaction that does nothing yet.
    pub fn new() -> Tx {
        Tx::default()
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.uniques.is_empty() && self.counts.is_empty() && self.mistake.is_none()
    }

    /// Adds a record that must not exist; [`Error::Exists`] if it does.
    pub fn create<R: Record>(&mut self, record: &R) -> &mut Tx {
        self.write(record, Expected::Absent, None)
    }

    /// Replaces a record that must still be as it was at `expected` ([`crate::Stored::mod_revision`]);
    /// [`Error::Conflict`] if it is not.
    pub fn update<R: Record>(&mut self, record: &R, expected: Revision) -> &mut Tx {
        self.write(record, Expected::Unchanged(expected), None)
    }

    /// Creates or replaces a record whatever is there. Only for records with one writer that owns them whole.
    pub fn put<R: Record>(&mut self, record: &R) -> &mut Tx {
        self.write(record, Expected::Anything, None)
    }

    /// As [`Self::put`], for a record that disappears when the lease ends.
    pub fn put_leased<R: Record>(&mut self, record: &R, lease: LeaseId) -> &mut Tx {
        self.write(record, Expected::Anything, Some(lease))
    }

    /// Deletes a record that must still be as it was at `expected`.
    pub fn delete<R: Record>(&mut self, key: &str, expected: Revision) -> &mut Tx {
        self.change::<R>(key, Expected::Unchanged(expected), Some(Write::Delete))
    }

    /// Deletes a record whatever it holds; fine if it does not exist.
    pub fn remove<R: Record>(&mut self, key: &str) -> &mut Tx {
        self.change::<R>(key, Expected::Anything, Some(Write::Delete))
    }

    /// Commits only if this record, which is not written here, is still as it was at `expected`.
    pub fn expect_unchanged<R: Record>(&mut self, key: &str, expected: Revision) -> &mut Tx {
        self.change::<R>(key, Expected::Unchanged(expected), None)
    }

    /// Commits only if this record, which is not written here, exists.
    pub fn expect_exists<R: Record>(&mut self, key: &str) -> &mut Tx {
        self.change::<R>(key, Expected::Present, None)
    }

    /// Commits only if this record does not exist.
    pub fn expect_absent<R: Record>(&mut self, key: &str) -> &mut Tx {
        self.change::<R>(key, Expected::Absent, None)
    }

    /// Takes `value` in `scope` for `owner`; [`Error::Taken`] if somebody else has it. Claiming what one
    /// owns already is fine. `owner` is any non-empty text, usually the record's key.
    pub fn claim(&mut self, scope: &str, value: &str, owner: &str) -> &mut Tx {
        self.unique(scope, value, None, Some(owner), false)
    }

    /// Takes `value` in `scope` for `owner` unless somebody else has it, which is fine.
    pub fn claim_if_free(&mut self, scope: &str, value: &str, owner: &str) -> &mut Tx {
        self.unique(scope, value, None, Some(owner), true)
    }

    /// Gives `value` in `scope` back; [`Error::Taken`] if somebody else than `owner` has it. Releasing what
    /// nobody has is fine.
    pub fn release(&mut self, scope: &str, value: &str, owner: &str) -> &mut Tx {
        self.unique(scope, value, Some(owner), None, false)
    }

    /// Gives `value` in `scope` back if `owner` has it; fine if somebody else or nobody has it.
    pub fn release_if_owned(&mut self, scope: &str, value: &str, owner: &str) -> &mut Tx {
        self.unique(scope, value, Some(owner), None, true)
    }

    /// Adds `delta` to a counter; [`Error::Exceeded`] if that takes it above `limit`. Giving back never
    /// fails and stops at zero. Several changes of one counter add up; the smallest limit holds.
    pub fn count(&mut self, scope: &str, name: &str, delta: i64, limit: Option<u64>) -> &mut Tx {
        if scope.is_empty() || name.is_empty() || name.contains('/') {
            return self.mistaken(format!("{scope:?} {name:?} cannot be a counter"));
        }
        let count = Count { scope: scope.into(), name: name.into(), delta, limit };
        match self.counts.entry(count.engine_key()) {
            Entry::Vacant(entry) => {
                entry.insert(count);
            }
            Entry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                entry.delta = entry.delta.saturating_add(delta);
                entry.limit = entry.limit.into_iter().chain(limit).min();
            }
        }
        self
    }

    fn write<R: Record>(&mut self, record: &R, expected: Expected, lease: Option<LeaseId>) -> &mut Tx {
        match envelope::encode(record) {
            Ok(value) => self.change::<R>(&record.key(), expected, Some(Write::Put { value, lease })),
            Err(error) => self.mistaken(format!("{} {} cannot be stored: {error}", R::TABLE, record.key())),
        }
    }

    fn change<R: Record>(&mut self, key: &str, expected: Expected, write: Option<Write>) -> &mut Tx {
        if key.is_empty() {
            return self.mistaken(format!("a {} has an empty key", R::TABLE));
        }
        let change = RecordChange { table: R::TABLE, key: key.into(), expected, write };
        match self.records.entry(record_key(R::TABLE, key)) {
            Entry::Vacant(entry) => {
                entry.insert(change);
            }
            Entry::Occupied(mut entry) => {
                if !entry.get_mut().merge(change) {
                    return self.mistaken(format!("{} {key} is changed twice in different ways", R::TABLE));
                }
            }
        }
        self
    }

    fn unique(
        &mut self,
        scope: &str,
        value: &str,
        release: Option<&str>,
        claim: Option<&str>,
        lenient: bool,
    ) -> &mut Tx {
        if scope.is_empty() || value.is_empty() || release == Some("") || claim == Some("") {
            return self.mistaken(format!("{value:?} in {scope:?} cannot be claimed or released"));
        }
        let change = self.uniques.entry(unique_key(scope, value)).or_insert_with(|| UniqueChange {
            scope: scope.into(),
            value: value.into(),
            release: None,
            claim: None,
            lenient: true,
        });
        change.lenient &= lenient;
        if change.lenient && (both(&change.release, release) || both(&change.claim, claim)) {
            // Of several that share a value in one transaction, the first one decides.
            return self;
        }
        if both(&change.release, release) || both(&change.claim, claim) {
            return self.mistaken(format!("{value} in {scope} is claimed or released for two owners"));
        }
        change.release = change.release.take().or(release.map(str::to_owned));
        change.claim = change.claim.take().or(claim.map(str::to_owned));
        self
    }

    fn mistaken(&mut self, reason: String) -> &mut Tx {
        self.mistake.get_or_insert(reason);
        self
    }

    /// The counters that are changed, by engine key; what they hold must be known before compiling.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&String, &Count)> {
        self.counts.iter()
    }

    /// The engine transaction, given what the counters and settled claims are thought to hold.
    pub(crate) fn compile(&self, seen: &Seen) -> Result<Txn> {
        if let Some(reason) = &self.mistake {
            return Err(Error::Invalid { reason: reason.clone() });
        }
        let mut txn = Txn::new();
        for (key, change) in &self.records {
            change.compile(key, &mut txn);
        }
        for (key, change) in &self.uniques {
            change.compile(key, seen.get(key), &mut txn)?;
        }
        for (key, count) in &self.counts {
            let (compare, op) = count.compile(seen.get(key).and_then(Option::as_ref))?;
            txn.compares.push(compare);
            txn.then.push(op);
        }
        txn.otherwise = txn.compares.iter().map(|compare| Op::get(&compare.key)).collect();
        Ok(txn)
    }

    /// Why the transaction was refused. `Ok` means that only counters or settled claims stood differently
    /// than thought; they are noted in `seen`, and compiling again will do.
    pub(crate) fn judge(&self, txn: &Txn, replies: Vec<Reply>, seen: &mut Seen) -> Result<()> {
        for (compare, reply) in txn.compares.iter().zip(replies) {
            let Reply::Got(found) = reply else { continue };
            if let Some(change) = self.records.get(&compare.key) {
                change.judge(found.as_ref())?;
            } else {
                seen.insert(compare.key.clone(), found);
            }
        }
        Ok(())
    }
}

/// Whether two different owners are named.
fn both(known: &Option<String>, new: Option<&str>) -> bool {
    matches!((known, new), (Some(known), Some(new)) if known != new)
}

impl RecordChange {
    /// Joins an expectation with a write of the same record; false if they contradict each other.
    fn merge(&mut self, other: RecordChange) -> bool {
        if self.write.is_some() && other.write.is_some() {
            return false;
        }
        self.expected = match (self.expected, other.expected) {
            (Expected::Anything, expected) | (expected, Expected::Anything) => expected,
            (Expected::Present, Expected::Unchanged(revision))
            | (Expected::Unchanged(revision), Expected::Present) => Expected::Unchanged(revision),
            (one, two) if one == two => one,
            _ => return false,
        };
        self.write = self.write.take().or(other.write);
        true
    }

    fn compile(&self, key: &str, txn: &mut Txn) {
        match self.expected {
            Expected::Anything => {}
            Expected::Absent => txn.compares.push(Compare::absent(key)),
            Expected::Present => txn.compares.push(Compare::exists(key)),
            Expected::Unchanged(revision) => txn.compares.push(Compare::unchanged(key, revision)),
        }
        match &self.write {
            Some(Write::Put { value, lease }) => {
                txn.then.push(Op::Put { key: key.into(), value: value.clone(), lease: *lease });
            }
            Some(Write::Delete) => txn.then.push(Op::delete(key)),
            None => {}
        }
    }

    fn judge(&self, found: Option<&KeyValue>) -> Result<()> {
        let found = found.map_or(Revision::ABSENT, |kv| kv.mod_revision);
        let (table, key) = (self.table.to_owned(), self.key.clone());
        match self.expected {
            Expected::Anything => Ok(()),
            Expected::Absent if found == Revision::ABSENT => Ok(()),
            Expected::Absent => Err(Error::Exists { table, key }),
            Expected::Present if found > Revision::ABSENT => Ok(()),
            Expected::Present => Err(Error::Conflict { table, key, expected: Revision::ABSENT, found }),
            Expected::Unchanged(expected) if found == expected => Ok(()),
            Expected::Unchanged(expected) => Err(Error::Conflict { table, key, expected, found }),
        }
    }
}

impl UniqueChange {
    /// First tried as it should be (a claim finds nothing, a release finds the owner); when that failed,
    /// `seen` says what is there, and either that is fine too or it belongs to somebody else.
    fn compile(&self, key: &str, seen: Option<&Option<KeyValue>>, txn: &mut Txn) -> Result<()> {
        let found = match seen {
            Some(found) => found.as_ref().map(|kv| kv.value.clone()),
            None => self.release.clone().map(Bytes::from),
        };
        match found {
            None => txn.compares.push(Compare::absent(key)),
            Some(owner) => {
                let ours = |wanted: &Option<String>| wanted.as_ref().is_some_and(|w| w.as_bytes() == owner);
                if !ours(&self.release) && !ours(&self.claim) && self.lenient {
                    txn.compares.push(Compare::value(key, owner));
                    return Ok(());
                }
                if !ours(&self.release) && !ours(&self.claim) {
                    return Err(Error::Taken {
                        scope: self.scope.clone(),
                        value: self.value.clone(),
                        owner: String::from_utf8_lossy(&owner).into_owned(),
                    });
                }
                let keep = ours(&self.claim);
                txn.compares.push(Compare::value(key, owner));
                if keep {
                    return Ok(());
                }
                if self.claim.is_none() {
                    txn.then.push(Op::delete(key));
                }
            }
        }
        if let Some(owner) = &self.claim {
            txn.then.push(Op::put(key, owner.clone()));
        }
        Ok(())
    }
}
