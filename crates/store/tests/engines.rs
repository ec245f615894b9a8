//! Every engine against the one suite, and both of ours against each other on random histories.

use std::sync::Arc;

use futures::StreamExt;
use proptest::prelude::*;
use store::{
    Memory, Revision, Sqlite, conformance,
    engine::{Batch, Compare, Engine, Op, Range, Txn},
    sqlite::Options,
};

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    conformance::run(|| async { Arc::new(Memory::new()) as Arc<dyn Engine> }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_conforms() {
    let directory = tempfile::tempdir().expect("a directory");
    let number = std::sync::atomic::AtomicUsize::new(0);
    conformance::run(|| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let path = directory.path().join(format!("{number}.db"));
        async move { Arc::new(Sqlite::open(&path, Options::default()).expect("a new store")) as Arc<dyn Engine> }
    })
    .await;
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Txn),
    Compact(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || prop::sample::select(vec!["/a", "/a/1", "/a/2", "/b", "/b/1", "/c"]);
    let op = move || {
        prop_oneof![
            4 => (key(), 0..4_u8).prop_map(|(key, value)| Op::put(key, vec![value])),
            2 => key().prop_map(Op::delete),
            1 => prop::sample::select(vec!["/a", "/a/", "/b"]).prop_map(Op::delete_prefix),
            1 => key().prop_map(Op::get),
        ]
    };
    let compare = (key(), 0..3_u8, 0..4_u8).prop_map(|(key, kind, value)| match kind {
        0 => Compare::absent(key),
        1 => Compare::exists(key),
        _ => Compare::value(key, vec![value]),
    });
    let txn = (
        prop::collection::vec(compare, 0..2),
        prop::collection::vec(op(), 0..4),
        prop::collection::vec(op(), 0..2),
    )
        .prop_map(|(compares, then, otherwise)| Step::Commit(Txn { compares, then, otherwise }));
    let step = prop_oneof![12 => txn, 1 => any::<u8>().prop_map(Step::Compact)];
    prop::collection::vec(step, 1..40)
}

/// Everything that can be seen of an engine: keys at every revision, and the history.
async fn everything(engine: &dyn Engine) -> (Vec<String>, Vec<Batch>) {
    let head = engine.head().await.unwrap();
    let mut seen = Vec::new();
    let mut history_from = Revision(1);
    for revision in 0..=head.0 {
        for prefix in ["", "/a/"] {
            let mut range = Some(Range::prefix(prefix).limit(2).at(Revision(revision)));
            while let Some(question) = range.take() {
                let page = engine.range(question).await;
                if page.is_err() {
                    history_from = Revision(revision + 2);
                }
                seen.push(format!("{revision} {prefix}: {page:?}"));
                range = page.ok().and_then(|page| page.next);
            }
        }
    }
    let mut history = Vec::new();
    if let Ok(mut watch) = engine.watch("/", history_from).await {
        while history.last().is_none_or(|batch: &Batch| batch.revision < head) && history_from <= head {
            history.push(watch.next().await.unwrap().unwrap());
        }
    }
    (seen, history)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn both_engines_tell_the_same_story(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("store.db");
            let (memory, sqlite) = (Memory::new(), Sqlite::open(&path, Options::default()).unwrap());
            for step in steps {
                match step {
                    Step::Commit(txn) => {
                        let (one, two) = (memory.commit(txn.clone()).await, sqlite.commit(txn).await);
                        prop_assert_eq!(format!("{:?}", one), format!("{:?}", two));
                    }
                    Step::Compact(part) => {
                        let head = memory.head().await.unwrap();
                        let revision = Revision(head.0 * u64::from(part) / 255);
                        let (one, two) = (memory.compact(revision).await, sqlite.compact(revision).await);
                        prop_assert_eq!(format!("{:?}", one), format!("{:?}", two));
                    }
                }
            }
            let wanted = everything(&memory).await;
            prop_assert_eq!(&wanted, &everything(&sqlite).await);
            drop(sqlite);
            let reopened = Sqlite::open(&path, Options::default()).unwrap();
            prop_assert_eq!(&wanted.0, &everything(&reopened).await.0);
            Ok(())
        })?;
    }
}
