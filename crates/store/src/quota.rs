//! Counters: how much of something a scope uses, changed in the transaction that uses it.
//!
//! They exist so that a limit holds under any race: the count is a record, every change of it compares the
//! revision it was read at, so two transactions can never both take the last free place. What is counted
//! and where the limit comes from is no concern of the store.

use model::record::Record;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{Compare, KeyValue, Op},
    envelope,
    error::{Error, Result},
    key::record_key,
};

/// How much of `name` is used in `scope`. Every [`crate::Mirror`] holds this table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// What the count belongs to, for example a project's id.
    pub scope: String,
    /// What is counted, for example `instances`.
    pub name: String,
    /// The count.
    pub used: u64,
}

impl Record for Counter {
    const TABLE: &'static str = "counter";

    fn key(&self) -> String {
        counter_key(&self.scope, &self.name)
    }
}

/// The key of a counter in its table.
pub fn counter_key(scope: &str, name: &str) -> String {
    format!("{scope}/{name}")
}

/// A wanted change of a counter.
#[derive(Debug, Clone)]
pub(crate) struct Count {
    pub(crate) scope: String,
    pub(crate) name: String,
    pub(crate) delta: i64,
    pub(crate) limit: Option<u64>,
}

impl Count {
    pub(crate) fn engine_key(&self) -> String {
        record_key(Counter::TABLE, &counter_key(&self.scope, &self.name))
    }

    /// The compare and the write that make this change, given what the counter is thought to hold.
    pub(crate) fn compile(&self, found: Option<&KeyValue>) -> Result<(Compare, Op)> {
        let used = match found {
            Some(kv) => {
                envelope::decode::<Counter>(&kv.value)
                    .map_err(|error| Error::Corrupt {
                        table: Counter::TABLE.into(),
                        key: counter_key(&self.scope, &self.name),
                        reason: error.to_string(),
                    })?
                    .used
            }
            None => 0,
        };
        let counter = Counter { scope: self.scope.clone(), name: self.name.clone(), used: self.after(used)? };
        let value =
            envelope::encode(&counter).map_err(|error| Error::Invalid { reason: error.to_string() })?;
        let key = self.engine_key();
        let compare = match found {
            Some(kv) => Compare::unchanged(&key, kv.mod_revision),
            None => Compare::absent(&key),
        };
        Ok((compare, Op::put(key, value)))
    }

    /// The count after the change. Giving back always works, even past zero: a deletion must not be stopped
    /// by a count that is wrong already. Taking is refused past the limit.
    fn after(&self, used: u64) -> Result<u64> {
        let after = used.saturating_add_signed(self.delta);
        match self.limit {
            Some(limit) if self.delta > 0 && after > limit => Err(Error::Exceeded {
                scope: self.scope.clone(),
                name: self.name.clone(),
                used,
                requested: self.delta.unsigned_abs(),
                limit,
            }),
            _ => Ok(after),
        }
    }
}
