//! One transaction per action, tried again when others changed what it was decided on.

use crate::{
    Control, Error, Result,
    change::{check_description, check_labels},
    resolve::Noun,
};
use model::{
    error::Code,
    id::{NetworkId, ProjectId, SecurityGroupId},
    quota::{Exceeded, Resource},
};
use std::{collections::HashSet, net::IpAddr, sync::Arc};
use store::{Counter, Revision, Stored, Tx, View, counter_key, record_key};

/// How often an action is decided anew when the records it was decided on change meanwhile.
const DECISIONS_MAX: u32 = 100;

/// Pause before deciding again after losing a race.
const RACE_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

/// Changes of one action, committed together or not at all.
#[derive(Default)]
pub struct Transaction {
    tx: Tx,
    addresses: HashSet<(NetworkId, IpAddr)>,
    implied: HashSet<(String, String)>,
    default_group: Option<(ProjectId, SecurityGroupId)>,
    names: Names,
    /// The first thing that may not be written.
    refused: Option<Error>,
    /// Keys of the records that this makes.
    made: HashSet<String>,
}

/// How often anybody came to stand on a record, at the moment when whoever deletes it began to look for users of it.
///
/// A deletion that finds no user and a record that names what is deleted do not touch each other's records. They meet in a
/// counter: who comes counts there, which keeps nobody else from coming, and the deletion commits only if nobody did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrivals(Revision);

impl Arrivals {
    /// As `view` shows them. Users are to be looked for in the same view or later.
    pub fn of<R: Noun>(view: &View<'_>, id: R::Id) -> Self {
        let counter = view.get::<Counter>(&arrivals_key::<R>(id));
        Self(counter.map_or(Revision::ABSENT, |counter| counter.mod_revision))
    }
}

fn arrivals_scope<R: Noun>() -> String {
    format!("arrivals/{}", R::TABLE)
}

fn arrivals_key<R: Noun>(id: R::Id) -> String {
    counter_key(&arrivals_scope::<R>(), &id.to_string())
}

/// How names of new records are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Names {
    /// A name in use is refused.
    #[default]
    Unique,
    /// A name in use is shared: who asks by name may be told that several fit. For doors whose clients name by id.
    Shared,
}

impl Transaction {
    /// Adds a new record and takes its name.
    pub fn create<R: Noun>(&mut self, record: &R) {
        self.judge(record);
        self.claim_name(record);
        self.made.insert(record_key(R::TABLE, &record.key()));
        self.tx.create(record);
    }

    /// As [`Self::create`], for a record that another caller may be making at this moment for the same reason: losing
    /// that race decides anew instead of refusing.
    pub fn create_implied<R: Noun>(&mut self, record: &R) {
        self.implied.insert((record.name_scope(), record.meta().name.to_string()));
        self.create(record);
    }

    /// Adds a new record whose name need not be unique.
    pub fn create_unnamed<R: model::record::Record>(&mut self, record: &R) {
        self.tx.create(record);
    }

    /// Replaces a record, and moves its name if that or its project changed.
    pub fn update<R: Noun>(&mut self, stored: &Stored<R>, next: &R) {
        // What was written by an older version stays changeable in all else.
        if stored.record.meta().labels != next.meta().labels
            || stored.record.meta().description != next.meta().description
        {
            self.judge(next);
        }
        let is_renamed =
            stored.record.meta().name != next.meta().name || stored.record.name_scope() != next.name_scope();
        if is_renamed || stored.record.has_own_name() != next.has_own_name() {
            self.release_name(&stored.record);
            self.claim_name(next);
        }
        self.tx.update(next, stored.mod_revision);
    }

    /// Removes a record and gives its name back.
    pub fn delete<R: Noun>(&mut self, stored: &Stored<R>) {
        self.release_name(&stored.record);
        self.tx.delete::<R>(&stored.record.key(), stored.mod_revision);
    }

    /// Removes a record on which nothing stood when `seen` was looked up, as long as nobody came since: else it is decided
    /// anew.
    pub(crate) fn delete_unused<R: Noun>(&mut self, stored: &Stored<R>, seen: Arrivals) {
        let id = stored.record.meta().id;
        match seen.0 {
            Revision::ABSENT => self.expect_no_arrival::<R>(id, seen),
            known => {
                self.tx.delete::<Counter>(&arrivals_key::<R>(id), known);
            }
        }
        self.delete(stored);
    }

