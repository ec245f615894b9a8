//! An engine that dies with its daemon: every commit has a point before and one after it.

use async_trait::async_trait;
use node::fake::Fuse;
use std::{sync::Arc, time::Duration};
use store::{
    Memory, Revision,
    engine::{Engine, KeyValue, LeaseId, Outcome, Page, Range, Result, Txn, Watch},
};

pub struct Mortal {
    pub inner: Arc<Memory>,
    pub fuse: Arc<Fuse>,
}

#[async_trait]
impl Engine for Mortal {
    async fn head(&self) -> Result<Revision> {
        self.inner.head().await
    }
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>> {
        self.inner.get(key, at).await
    }
    async fn range(&self, range: Range) -> Result<Page> {
        self.inner.range(range).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.fuse.point().await;
        let outcome = self.inner.commit(txn).await;
        self.fuse.point().await;
        outcome
    }
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.inner.watch(prefix, from).await
    }
    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId> {
        self.inner.lease_grant(ttl).await
    }
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        self.inner.lease_keep_alive(lease).await
    }
    async fn lease_revoke(&self, lease: LeaseId) -> Result<()> {
        self.inner.lease_revoke(lease).await
    }
    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
