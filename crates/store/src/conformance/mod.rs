//! What every engine must do, as one suite that each of them passes: embedded, in memory, and etcd later.
//!
//! It exists so that code above the engine line need not care which one is below it. [`run`] takes a
//! factory of empty engines and panics with the promise that was broken. Engines may number revisions from
//! anywhere: the suite never assumes where a store's history begins. It must never ask for more than
//! [`crate::engine`] promises, or a right engine would fail.

mod history;
mod leases;
mod transactions;
mod watches;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;

use crate::engine::{Batch, Engine, KeyValue, Op, Outcome, Range, Revision, Txn, Watch};

/// How long the suite waits for something that must happen.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Runs the whole suite, each subject on an engine of its own.
///
/// # Panics
/// When the engine breaks a promise; the message says which.
pub async fn run<F, Fut>(factory: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn Engine>>,
{
    transactions::a_change_takes_the_next_revision(factory().await).await;
    transactions::keys_know_their_place_in_history(factory().await).await;
    transactions::compares_decide_which_branch_runs(factory().await).await;
    transactions::steps_see_earlier_steps(factory().await).await;
    transactions::rules_are_kept(factory().await).await;
    transactions::races_have_one_winner(factory().await).await;
    transactions::prefixes_are_deleted_whole(factory().await).await;
    history::ranges_come_in_order_and_by_pages(factory().await).await;
    history::the_past_stays_readable(factory().await).await;
    history::compaction_forgets_only_the_past(factory().await).await;
    watches::a_watch_gives_past_and_future_without_gap(factory().await).await;
    watches::a_watch_gives_whole_revisions_of_its_prefix(factory().await).await;
    watches::a_slow_watch_loses_nothing(factory().await).await;
    watches::a_watch_under_load_is_complete(factory().await).await;
    watches::a_watch_of_forgotten_history_is_refused(factory().await).await;
    leases::the_end_of_a_lease_deletes_its_keys(factory().await).await;
    leases::a_lease_lives_while_it_is_kept_alive(factory().await).await;
    leases::a_key_can_change_its_lease(factory().await).await;
    leases::unknown_leases_are_refused(factory().await).await;
    a_closed_engine_says_so(factory().await).await;
}

async fn a_closed_engine_says_so(engine: Arc<dyn Engine>) {
    let mut watch = watch(&engine, "/a", engine.head().await.expect("head").next()).await;
    put(&engine, "/a/1", "1").await;
    assert_eq!(next(&mut watch).await.events[0].key, "/a/1");
    engine.close().await;
    engine.close().await;
    let unavailable = |error| matches!(error, crate::engine::Error::Unavailable { .. });
    assert!(unavailable(engine.commit(Txn::new().then(Op::put("/a/1", "2"))).await.expect_err("closed")));
    assert!(unavailable(engine.get("/a/1", None).await.expect_err("closed")));
    let ended =
        tokio::time::timeout(WAIT_MAX, watch.next()).await.expect("a watch ends when the engine does");
    assert!(unavailable(ended.expect("an error comes before the end").expect_err("closed")));
    assert!(watch.next().await.is_none(), "nothing follows the error of a watch");
}

async fn commit(engine: &Arc<dyn Engine>, txn: Txn) -> Outcome {
    engine.commit(txn).await.expect("a valid transaction commits")
}

async fn put(engine: &Arc<dyn Engine>, key: &str, value: &str) -> Revision {
    commit(engine, Txn::new().then(Op::put(key, value.to_owned()))).await.revision
}

async fn delete(engine: &Arc<dyn Engine>, key: &str) -> Revision {
    commit(engine, Txn::new().then(Op::delete(key))).await.revision
}

async fn get(engine: &Arc<dyn Engine>, key: &str) -> Option<KeyValue> {
    engine.get(key, None).await.expect("a valid key can be read")
}

/// What a key held at a revision, as text.
async fn text_at(engine: &Arc<dyn Engine>, key: &str, at: Revision) -> Option<String> {
    engine.get(key, Some(at)).await.expect("this revision is in the history").map(text)
}

fn text(kv: KeyValue) -> String {
    String::from_utf8(kv.value.to_vec()).expect("the suite stores text")
}

/// `key=value` of all keys with a prefix at a revision.
async fn texts_at(engine: &Arc<dyn Engine>, prefix: &str, at: Option<Revision>) -> Vec<String> {
    let page = engine.range(Range { at, ..Range::prefix(prefix) }).await.expect("this range can be read");
    page.keys.into_iter().map(|kv| format!("{}={}", kv.key.clone(), text(kv))).collect()
}

async fn watch(engine: &Arc<dyn Engine>, prefix: &str, from: Revision) -> Watch {
    engine.watch(prefix, from).await.expect("this revision can be watched")
}

async fn next(watch: &mut Watch) -> Batch {
    let next = tokio::time::timeout(WAIT_MAX, watch.next()).await.expect("a watch gives what was committed");
    next.expect("a watch does not end").expect("a watch does not fail")
}