    /// Commits only if nobody came to stand on a record since `seen` was looked up.
    pub(crate) fn expect_no_arrival<R: Noun>(&mut self, id: R::Id, seen: Arrivals) {
        let key = arrivals_key::<R>(id);
        match seen.0 {
            Revision::ABSENT => self.tx.expect_absent::<Counter>(&key),
            known => self.tx.expect_unchanged::<Counter>(&key, known),
        };
    }

    /// Comes to stand on a record: commits only if it exists, and a deletion of it that does not know of this yet is decided
    /// anew. Others who come at the same time are not in the way.
    pub(crate) fn stand_on<R: Noun>(&mut self, id: R::Id) {
        if self.expect_there::<R>(id) {
            self.tx.count(&arrivals_scope::<R>(), &id.to_string(), 1, None);
        }
    }

    /// Commits only if a record exists. Gives whether it is there without this transaction.
    pub(crate) fn expect_there<R: Noun>(&mut self, id: R::Id) -> bool {
        let key = id.to_string();
        let is_known = !self.made.contains(&record_key(R::TABLE, &key));
        if is_known {
            self.tx.expect_exists::<R>(&key);
        }
        is_known
    }

    /// Forgets who came to stand on a record that goes whoever stands on it.
    pub(crate) fn forget_arrivals<R: Noun>(&mut self, id: R::Id) {
        self.tx.remove::<Counter>(&arrivals_key::<R>(id));
    }

    /// Commits only if a record that decided something is still as it was.
    pub fn expect<R: Noun>(&mut self, stored: &Stored<R>) {
        self.tx.expect_unchanged::<R>(&stored.record.key(), stored.mod_revision);
    }

    /// Takes a unique value.
    pub fn claim(&mut self, scope: &str, value: &str, owner: &str) {
        self.tx.claim(scope, value, owner);
    }

    /// Gives a unique value back.
    pub fn release(&mut self, scope: &str, value: &str, owner: &str) {
        self.tx.release(scope, value, owner);
    }

    /// Takes an address of a network for a port or floating IP.
    pub fn claim_address(&mut self, network: NetworkId, address: IpAddr, owner: &str) {
        self.addresses.insert((network, address));
        self.tx.claim(&format!("address/{network}"), &address.to_string(), owner);
    }

    /// Gives an address of a network back.
    pub fn release_address(&mut self, network: NetworkId, address: IpAddr, owner: &str) {
        self.tx.release(&format!("address/{network}"), &address.to_string(), owner);
    }

    /// Whether this very transaction takes the address.
    pub fn takes_address(&self, network: NetworkId, address: IpAddr) -> bool {
        self.addresses.contains(&(network, address))
    }

    /// The default group that this very transaction gives the project, if it does.
    pub(crate) fn default_group_of(&self, project: ProjectId) -> Option<SecurityGroupId> {
        self.default_group.filter(|(owner, _)| *owner == project).map(|(_, id)| id)
    }

    /// Remembers that this transaction gives the project its default group.
    pub(crate) fn note_default_group(&mut self, project: ProjectId, id: SecurityGroupId) {
        self.default_group = Some((project, id));
    }

    /// Lets nothing be written, for this reason.
    pub(crate) fn refuse(&mut self, error: Error) {
        self.refused.get_or_insert(error);
    }

    /// The store's transaction, for what has no shorthand here.
    pub fn raw(&mut self) -> &mut Tx {
        &mut self.tx
    }

    pub(crate) fn count(&mut self, project: ProjectId, resource: Resource, delta: i64, limit: Option<u64>) {
        self.tx.count(&project.to_string(), resource.as_str(), delta, limit);
    }

    /// What users write freely on a record has its limits, whoever brings it.
    fn judge<R: Noun>(&mut self, record: &R) {
        let (labels, description) = (&record.meta().labels, &record.meta().description);
        let judged = check_labels(labels).and_then(|()| check_description(description));
        if let Err(error) = judged {
            self.refuse(error);
        }
    }

    fn claim_name<R: Noun>(&mut self, record: &R) {
        if !record.has_own_name() {
            return;
        }
        let (meta, scope) = (record.meta(), record.name_scope());
        let (name, owner) = (meta.name.as_str(), meta.id.to_string());
        match self.names {
            // What names alone tell apart stays unique on every door.
            Names::Shared if !matches!(R::TABLE, "project" | "flavor" | "volume_type" | "keypair") => {
                self.tx.claim_if_free(&scope, name, &owner);
            }
            _ => {
                self.tx.claim(&scope, name, &owner);
            }
        }
    }

