//! A transaction: compares, what to do when all hold, what to do otherwise, and the answer.

use bytes::Bytes;

use super::{
    Error, KeyValue, LeaseId, Result, Revision, TXN_OPS_MAX, VALUE_BYTES_MAX, check_key, check_prefix,
};

/// How the stored value must stand to the given one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// They are the same.
    Equal,
    /// They differ.
    NotEqual,
    /// The stored one is smaller.
    Less,
    /// The stored one is greater.
    Greater,
}

/// What of a key is compared. An absent key has revisions, version and lease 0, and no value: a compare
/// of the value of an absent key never holds, whatever the relation (as in etcd).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The revision that changed the key last.
    ModRevision(Revision),
    /// The revision that made the key.
    CreateRevision(Revision),
    /// The number of changes since it was made.
    Version(u64),
    /// The value, byte by byte.
    Value(Bytes),
    /// The lease.
    Lease(Option<LeaseId>),
}

/// One condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key that is looked at.
    pub key: String,
    /// How the stored value must stand to the target.
    pub relation: Relation,
    /// What is compared, and with what.
    pub target: Target,
}

impl Compare {
    /// The key must not exist.
    pub fn absent(key: impl Into<String>) -> Compare {
        Compare::equal(key, Target::CreateRevision(Revision::ABSENT))
    }
    /// The key must exist.
    pub fn exists(key: impl Into<String>) -> Compare {
        Compare {
            key: key.into(),
            relation: Relation::NotEqual,
            target: Target::CreateRevision(Revision::ABSENT),
        }
    }
    /// The key must have been changed last by `revision`.
    pub fn unchanged(key: impl Into<String>, revision: Revision) -> Compare {
        Compare::equal(key, Target::ModRevision(revision))
    }
    /// The key must exist and hold exactly `value`.
    pub fn value(key: impl Into<String>, value: impl Into<Bytes>) -> Compare {
        Compare::equal(key, Target::Value(value.into()))
    }
    /// The target must be equal.
    pub fn equal(key: impl Into<String>, target: Target) -> Compare {
        Compare { key: key.into(), relation: Relation::Equal, target }
    }
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key. Without a lease it lets go of the one it had.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Bytes,
        /// The lease whose end deletes it.
        lease: Option<LeaseId>,
    },
    /// Deletes a key; one that does not exist is fine.
    Delete {
        /// The key.
        key: String,
    },
    /// Deletes every key that starts with the prefix.
    DeletePrefix {
        /// Not empty.
        prefix: String,
    },
    /// Reads a key; sees what earlier steps of this transaction did.
    Get {
        /// The key.
        key: String,
    },
}

impl Op {
    /// Sets a key without a lease.
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Op {
        Op::Put { key: key.into(), value: value.into(), lease: None }
    }
    /// Sets a key that lives as long as the lease.
    pub fn put_leased(key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Op {
        Op::Put { key: key.into(), value: value.into(), lease: Some(lease) }
    }
    /// Deletes a key.
    pub fn delete(key: impl Into<String>) -> Op {
        Op::Delete { key: key.into() }
    }
    /// Deletes all keys under a prefix.
    pub fn delete_prefix(prefix: impl Into<String>) -> Op {
        Op::DeletePrefix { prefix: prefix.into() }
    }
    /// Reads a key.
    pub fn get(key: impl Into<String>) -> Op {
        Op::Get { key: key.into() }
    }
}

/// Compares and the two branches. Within one branch no key may be written twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `then` to run; none means it always runs.
    pub compares: Vec<Compare>,
    /// Runs when all compares hold.
    pub then: Vec<Op>,
    /// Runs otherwise.
    pub otherwise: Vec<Op>,
}

impl Txn {
    /// A transaction that does nothing yet.
    pub fn new() -> Txn {
        Txn::default()
    }
    /// Adds a condition.
    pub fn when(mut self, compare: Compare) -> Txn {
        self.compares.push(compare);
        self
    }
    /// Adds a step for when all conditions hold.
    pub fn then(mut self, op: Op) -> Txn {
        self.then.push(op);
        self
    }
    /// Adds a step for when a condition does not hold.
    pub fn otherwise(mut self, op: Op) -> Txn {
        self.otherwise.push(op);
        self
    }

    /// Refuses what no engine can do: bad keys, too large values, too many steps, one key written twice.
    pub fn check(&self) -> Result<()> {
        if self.compares.len() > TXN_OPS_MAX {
            return Err(Error::invalid(format!(
                "{} compares in one transaction; at most {TXN_OPS_MAX} are allowed",
                self.compares.len()
            )));
        }
        for compare in &self.compares {
            check_key(&compare.key)?;
        }
        check_branch(&self.then)?;
        check_branch(&self.otherwise)
    }
}

fn check_branch(ops: &[Op]) -> Result<()> {
    if ops.len() > TXN_OPS_MAX {
        return Err(Error::invalid(format!(
            "{} operations in one branch of a transaction; at most {TXN_OPS_MAX} are allowed",
            ops.len()
        )));
    }
    let mut written = std::collections::BTreeSet::new();
    let mut prefixes = Vec::new();
    for op in ops {
        match op {
            Op::Put { key, value, .. } => {
                check_key(key)?;
                if value.len() > VALUE_BYTES_MAX {
                    return Err(Error::invalid(format!(
                        "the value of {key} has {} bytes; at most {VALUE_BYTES_MAX} are allowed",
                        value.len()
                    )));
                }
                if !written.insert(key.as_str()) {
                    return Err(written_twice(key));
                }
            }
            Op::Delete { key } => {
                check_key(key)?;
                if !written.insert(key.as_str()) {
                    return Err(written_twice(key));
                }
            }
            Op::DeletePrefix { prefix } if prefix.is_empty() => {
                return Err(Error::invalid("deleting the empty prefix would empty the store"));
            }
            Op::DeletePrefix { prefix } => {
                check_prefix(prefix)?;
                prefixes.push(prefix.as_str());
            }
            Op::Get { key } => check_key(key)?,
        }
    }
    check_prefixes(&written, &prefixes)
}

/// A deleted prefix may cover neither a written key nor another deleted prefix: the order would matter.
fn check_prefixes(written: &std::collections::BTreeSet<&str>, prefixes: &[&str]) -> Result<()> {
    for (position, prefix) in prefixes.iter().enumerate() {
        if let Some(key) = written.iter().find(|key| key.starts_with(prefix)) {
            return Err(written_twice(key));
        }
        let others = prefixes.iter().enumerate().filter(|(other, _)| *other != position);
        if let Some((_, inner)) = others.into_iter().find(|(_, other)| other.starts_with(prefix)) {
            return Err(written_twice(inner));
        }
    }
    Ok(())
}

fn written_twice(key: &str) -> Error {
    Error::invalid(format!("{key} is written twice in one transaction"))
}

/// What one step of a transaction gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The key was set.
    Put,
    /// So many keys were deleted.
    Deleted(u64),
    /// What the key holds.
    Got(Option<KeyValue>),
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether all compares held and `then` ran.
    pub succeeded: bool,
    /// The revision of this transaction if it changed anything, else the newest at that moment.
    pub revision: Revision,
    /// One per step of the branch that ran.
    pub replies: Vec<Reply>,
}

impl Outcome {
    /// Whether anything was changed, so that `revision` belongs to this transaction.
    pub fn changed(&self) -> bool {
        self.replies.iter().any(|reply| match reply {
            Reply::Put => true,
            Reply::Deleted(count) => *count > 0,
            Reply::Got(_) => false,
        })
    }
}
