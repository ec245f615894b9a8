//! Promises about leases.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{commit, get, next, put, text, watch};
use crate::engine::{Compare, Engine, Error, LeaseId, Op, Target, Txn};

/// Short enough to wait for, long enough that a loaded machine does not miss it.
const TTL: Duration = Duration::from_secs(2);

async fn grant(engine: &Arc<dyn Engine>, ttl: Duration) -> LeaseId {
    engine.lease_grant(ttl).await.expect("a lease is granted")
}

async fn put_leased(engine: &Arc<dyn Engine>, key: &str, lease: LeaseId) {
    commit(engine, Txn::new().then(Op::put_leased(key, "leased", lease))).await;
}

pub(super) async fn the_end_of_a_lease_deletes_its_keys(engine: Arc<dyn Engine>) {
    let begin = Instant::now();
    let [revoked, expires] = [grant(&engine, super::WAIT_MAX * 10).await, grant(&engine, TTL).await];
    assert_ne!(revoked, expires);
    let expiring = Txn::new()
        .then(Op::put_leased("/e/1", "", expires))
        .then(Op::put_leased("/e/2", "", expires))
        .then(Op::put_leased("/r/1", "", revoked))
        .then(Op::put("/stays", ""));
    let from = commit(&engine, expiring).await.revision.next();
    let mut watch = watch(&engine, "/", from).await;
    assert_eq!(get(&engine, "/r/1").await.and_then(|kv| kv.lease), Some(revoked));
    let held = Compare::equal("/r/1", Target::Lease(Some(revoked)));
    assert!(commit(&engine, Txn::new().when(held)).await.succeeded);

    engine.lease_revoke(revoked).await.expect("it lives");
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, batch.events[0].key.as_str(), &batch.events[0].now), (from, "/r/1", &None));

    let batch = next(&mut watch).await;
    assert!(begin.elapsed() >= TTL, "a lease lives its whole time");
    let keys: Vec<&str> = batch.events.iter().map(|event| event.key.as_str()).collect();
    assert_eq!((batch.revision, keys), (from.next(), vec!["/e/1", "/e/2"]), "all its keys in one revision");
    assert!(get(&engine, "/stays").await.is_some() && get(&engine, "/e/1").await.is_none());
    for lease in [revoked, expires] {
        let gone = engine.lease_keep_alive(lease).await;
        assert!(matches!(gone, Err(Error::LeaseNotFound { .. })), "{gone:?}");
    }
}

pub(super) async fn a_lease_lives_while_it_is_kept_alive(engine: Arc<dyn Engine>) {
    let ttl = TTL;
    let lease = grant(&engine, ttl).await;
    put_leased(&engine, "/a", lease).await;
    let from = engine.head().await.expect("head").next();
    let mut watch = watch(&engine, "/", from).await;
    for _ in 0..6 {
        sleep(ttl / 4).await;
        assert_eq!(engine.lease_keep_alive(lease).await.expect("it lives"), ttl);
    }
    assert!(get(&engine, "/a").await.is_some(), "kept alive for {:?}", ttl / 4 * 6);
    assert_eq!(next(&mut watch).await.events[0].key, "/a");
}

pub(super) async fn a_key_can_change_its_lease(engine: Arc<dyn Engine>) {
    let [one, two] = [grant(&engine, super::WAIT_MAX * 10).await, grant(&engine, super::WAIT_MAX * 10).await];
    for key in ["/freed", "/moved", "/kept"] {
        put_leased(&engine, key, one).await;
    }
    put(&engine, "/freed", "free").await;
    put_leased(&engine, "/moved", two).await;
    engine.lease_revoke(one).await.expect("it lives");
    assert_eq!(
        get(&engine, "/freed").await.map(text).as_deref(),
        Some("free"),
        "set without a lease it is free"
    );
    assert_eq!(get(&engine, "/moved").await.and_then(|kv| kv.lease), Some(two));
    assert!(get(&engine, "/kept").await.is_none());
    engine.lease_revoke(two).await.expect("it lives");
    assert!(get(&engine, "/moved").await.is_none());
}

pub(super) async fn unknown_leases_are_refused(engine: Arc<dyn Engine>) {
    let lease = grant(&engine, super::WAIT_MAX).await;
    let head = engine.head().await.expect("head");
    engine.lease_revoke(lease).await.expect("it lives");
    assert_eq!(engine.head().await.expect("head"), head, "a lease without keys takes no revision");
    let results = [
        engine.lease_revoke(lease).await,
        engine.lease_keep_alive(lease).await.map(|_| ()),
        engine.commit(Txn::new().then(Op::put_leased("/a", "", lease))).await.map(|_| ()),
    ];
    for result in results {
        assert!(matches!(result, Err(Error::LeaseNotFound { lease: named }) if named == lease), "{result:?}");
    }
    let another = grant(&engine, super::WAIT_MAX).await;
    assert_ne!(another, lease, "numbers of leases are not used again");
}