    fn release_name<R: Noun>(&mut self, record: &R) {
        if !record.has_own_name() {
            return;
        }
        let meta = record.meta();
        // A record that shares its name with an older one does not hold it.
        self.tx.release_if_owned(&record.name_scope(), meta.name.as_str(), &meta.id.to_string());
    }
}

impl Control {
    /// How often anybody came to stand on a record until now; to be asked before looking who does.
    pub(crate) fn arrivals<R: Noun>(&self, id: R::Id) -> Arrivals {
        self.store.mirror().view(|view| Arrivals::of::<R>(view, id))
    }

    /// Decides and commits; when a record that was read changed meanwhile, decides again on what is there now.
    ///
    /// # Errors
    /// What `decide` refuses, and what lost in the commit: `taken`, `quota_exceeded`, `unavailable`.
    pub async fn transact<T>(&self, mut decide: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        for _ in 0..DECISIONS_MAX {
            let mut transaction = Transaction { names: self.names, ..Transaction::default() };
            let outcome = decide(&mut transaction)?;
            let Transaction { tx, implied, refused, .. } = transaction;
            if let Some(error) = refused {
                return Err(error);
            }
            let race = |scope: &str, value: &str| {
                scope.starts_with("address/")
                    || scope.starts_with("slot/")
                    || implied.contains(&(scope.to_string(), value.to_string()))
            };
            match self.store.commit(tx).await {
                Ok(_) => return Ok(outcome),
                // It is gone, at a revision that is not told: the mirror shows that in a moment.
                Err(store::Error::Conflict { found: Revision::ABSENT, .. }) => {
                    tokio::time::sleep(RACE_PAUSE).await;
                }
                Err(store::Error::Conflict { found, .. }) => {
                    self.store.wait_for(found).await.map_err(explain)?;
                }
                Err(store::Error::Taken { scope, value, .. }) if race(&scope, &value) => {
                    tracing::debug!(scope, value, "lost a race, deciding again");
                    // The winner's record shows up in the mirror in a moment.
                    tokio::time::sleep(RACE_PAUSE).await;
                }
                // Somebody published on the same port of the host, failed to log in, or came to stand on what is deleted
                // first: the next decision sees it.
                Err(store::Error::Exists { table, key })
                    if ["host_port", "login_failure", "counter"].contains(&table.as_str()) =>
                {
                    tracing::debug!(table, key, "lost a race, deciding again");
                    tokio::time::sleep(RACE_PAUSE).await;
                }
                Err(error) => return Err(explain(error)),
            }
        }
        Err(Error::new(Code::Unavailable, "too many others changed the same things at the same time")
            .hint("try again"))
    }
}

fn explain(error: store::Error) -> Error {
    match &error {
        store::Error::Taken { scope, value, owner } => taken(scope, value, owner),
        store::Error::Exceeded { name, used, requested, limit, .. } => match name.parse::<Resource>() {
            Ok(resource) => {
                crate::quota::explain(Exceeded { resource, limit: *limit, used: *used, asked: *requested })
            }
            Err(_) => Error::new(Code::QuotaExceeded, &error),
        },
        store::Error::Exists { table, key } => {
            Error::new(Code::Taken, format!("{table} {key} exists already"))
        }
        error if error.is_unavailable() => {
            Error::new(Code::Unavailable, format!("the store does not answer: {error}"))
                .hint("`holm doctor` looks at the store; the change may or may not have been made")
        }
        _ => Error::new(Code::Internal, format!("the store refused the change: {error}")),
    }
}

fn taken(scope: &str, value: &str, owner: &str) -> Error {
    let noun = scope.split('/').nth(1).unwrap_or("thing").replace('_', " ");
    match scope.split('/').next() {
        Some("name") => {
            let verb = noun.replace(' ', "-");
            Error::new(Code::Taken, format!("a {noun} called {value:?} exists already (id {owner})"))
                .field("name")
                .hint(format!("choose another name, or look at it with `holm {verb} show {value}`"))
        }
        Some("flavorid") => {
            Error::new(Code::Taken, format!("a flavor with the id {value} exists already")).field("id")
        }
        Some("mac") => {
            Error::new(Code::Taken, format!("the MAC address {value} is taken by port {owner}")).field("mac")
        }
        _ => Error::new(Code::Taken, format!("{value} is taken by {owner}")),
    }
}

/// Remembers one stored record by name for error texts and decisions.
pub type Found<R> = Arc<Stored<R>>;
