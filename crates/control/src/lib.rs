//! Head: what callers may ask and what the cloud decides, one module per noun.
//!
//! Control reads the mirror and writes intents in single transactions; nodes bring them about. It never talks to a
//! node: the two meet in the store. Names, addresses and quota counts are keys of the same transaction that makes the
//! record, so of any number of racing requests each limit lets through exactly what it allows.

pub mod access;
pub mod address_scope;
pub mod application_credential;
pub mod assignment;
pub mod bootstrap;
pub mod caller;
pub mod capacity;
pub mod change;
pub mod deployment;
pub mod domain;
pub mod error;
pub mod event;
mod exposure;
pub mod finalize;
pub mod flavor;
pub mod floating_ip;
pub mod group;
mod health;
pub mod image;
pub mod instance;
pub mod keypair;
pub mod login;
pub mod network;
pub mod node;
mod outside;
pub mod password;
pub mod port;
pub mod project;
pub mod quota;
pub mod resolve;
pub mod role;
pub mod router;
pub mod schema;
pub mod security_group;
pub mod server_group;
pub mod session;
pub mod snapshot;
pub mod subnet;
pub mod subnet_pool;
pub mod token;
pub mod transact;
pub mod user;
pub mod volume;
pub mod volume_type;

pub use caller::{Caller, Proof, Role};
pub use error::{Error, Result};

use jiff::Timestamp;
use model::{name::Name, seal::SealKey, user::Rules};
use std::{path::PathBuf, sync::Arc};
use store::Store;

/// All that doors may ask of the cloud. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    store: Store,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    rules: Rules,
    hashing: Arc<password::Hashing>,
    names: transact::Names,
    seal_key: Option<SealKey>,
    host_directories: Arc<[PathBuf]>,
}

impl Control {
    /// Control over a store.
    pub fn new(store: Store) -> Self {
        Self::with_clock(store, Arc::new(Timestamp::now))
    }

    /// Control that reads the time from `clock`.
    pub fn with_clock(store: Store, clock: Arc<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        let names = transact::Names::Unique;
        let (rules, hashing, host_directories) = (Rules::default(), Arc::default(), Arc::default());
        Self { store, clock, rules, hashing, names, seal_key: None, host_directories }
    }

    /// The same with other rules for logging in.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// The same with a key for what records must not tell.
    #[must_use]
    pub fn with_seal_key(mut self, key: SealKey) -> Self {
        self.seal_key = Some(key);
        self
    }

    /// The same with directories of the hosts that containers may be shown.
    #[must_use]
    pub fn with_host_directories(mut self, directories: &[PathBuf]) -> Self {
        self.host_directories = directories.into();
        self
    }

    /// The rules for logging in.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The same cloud, where new records may share a name with others.
    pub fn with_shared_names(&self) -> Self {
        Self { names: transact::Names::Shared, ..self.clone() }
    }

    /// The name of a new record. Where names may be shared, one may also be missing: then it is made up.
    pub(crate) fn name_asked(&self, text: &str, word: &str, short_id: &str) -> Result<Name> {
        let name = match self.names {
            transact::Names::Shared if text.is_empty() => return Ok(Name::made_up(word, short_id)),
            transact::Names::Shared => Name::as_written(text),
            transact::Names::Unique => text.parse(),
        };
        name.map_err(|e| Error::invalid("name", e))
    }

    /// The store behind it, for doors that watch.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }
}
