//! Promises about watches: nothing missing, nothing twice, whole revisions, in order.

use std::sync::Arc;

use futures::StreamExt;

use super::{commit, delete, next, put, watch};
use crate::engine::{Engine, Error, Op, Revision, Txn};

pub(super) async fn a_watch_gives_past_and_future_without_gap(engine: Arc<dyn Engine>) {
    let first = put(&engine, "/a", "1").await;
    let second = put(&engine, "/a", "2").await;
    let mut from_first = watch(&engine, "/", first).await;
    let mut from_second = watch(&engine, "/", second).await;
    let third = delete(&engine, "/a").await;
    let batch = next(&mut from_first).await;
    assert_eq!((batch.revision, batch.events.len()), (first, 1));
    let event = &batch.events[0];
    let now = event.now.as_ref().expect("it was set");
    assert_eq!((event.key.as_str(), &*now.value, now.mod_revision), ("/a", b"1".as_slice(), first));
    assert_eq!(event.before, None, "it was created");
    for watch in [&mut from_first, &mut from_second] {
        let batch = next(watch).await;
        assert_eq!(batch.revision, second);
        let (now, before) = (batch.events[0].now.as_ref(), batch.events[0].before.as_ref());
        assert_eq!(now.map(|kv| (kv.create_revision, kv.version)), Some((first, 2)));
        assert_eq!(before.map(|kv| kv.mod_revision), Some(first), "what it was before is told");
        let batch = next(watch).await;
        assert_eq!((batch.revision, &batch.events[0].now), (third, &None), "a deletion");
        assert_eq!(batch.events[0].before.as_ref().map(|kv| kv.mod_revision), Some(second));
    }
    let mut ahead = watch(&engine, "/", third.next().next()).await;
    put(&engine, "/a", "4").await;
    let fifth = put(&engine, "/a", "5").await;
    assert_eq!(next(&mut ahead).await.revision, fifth, "a watch may begin ahead");
}

pub(super) async fn a_watch_gives_whole_revisions_of_its_prefix(engine: Arc<dyn Engine>) {
    let from = engine.head().await.expect("head").next();
    let mut narrow = watch(&engine, "/a/", from).await;
    put(&engine, "/b/1", "other").await;
    put(&engine, "/a", "other").await;
    let txn = Txn::new()
        .then(Op::put("/a/2", "1"))
        .then(Op::put("/b/1", "1"))
        .then(Op::put("/a/1", "1"))
        .then(Op::delete("/a/none"));
    let revision = commit(&engine, txn).await.revision;
    let batch = next(&mut narrow).await;
    let keys: Vec<&str> = batch.events.iter().map(|event| event.key.as_str()).collect();
    assert_eq!(
        (batch.revision, keys),
        (revision, vec!["/a/2", "/a/1"]),
        "one revision, in the order of its steps"
    );
    let revision = commit(&engine, Txn::new().then(Op::delete_prefix("/a/"))).await.revision;
    let batch = next(&mut narrow).await;
    let keys: Vec<&str> = batch.events.iter().map(|event| event.key.as_str()).collect();
    assert_eq!(
        (batch.revision, keys),
        (revision, vec!["/a/1", "/a/2"]),
        "a deleted prefix is told key by key"
    );
}

pub(super) async fn a_slow_watch_loses_nothing(engine: Arc<dyn Engine>) {
    const REVISIONS: u64 = 1500;
    let from = engine.head().await.expect("head").next();
    let mut slow = watch(&engine, "/", from).await;
    put(&engine, "/k", "first").await;
    next(&mut slow).await;
    let writers = (0..10_u64).map(|writer| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            for number in 0..REVISIONS / 10 {
                put(&engine, &format!("/w/{writer}"), &number.to_string()).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer does not panic");
    }
    for number in 1..=REVISIONS {
        assert_eq!(next(&mut slow).await.revision, Revision(from.0 + number));
    }
}

pub(super) async fn a_watch_under_load_is_complete(engine: Arc<dyn Engine>) {
    const WRITES: u64 = 200;
    let from = engine.head().await.expect("head").next();
    let writer = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move {
            for number in 0..WRITES {
                put(&engine, "/k", &number.to_string()).await;
            }
        }
    });
    let watchers = (0..8_u64).map(|step| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            let from = Revision(from.0 + step * 20);
            let mut watch = watch(&engine, "/", from).await;
            for revision in from.0..from.0 + WRITES - step * 20 {
                assert_eq!(next(&mut watch).await.revision, Revision(revision));
            }
        })
    });
    for watcher in watchers.collect::<Vec<_>>() {
        watcher.await.expect("every watch is complete");
    }
    writer.await.expect("the writer does not panic");
}

pub(super) async fn a_watch_of_forgotten_history_is_refused(engine: Arc<dyn Engine>) {
    let first = put(&engine, "/a", "1").await;
    put(&engine, "/a", "2").await;
    let third = put(&engine, "/a", "3").await;
    engine.compact(third).await.expect("history can be forgotten");
    // An engine may say so at once or by the first item.
    let error = match engine.watch("/", first).await {
        Err(error) => error,
        Ok(mut watch) => watch.next().await.expect("an item").expect_err("history is gone"),
    };
    assert!(matches!(error, Error::Compacted { .. }), "{error}");
    let mut after = watch(&engine, "/", third.next()).await;
    let fourth = put(&engine, "/a", "4").await;
    assert_eq!(next(&mut after).await.revision, fourth);
}
