//! The front of the store, on both engines: typed transactions, claims, counters, reading own writes,
//! indexes, changes, and what happens when records or history are bad.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use store::{
    Change, Corrupt, Counter, Error, Health, Index, Memory, Record, Revision, Schema, Sqlite, Store, Tx,
    counter_key,
    engine::{self, Engine, Op, Txn},
    record_key, sqlite,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Port {
    id: String,
    network: String,
    address: String,
}

impl Record for Port {
    const TABLE: &'static str = "port";
    fn key(&self) -> String {
        self.id.clone()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Network {
    name: String,
}

impl Record for Network {
    const TABLE: &'static str = "network";
    fn key(&self) -> String {
        self.name.clone()
    }
}

const BY_NETWORK: Index<Port> = Index::new("network", |port| vec![port.network.clone()]);
const BY_ADDRESS: Index<Port> = Index::new("address", |port| vec![port.address.clone()]);

fn schema() -> Schema {
    Schema::new().table::<Network>().index(BY_NETWORK).index(BY_ADDRESS)
}

fn port(id: &str, network: &str, address: &str) -> Port {
    Port { id: id.into(), network: network.into(), address: address.into() }
}

/// Runs a subject on every engine.
async fn on_engines<F, Fut>(subject: F)
where
    F: Fn(Arc<dyn Engine>) -> Fut,
    Fut: Future<Output = ()>,
{
    subject(Arc::new(Memory::new())).await;
    let directory = tempfile::tempdir().expect("a directory for the store");
    let path = directory.path().join("store.db");
    subject(Arc::new(Sqlite::open(&path, sqlite::Options::default()).expect("a new store"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_seen_by_the_next_read() {
    on_engines(|engine| async move {
        let store = Store::open(engine, schema()).await.unwrap();
        for number in 0..50 {
            let port = port(&format!("p{number:02}"), "blue", "10.0.0.1");
            let mut tx = Tx::new();
            tx.create(&port);
            let revision = store.commit(tx).await.unwrap();
            let stored = store.get::<Port>(&port.id).expect("the port just committed");
            assert_eq!((&stored.record, stored.mod_revision), (&port, revision));
        }
        let ids: Vec<_> = store.list::<Port>().iter().map(|port| port.id.clone()).collect();
        assert_eq!(ids, (0..50).map(|number| format!("p{number:02}")).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_and_double_writes_are_refused_by_name() {
    on_engines(|engine| async move {
        let store = Store::open(engine, schema()).await.unwrap();
        let mut tx = Tx::new();
        tx.create(&port("a", "blue", "10.0.0.1"));
        let first = store.commit(tx.clone()).await.unwrap();
        let again = store.commit(tx).await.unwrap_err();
        assert!(matches!(&again, Error::Exists { table, key } if table == "port" && key == "a"), "{again}");

        let mut tx = Tx::new();
        tx.update(&port("a", "red", "10.0.0.1"), first);
        let second = store.commit(tx.clone()).await.unwrap();
        let stale = store.commit(tx).await.unwrap_err();
        assert!(
            matches!(stale, Error::Conflict { expected, found, .. } if expected == first && found == second),
            "{stale}"
        );

        let mut tx = Tx::new();
        tx.delete::<Port>("a", second).expect_exists::<Network>("blue");
        let missing = store.commit(tx).await.unwrap_err();
        assert!(
            matches!(&missing, Error::Conflict { table, found, .. } if table == "network" && found.0 == 0),
            "{missing}"
        );
        assert!(store.get::<Port>("a").is_some(), "nothing of a refused transaction happens");

        let mut tx = Tx::new();
        tx.delete::<Port>("a", second);
        store.commit(tx.clone()).await.unwrap();
        assert!(store.get::<Port>("a").is_none());
        let gone = store.commit(tx).await.unwrap_err();
        assert!(matches!(gone, Error::Conflict { found: Revision::ABSENT, .. }), "{gone}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_name_the_loser_and_the_owner() {
    on_engines(|engine| async move {
        let store = Store::open(engine, schema()).await.unwrap();
        let commit = async |build: &dyn Fn(&mut Tx)| {
            let mut tx = Tx::new();
            build(&mut tx);
            store.commit(tx).await
        };
        let taken_by = |result: Result<Revision, Error>, owner: &str| match result {
            Err(Error::Taken { scope, value, owner: found }) => {
                assert_eq!(
                    (scope.as_str(), value.as_str(), found.as_str()),
                    ("ip/blue", "10.0.0.5/32", owner)
                );
            }
            other => panic!("expected to be told of {owner}, not {other:?}"),
        };
        let (scope, value) = ("ip/blue", "10.0.0.5/32");
        commit(&|tx| _ = tx.create(&port("a", "blue", "")).claim(scope, value, "a")).await.unwrap();
        taken_by(commit(&|tx| _ = tx.create(&port("b", "blue", "")).claim(scope, value, "b")).await, "a");
        assert!(store.get::<Port>("b").is_none());
        commit(&|tx| _ = tx.claim(scope, value, "a")).await.expect("claiming again what one owns is fine");
        taken_by(commit(&|tx| _ = tx.release(scope, value, "b")).await, "a");
        commit(&|tx| _ = tx.release(scope, value, "a").claim(scope, value, "c")).await.expect("a transfer");
        taken_by(commit(&|tx| _ = tx.claim(scope, value, "a")).await, "c");
        commit(&|tx| _ = tx.release(scope, value, "c")).await.unwrap();
        commit(&|tx| _ = tx.release(scope, value, "c")).await.expect("releasing twice is fine");
        commit(&|tx| _ = tx.claim(scope, value, "d")).await.unwrap();
        // Shared: whoever came first keeps it, the others do without and give nothing back.
        commit(&|tx| _ = tx.claim_if_free(scope, value, "e")).await.expect("d has it, and that is fine");
        commit(&|tx| _ = tx.release_if_owned(scope, value, "e")).await.expect("e has nothing");
        taken_by(commit(&|tx| _ = tx.claim(scope, value, "f")).await, "d");
        commit(&|tx| _ = tx.release_if_owned(scope, value, "d")).await.unwrap();
        commit(&|tx| _ = tx.claim_if_free(scope, value, "e").claim_if_free(scope, value, "g")).await.unwrap();
        taken_by(commit(&|tx| _ = tx.claim(scope, value, "f")).await, "e");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_racing_creates_never_exceed_a_limit() {
    on_engines(|engine| async move {
        let store = Store::open(engine, schema()).await.unwrap();
        let create = |number: u32| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut tx = Tx::new();
                tx.create(&port(&format!("p{number}"), "blue", "")).count("project", "ports", 1, Some(20));
                store.commit(tx).await
            })
        };
        let racers: Vec<_> = (0..50).map(create).collect();
        let mut won = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Ok(_) => won += 1,
                Err(Error::Exceeded { used: 20, requested: 1, limit: 20, .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((won, store.list::<Port>().len()), (20, 20));
        let mut tx = Tx::new();
        tx.remove::<Port>(&store.list::<Port>()[0].id).count("project", "ports", -1, None);
        store.commit(tx).await.unwrap();
        assert_eq!(store.get::<Counter>(&counter_key("project", "ports")).unwrap().used, 19);
        let mut tx = Tx::new();
        tx.count("project", "ports", -100, Some(0));
        store.commit(tx).await.expect("giving back never fails");
        assert_eq!(store.get::<Counter>(&counter_key("project", "ports")).unwrap().used, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_claims_have_one_winner() {
    on_engines(|engine| async move {
        let store = Store::open(engine, schema()).await.unwrap();
        let claim = |number: u32| {
            let store = store.clone();
            tokio::spawn(async move {
                let id = format!("p{number}");
                let mut tx = Tx::new();
                tx.create(&port(&id, "blue", "10.0.0.9")).claim("ip", "10.0.0.9", &id);
                (id, store.commit(tx).await)
            })
        };
        let racers: Vec<_> = (0..40).map(claim).collect();
        let mut winners = Vec::new();
        let mut owners = BTreeSet::new();
        for racer in racers {
            match racer.await.unwrap() {
                (id, Ok(_)) => winners.push(id),
                (_, Err(Error::Taken { owner, .. })) => _ = owners.insert(owner),
                (_, Err(other)) => panic!("{other}"),
            }
        }
        assert_eq!(winners, Vec::from_iter(owners));
        assert_eq!(store.by_index(&BY_ADDRESS, "10.0.0.9").len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_follow_every_change() {
    on_engines(|engine| async move {
        let store = Store::open(engine, schema()).await.unwrap();
        let mut tx = Tx::new();
        tx.create(&port("a", "blue", "1")).create(&port("b", "blue", "2")).create(&port("c", "red", "3"));
        store.commit(tx).await.unwrap();
        let ids = |network: &str| -> Vec<String> {
            store.by_index(&BY_NETWORK, network).iter().map(|port| port.id.clone()).collect()
        };
        assert_eq!(
            (ids("blue"), ids("red"), ids("none")),
            (vec!["a".into(), "b".into()], vec!["c".into()], vec![])
        );
        store.modify::<Port>("a", |port| port.network = "red".into()).await.unwrap().unwrap();
        assert_eq!((ids("blue"), ids("red")), (vec!["b".into()], vec!["a".into(), "c".into()]));
        let mut tx = Tx::new();
        tx.remove::<Port>("c");
        store.commit(tx).await.unwrap();
        assert_eq!(ids("red"), vec!["a".to_owned()]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_modifications_lose_nothing() {
    on_engines(|engine| async move {
        let store = Store::open(engine, schema()).await.unwrap();
        let mut tx = Tx::new();
        tx.create(&port("a", "", ""));
        store.commit(tx).await.unwrap();
        let extend = |_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    store.modify::<Port>("a", |port| port.network.push('x')).await.unwrap().unwrap();
                }
            })
        };
        for task in (0..8).map(extend).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(store.get::<Port>("a").unwrap().network.len(), 80);
        let before = store.get::<Port>("a").unwrap().mod_revision;
        store.modify::<Port>("a", |_| ()).await.unwrap();
        assert_eq!(store.get::<Port>("a").unwrap().mod_revision, before, "no change, no write");
        assert!(store.modify::<Port>("none", |_| ()).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_hear_of_changes_that_reads_show_and_of_lost_ones() {
    on_engines(|engine| async move {
        let store = Store::open(engine, schema()).await.unwrap();
        let mut changes = store.subscribe();
        let mut tx = Tx::new();
        tx.create(&port("a", "blue", "")).claim("name", "a", "a");
        let revision = store.commit(tx).await.unwrap();
        let heard = changes.next().await.unwrap();
        assert_eq!(heard, Change::Record { table: "port", key: "a".into(), revision, deleted: false });
        let mut tx = Tx::new();
        tx.remove::<Port>("a");
        let revision = store.commit(tx).await.unwrap();
        let heard = changes.next().await.unwrap();
        assert_eq!(heard, Change::Record { table: "port", key: "a".into(), revision, deleted: true });

        for _ in 0..30 {
            let mut tx = Tx::new();
            for number in 0..400 {
                tx.put(&port(&number.to_string(), "blue", ""));
            }
            store.commit(tx).await.unwrap();
        }
        assert_eq!(changes.next().await.unwrap(), Change::Resync);
        let mut tx = Tx::new();
        tx.put(&port("after", "blue", ""));
        let revision = store.commit(tx).await.unwrap();
        let heard = changes.next().await.unwrap();
        assert_eq!(heard, Change::Record { table: "port", key: "after".into(), revision, deleted: false });
        drop(store);
        assert_eq!(changes.next().await, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_records_are_named_and_left_out() {
    on_engines(|engine| async move {
        let put = |key: &str, value: &str| Op::put(record_key("port", key), value.to_owned());
        let txn = Txn::new()
            .then(put("newer", r#"{"v":9,"r":{}}"#))
            .then(put("torn", r#"{"v":1,"r":{"id":"#))
            .then(put("other", r#"{"v":1,"r":{"id":"other"}}"#))
            .then(put("good", r#"{"v":1,"r":{"id":"good","network":"n","address":"a"}}"#));
        engine.commit(txn).await.unwrap();
        let store = Store::open(Arc::clone(&engine), schema()).await.unwrap();
        let ids: Vec<_> = store.list::<Port>().iter().map(|port| port.id.clone()).collect();
        assert_eq!(ids, ["good"]);
        let corrupt: Vec<Corrupt> = store.mirror().corrupt();
        assert_eq!(
            corrupt.iter().map(|corrupt| corrupt.key.as_str()).collect::<Vec<_>>(),
            ["newer", "other", "torn"]
        );
        assert!(corrupt[0].reason.contains("written in version 9 by a newer holm"), "{}", corrupt[0].reason);

        let good = engine.commit(Txn::new().then(put("good", "nonsense"))).await.unwrap();
        store.wait_for(good.revision).await.unwrap();
        assert!(store.get::<Port>("good").is_none() && store.by_index(&BY_NETWORK, "n").is_empty());
        let mut tx = Tx::new();
        tx.put(&port("good", "m", "")).remove::<Port>("torn");
        store.commit(tx).await.unwrap();
        assert_eq!((store.by_index(&BY_NETWORK, "m").len(), store.mirror().corrupt().len()), (1, 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_a_transaction_come_back_from_the_commit() {
    on_engines(|engine| async move {
        let store = Store::open(engine, schema()).await.unwrap();
        let check = async |build: &dyn Fn(&mut Tx), wanted: &str| {
            let mut tx = Tx::new();
            build(&mut tx);
            let error = store.commit(tx).await.unwrap_err();
            let text = match &error {
                Error::Engine(source @ engine::Error::Invalid { .. }) => source.to_string(),
                error => error.to_string(),
            };
            assert!(text.contains(wanted), "{text:?} does not say {wanted:?}");
        };
        check(&|tx| _ = tx.put(&port("a", "x", "")).put(&port("a", "y", "")), "port a is changed twice")
            .await;
        check(&|tx| _ = tx.put(&port("", "x", "")), "a port has an empty key").await;
        check(&|tx| _ = tx.put(&port("a b", "x", "")), "printable ASCII").await;
        check(&|tx| _ = tx.put(&port("a", &"x".repeat(2 << 20), "")), "bytes; at most 1048576").await;
        check(&|tx| _ = tx.claim("s", "v", "a").claim("s", "v", "b"), "two owners").await;
        check(&|tx| _ = tx.claim("s", "", "a"), "cannot be claimed").await;
        check(
            &|tx| (0..600).for_each(|number| _ = tx.put(&port(&number.to_string(), "x", ""))),
            "600 operations in one branch of a transaction; at most 512 are allowed",
        )
        .await;
        assert!(store.list::<Port>().is_empty());
        let same = store.mirror().revision();
        assert_eq!(store.commit(Tx::new()).await.unwrap(), same, "an empty transaction does nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_never_shows_half_a_transaction() {
    on_engines(|engine| async move {
        let store = Store::open(engine, schema()).await.unwrap();
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                for number in 0..200 {
                    let mut tx = Tx::new();
                    let text = number.to_string();
                    tx.put(&port("a", &text, ""))
                        .put(&Network { name: "n".into() })
                        .put(&port("b", &text, ""));
                    store.commit(tx).await.unwrap();
                }
            }
        });
        while !writer.is_finished() {
            store.mirror().view(|view| {
                let network = |id: &str| view.get::<Port>(id).map(|port| port.network.clone());
                assert_eq!(network("a"), network("b"));
            });
            tokio::task::yield_now().await;
        }
        writer.await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_store_on_the_same_engine_follows() {
    on_engines(|engine| async move {
        let one = Store::open(Arc::clone(&engine), schema()).await.unwrap();
        let two = Store::open(engine, schema()).await.unwrap();
        let mut tx = Tx::new();
        tx.create(&port("a", "blue", ""));
        let revision = one.commit(tx).await.unwrap();
        two.wait_for(revision).await.unwrap();
        assert_eq!(two.get::<Port>("a").unwrap().record, one.get::<Port>("a").unwrap().record);
        let wait = two.mirror().wait_for(revision.next());
        assert!(tokio::time::timeout(Duration::from_millis(20), wait).await.is_err());
    })
    .await;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trap {
    id: String,
    armed: bool,
}

impl Record for Trap {
    const TABLE: &'static str = "trap";
    fn key(&self) -> String {
        self.id.clone()
    }
}

const BY_TRAP: Index<Trap> = Index::new("armed", |trap| {
    assert!(!trap.armed, "the trap was armed");
    vec!["safe".into()]
});

#[tokio::test(start_paused = true)]
async fn a_mirror_that_cannot_follow_says_so_and_recovers() {
    let engine: Arc<dyn Engine> = Arc::new(Memory::new());
    let store = Store::open(Arc::clone(&engine), schema().index(BY_TRAP)).await.unwrap();
    let trap = |armed| Trap { id: "t".into(), armed };
    let mut tx = Tx::new();
    tx.put(&port("a", "blue", "")).put(&trap(true));
    let error = store.commit(tx).await.unwrap_err();
    assert!(matches!(error, Error::Behind { .. }), "{error}");
    let health = store.mirror().health();
    assert!(
        matches!(&health, Health::Stale { reason, .. } if reason.ends_with("the trap was armed")),
        "{health:?}"
    );
    let mut changes = store.subscribe();
    let value = store::encode(&trap(false)).unwrap();
    let mended = engine.commit(Txn::new().then(Op::put(record_key("trap", "t"), value))).await.unwrap();
    store.wait_for(mended.revision).await.unwrap();
    assert_eq!(changes.next().await, Some(Change::Resync));
    assert_eq!((store.list::<Port>().len(), store.by_index(&BY_TRAP, "safe").len()), (1, 1));
    let mut tx = Tx::new();
    tx.put(&port("b", "blue", ""));
    store.commit(tx).await.unwrap();
    assert_eq!(store.mirror().health(), Health::Live);
}
