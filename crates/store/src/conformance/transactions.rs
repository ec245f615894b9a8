//! Promises about transactions: revisions, compares, branches, rules, races.

use std::sync::Arc;

use super::{commit, delete, get, put, text, texts_at};
use crate::engine::{
    Compare, Engine, Error, KEY_BYTES_MAX, LeaseId, Op, Relation, Reply, Revision, TXN_OPS_MAX, Target, Txn,
    VALUE_BYTES_MAX,
};

pub(super) async fn a_change_takes_the_next_revision(engine: Arc<dyn Engine>) {
    let head = engine.head().await.expect("head");
    let txn = Txn::new().then(Op::put("/a", "1")).then(Op::put("/b", "1")).then(Op::get("/a"));
    let outcome = commit(&engine, txn).await;
    assert_eq!(outcome.revision, head.next(), "one transaction takes one revision");
    assert!(outcome.succeeded && outcome.changed());
    let keys = [get(&engine, "/a").await, get(&engine, "/b").await];
    assert!(keys.iter().flatten().all(|kv| kv.mod_revision == outcome.revision) && keys.len() == 2);
    assert_eq!(engine.head().await.expect("head"), head.next());

    for nothing in [Txn::new(), Txn::new().then(Op::delete("/none")), Txn::new().then(Op::get("/a"))] {
        let outcome = commit(&engine, nothing).await;
        assert_eq!(outcome.revision, head.next(), "a transaction that changes nothing takes no revision");
        assert!(!outcome.changed());
    }
    assert_eq!(put(&engine, "/a", "1").await, head.next().next(), "setting the same value is a change");
}

pub(super) async fn keys_know_their_place_in_history(engine: Arc<dyn Engine>) {
    let first = put(&engine, "/a", "1").await;
    let second = put(&engine, "/a", "2").await;
    let kv = get(&engine, "/a").await.expect("just set");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (first, second, 2));
    assert_eq!((kv.key.as_str(), &*kv.value, kv.lease), ("/a", b"2".as_slice(), None));
    let deleted = delete(&engine, "/a").await;
    assert_eq!((deleted, get(&engine, "/a").await), (second.next(), None));
    let third = put(&engine, "/a", "3").await;
    let kv = get(&engine, "/a").await.expect("just set");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (third, third, 1), "a new life");
    let empty = Txn::new().then(Op::put("/empty", ""));
    commit(&engine, empty).await;
    assert_eq!(get(&engine, "/empty").await.map(text).as_deref(), Some(""), "an empty value is a value");
}

pub(super) async fn compares_decide_which_branch_runs(engine: Arc<dyn Engine>) {
    let first = put(&engine, "/a", "m").await;
    let second = put(&engine, "/a", "m").await;
    let mut cases = Vec::new();
    let mut case = |key: &str, target: Target, relations: &[Relation]| {
        for relation in [Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater] {
            let compare = Compare { key: key.into(), relation, target: target.clone() };
            cases.push((compare, relations.contains(&relation)));
        }
    };
    use Relation::{Equal, Greater, Less, NotEqual};
    case("/a", Target::ModRevision(second), &[Equal]);
    case("/a", Target::ModRevision(first), &[NotEqual, Greater]);
    case("/a", Target::CreateRevision(first), &[Equal]);
    case("/a", Target::CreateRevision(second), &[NotEqual, Less]);
    case("/a", Target::Version(2), &[Equal]);
    case("/a", Target::Version(3), &[NotEqual, Less]);
    case("/a", Target::Value("m".into()), &[Equal]);
    case("/a", Target::Value("k".into()), &[NotEqual, Greater]);
    case("/a", Target::Value("mm".into()), &[NotEqual, Less]);
    case("/a", Target::Lease(None), &[Equal]);
    case("/none", Target::ModRevision(Revision::ABSENT), &[Equal]);
    case("/none", Target::CreateRevision(first), &[NotEqual, Less]);
    case("/none", Target::Version(0), &[Equal]);
    case("/none", Target::Lease(None), &[Equal]);
    case("/none", Target::Value("".into()), &[]);
    for (compare, wanted) in cases {
        let shown = format!("{compare:?}");
        let txn = Txn::new().when(compare).then(Op::get("/a")).otherwise(Op::get("/none"));
        let outcome = commit(&engine, txn).await;
        assert_eq!(outcome.succeeded, wanted, "{shown}");
        let found = matches!(&outcome.replies[..], [Reply::Got(Some(_))]);
        assert_eq!(found, wanted, "the branch that ran for {shown}");
    }
    let all = Txn::new().when(Compare::exists("/a")).when(Compare::absent("/a")).then(Op::put("/b", "1"));
    assert!(!commit(&engine, all).await.succeeded, "all compares have to hold");
    assert_eq!(get(&engine, "/b").await, None);
}

pub(super) async fn steps_see_earlier_steps(engine: Arc<dyn Engine>) {
    put(&engine, "/a", "1").await;
    let txn = Txn::new()
        .then(Op::get("/a"))
        .then(Op::put("/a", "2"))
        .then(Op::get("/a"))
        .then(Op::delete_prefix("/z"))
        .then(Op::delete("/b"));
    let replies = commit(&engine, txn).await.replies;
    let [Reply::Got(Some(before)), Reply::Put, Reply::Got(Some(after)), Reply::Deleted(0), Reply::Deleted(0)] =
        &replies[..]
    else {
        panic!("one reply per step, in order: {replies:?}");
    };
    assert_eq!((&*before.value, &*after.value), (b"1".as_slice(), b"2".as_slice()));
}

