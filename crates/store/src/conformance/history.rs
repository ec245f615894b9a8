//! Promises about ranges, reads of the past, and forgetting it.

use std::sync::Arc;

use super::{delete, put, text_at, texts_at};
use crate::engine::{Engine, Error, Range, Revision};

pub(super) async fn ranges_come_in_order_and_by_pages(engine: Arc<dyn Engine>) {
    for number in (0..25).rev() {
        put(&engine, &format!("/k/{number:02}"), "1").await;
    }
    put(&engine, "/l", "1").await;
    let mut question = Some(Range::prefix("/k/").limit(10));
    let mut sizes = Vec::new();
    let mut seen = Vec::new();
    let head = engine.head().await.expect("head");
    while let Some(range) = question {
        let page = engine.range(range).await.expect("a page");
        assert_eq!(page.revision, head, "all pages show the revision of the first");
        sizes.push(page.keys.len());
        seen.extend(page.keys.into_iter().map(|kv| kv.key));
        question = page.next;
        // What happens between two pages must not show in the second.
        put(&engine, &format!("/k/{:02}x", sizes.len() * 10), "new").await;
        delete(&engine, "/k/24").await;
        put(&engine, "/k/15", "changed").await;
    }
    assert_eq!(sizes, [10, 10, 5]);
    assert_eq!(seen, (0..25).map(|number| format!("/k/{number:02}")).collect::<Vec<_>>());
    let whole = engine.range(Range::prefix("/k/").limit(27)).await.expect("a page");
    assert_eq!((whole.keys.len(), whole.next), (27, None), "a page that holds the last key has no next one");
    let none = engine.range(Range::prefix("/none")).await.expect("a page");
    assert_eq!((none.keys.len(), none.next), (0, None));
}

pub(super) async fn the_past_stays_readable(engine: Arc<dyn Engine>) {
    let mut states: Vec<(Revision, Vec<String>)> = Vec::new();
    let steps: [(&str, Option<&str>); 9] = [
        ("/a", Some("1")),
        ("/b", Some("1")),
        ("/a", Some("2")),
        ("/a", None),
        ("/c", Some("1")),
        ("/a", Some("3")),
        ("/b", None),
        ("/b", Some("2")),
        ("/b", Some("3")),
    ];
    for (key, value) in steps {
        let revision = match value {
            Some(value) => put(&engine, key, value).await,
            None => delete(&engine, key).await,
        };
        states.push((revision, texts_at(&engine, "/", None).await));
    }
    for (revision, state) in &states {
        assert_eq!(&texts_at(&engine, "/", Some(*revision)).await, state, "at {revision}");
    }
    let revision = |step: usize| states[step].0;
    assert_eq!(text_at(&engine, "/a", revision(1)).await.as_deref(), Some("1"));
    assert_eq!(text_at(&engine, "/a", revision(4)).await, None);
    assert_eq!(text_at(&engine, "/c", revision(3)).await, None);
    assert_eq!(text_at(&engine, "/a", revision(8)).await.as_deref(), Some("3"));
    let old = engine.get("/a", Some(revision(2))).await.expect("history").expect("it was there");
    assert_eq!((old.create_revision, old.mod_revision, old.version), (revision(0), revision(2), 2));
    let future = engine.get("/a", Some(revision(8).next())).await;
    assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");
    let future = engine.range(Range::prefix("/").at(revision(8).next())).await;
    assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");
}

pub(super) async fn compaction_forgets_only_the_past(engine: Arc<dyn Engine>) {
    put(&engine, "/stays", "old").await;
    let first = put(&engine, "/a", "1").await;
    let second = put(&engine, "/a", "2").await;
    delete(&engine, "/a").await;
    let last = put(&engine, "/b", "1").await;
    engine.compact(second).await.expect("history can be forgotten");
    let gone = engine.get("/a", Some(first)).await;
    assert!(matches!(gone, Err(Error::Compacted { .. })), "{gone:?}");
    let gone = engine.range(Range::prefix("/").at(first)).await;
    assert!(matches!(gone, Err(Error::Compacted { .. })), "{gone:?}");
    assert_eq!(
        texts_at(&engine, "/", Some(second)).await,
        ["/a=2", "/stays=old"],
        "the revision itself stays"
    );
    assert_eq!(texts_at(&engine, "/", None).await, ["/b=1", "/stays=old"]);
    let again = engine.compact(first).await;
    assert!(matches!(again, Err(Error::Compacted { .. })), "{again:?}");
    let future = engine.compact(last.next()).await;
    assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");
    engine.compact(last).await.expect("all history can be forgotten");
    assert_eq!(texts_at(&engine, "/", Some(last)).await, ["/b=1", "/stays=old"]);
    assert_eq!(put(&engine, "/c", "1").await, last.next(), "revisions go on");
}
