//! The mirror over an engine that fails: it says so, catches up, and never shows or announces too little.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use store::{
    Change, Health, Memory, Record, Schema, Store, Tx,
    engine::{Engine, Error, KeyValue, LeaseId, Outcome, Page, Range, Result, Revision, Txn, Watch},
};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    id: String,
}

impl Record for Note {
    const TABLE: &'static str = "note";
    fn key(&self) -> String {
        self.id.clone()
    }
}

/// An engine whose watches fail as they are told, each after so many revisions; then it is sound.
struct Faulty {
    sound: Memory,
    faults: Mutex<VecDeque<(usize, Error)>>,
}

#[async_trait]
impl Engine for Faulty {
    async fn head(&self) -> Result<Revision> {
        self.sound.head().await
    }
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>> {
        self.sound.get(key, at).await
    }
    async fn range(&self, range: Range) -> Result<Page> {
        self.sound.range(range).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.sound.commit(txn).await
    }
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        let fault = self.faults.lock().unwrap().pop_front();
        let watch = self.sound.watch(prefix, from).await?;
        match fault {
            None => Ok(watch),
            Some((0, error)) => Err(error),
            Some((after, error)) => Ok(Box::pin(watch.take(after).chain(stream::iter([Err(error)])))),
        }
    }
    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId> {
        self.sound.lease_grant(ttl).await
    }
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        self.sound.lease_keep_alive(lease).await
    }
    async fn lease_revoke(&self, lease: LeaseId) -> Result<()> {
        self.sound.lease_revoke(lease).await
    }
    async fn compact(&self, revision: Revision) -> Result<()> {
        self.sound.compact(revision).await
    }
    async fn close(&self) {
        self.sound.close().await;
    }
}

fn gone() -> Error {
    Error::Unavailable { operation: "watch", detail: "the connection is lost".into() }
}

fn compacted() -> Error {
    Error::Compacted { requested: Revision(1), compacted: Revision(2) }
}

async fn open(faults: impl IntoIterator<Item = (usize, Error)>) -> Store {
    let faults = Mutex::new(faults.into_iter().collect());
    let engine = Faulty { sound: Memory::new(), faults };
    Store::open(Arc::new(engine), Schema::new().table::<Note>()).await.unwrap()
}

async fn put(store: &Store, id: &str) {
    let mut tx = Tx::new();
    tx.put(&Note { id: id.into() });
    store.commit(tx).await.unwrap();
    assert!(store.get::<Note>(id).is_some(), "{id} was committed");
}

/// The ids that are announced until the last one was.
async fn heard(changes: &mut store::Changes, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.last().is_none_or(|id| id != last) {
        match changes.next().await.expect("the store lives") {
            Change::Record { key, .. } => heard.push(key.to_string()),
            Change::Resync => heard.push("resync".into()),
        }
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_loses_no_change() {
    let store = open([(2, gone()), (0, gone()), (0, gone()), (1, gone()), (1, gone())]).await;
    let mut changes = store.subscribe();
    let ids = ["a", "b", "c", "d", "e", "f"];
    for id in ids {
        put(&store, id).await;
    }
    assert_eq!(heard(&mut changes, "f").await, ids);
    assert_eq!(store.mirror().health(), Health::Live);
}

#[tokio::test(start_paused = true)]
async fn compacted_history_is_made_up_for_by_a_resync() {
    let store = open([(2, compacted()), (0, gone()), (1, compacted())]).await;
    let mut changes = store.subscribe();
    for id in ["a", "b", "c", "d", "e", "f"] {
        put(&store, id).await;
    }
    let heard = heard(&mut changes, "f").await;
    assert_eq!(heard[..2], ["a", "b"]);
    assert_eq!(heard.iter().filter(|id| *id == "resync").count(), 2, "{heard:?}");
    assert_eq!(store.list::<Note>().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_without_its_engine_answers_and_says_that_it_is_stale() {
    let store = open([]).await;
    put(&store, "a").await;
    store.engine().close().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(store.get::<Note>("a").is_some());
    let Health::Stale { since, reason } = store.mirror().health() else { panic!("it claims to follow") };
    assert!(since.elapsed() > Duration::from_secs(59), "{:?}", since.elapsed());
    assert_eq!(reason, "the store cannot watch: it is closed");
    let mut tx = Tx::new();
    tx.put(&Note { id: "b".into() });
    let error = store.commit(tx).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}