pub(super) async fn rules_are_kept(engine: Arc<dyn Engine>) {
    let head = engine.head().await.expect("head");
    let put = |key: &str| Op::put(key, "1");
    let many = |count: usize| (0..count).fold(Txn::new(), |txn, number| txn.then(put(&format!("/{number}"))));
    let refused = [
        ("the same key twice", Txn::new().then(put("/a")).then(put("/a"))),
        ("set and deleted", Txn::new().then(put("/a")).then(Op::delete("/a"))),
        ("set under a deleted prefix", Txn::new().then(put("/a/1")).then(Op::delete_prefix("/a"))),
        ("a prefix in a prefix", Txn::new().then(Op::delete_prefix("/a")).then(Op::delete_prefix("/a/b"))),
        ("the same prefix twice", Txn::new().then(Op::delete_prefix("/a")).then(Op::delete_prefix("/a"))),
        ("everything deleted", Txn::new().then(Op::delete_prefix(""))),
        ("in the other branch", Txn::new().otherwise(put("/a")).otherwise(put("/a"))),
        ("an empty key", Txn::new().then(put(""))),
        ("a space", Txn::new().then(put("/a b"))),
        ("not ASCII", Txn::new().then(put("/ä"))),
        ("a long key", Txn::new().then(put(&"k".repeat(KEY_BYTES_MAX + 1)))),
        ("a large value", Txn::new().then(Op::put("/a", vec![0; VALUE_BYTES_MAX + 1]))),
        ("many steps", many(TXN_OPS_MAX + 1)),
    ];
    for (rule, txn) in refused {
        let result = engine.commit(txn).await;
        assert!(matches!(result, Err(Error::Invalid { .. })), "{rule}: {result:?}");
    }
    let leased = Txn::new().then(put("/a")).then(Op::put_leased("/b", "1", LeaseId(4_242_424)));
    let result = engine.commit(leased).await;
    assert!(matches!(result, Err(Error::LeaseNotFound { .. })), "a lease that does not exist: {result:?}");
    assert_eq!(engine.head().await.expect("head"), head, "what is refused changes nothing");
    assert_eq!(texts_at(&engine, "", None).await, [""; 0]);

    let allowed = [
        many(TXN_OPS_MAX),
        Txn::new().then(put(&"k".repeat(KEY_BYTES_MAX))),
        Txn::new().then(Op::put("/a", vec![0; VALUE_BYTES_MAX])),
        Txn::new().then(put("/a")).otherwise(put("/a")),
    ];
    for txn in allowed {
        assert!(commit(&engine, txn).await.succeeded);
    }
}

pub(super) async fn races_have_one_winner(engine: Arc<dyn Engine>) {
    const RACERS: usize = 40;
    let race = |number: usize| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            let txn = Txn::new()
                .when(Compare::absent("/prize"))
                .then(Op::put("/prize", number.to_string()))
                .then(Op::put(format!("/winner/{number}"), ""))
                .otherwise(Op::get("/prize"));
            (number, commit(&engine, txn).await)
        })
    };
    let racers: Vec<_> = (0..RACERS).map(race).collect();
    let mut outcomes = Vec::new();
    for racer in racers {
        outcomes.push(racer.await.expect("a racer does not panic"));
    }
    let winners: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.succeeded).collect();
    let [(winner, won)] = &winners[..] else { panic!("{} won", winners.len()) };
    assert_eq!(get(&engine, "/prize").await.map(text), Some(winner.to_string()));
    assert_eq!(texts_at(&engine, "/winner/", None).await, [format!("/winner/{winner}=")]);
    for (_, outcome) in outcomes.iter().filter(|(_, outcome)| !outcome.succeeded) {
        assert!(outcome.revision >= won.revision, "a loser saw the winner");
        let [Reply::Got(Some(prize))] = &outcome.replies[..] else { panic!("{outcome:?}") };
        assert_eq!(prize.mod_revision, won.revision);
    }
    let increment = |_| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            loop {
                let found = get(&engine, "/count").await;
                let revision = found.as_ref().map_or(Revision::ABSENT, |kv| kv.mod_revision);
                let count: u64 = found.map_or(0, |kv| text(kv).parse().expect("a number"));
                let txn = Txn::new()
                    .when(Compare::unchanged("/count", revision))
                    .then(Op::put("/count", (count + 1).to_string()));
                if commit(&engine, txn).await.succeeded {
                    return;
                }
            }
        })
    };
    for task in (0..RACERS).map(increment).collect::<Vec<_>>() {
        task.await.expect("a racer does not panic");
    }
    assert_eq!(get(&engine, "/count").await.map(text), Some(RACERS.to_string()), "no increment is lost");
}

pub(super) async fn prefixes_are_deleted_whole(engine: Arc<dyn Engine>) {
    for key in ["/a", "/a/1", "/a/2", "/a/~", "/ab", "/b"] {
        put(&engine, key, "1").await;
    }
    let outcome = commit(&engine, Txn::new().then(Op::delete_prefix("/a/"))).await;
    assert_eq!(outcome.replies, [Reply::Deleted(3)]);
    assert_eq!(texts_at(&engine, "/", None).await, ["/a=1", "/ab=1", "/b=1"]);
    assert_eq!(outcome.revision, engine.head().await.expect("head"));
}
