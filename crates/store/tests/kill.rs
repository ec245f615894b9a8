//! kill -9 in the middle of writes, to a real process: every acknowledged transaction is there, none is
//! there by half, and the store is free for the next holder.
//!
//! The process is this test binary again, told by an environment variable to be the writer.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use store::{
    Revision, Sqlite,
    engine::{Engine, Op, Range, Txn},
    sqlite::{OpenError, Options},
};

const STORE: &str = "HOLM_TEST_STORE_TO_WRITE";
const WRITERS: u32 = 8;
const ROUNDS: u32 = 6;

/// History is kept whole, however fast the writer is.
fn options() -> Options {
    Options { history_revisions: u64::MAX }
}

/// Not a test of its own: the writing process. Says `writer number revision` for each acknowledged commit.
#[test]
fn writer_process() {
    let Some(path) = std::env::var_os(STORE).map(PathBuf::from) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = Arc::new(Sqlite::open(&path, options()).unwrap());
        println!("ready");
        let first = engine.head().await.unwrap().0;
        let writers = (0..WRITERS).map(|writer| tokio::spawn(write(Arc::clone(&engine), writer, first)));
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

async fn write(engine: Arc<Sqlite>, writer: u32, first: u64) {
    for number in first.. {
        let txn = Txn::new()
            .then(Op::put(format!("/w/{writer}/{number:08}"), vec![b'x'; 300]))
            .then(Op::put(format!("/last/{writer}"), format!("{number:08}")));
        let revision = engine.commit(txn).await.unwrap().revision;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{writer} {number:08} {revision}").unwrap();
        out.flush().unwrap();
    }
}

fn start_writer(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_process", "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Lets the writer work until it has acknowledged enough, kills it, and gives all it acknowledged.
fn acknowledged_until_killed(mut child: Child, path: &Path, count: usize) -> Vec<(String, Revision)> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The test harness may print the name of the test on the same line.
    lines.find(|line| line.ends_with("ready")).expect("the writer got ready");
    let Err(held) = Sqlite::open(path, options()) else { panic!("two holders") };
    assert!(matches!(held, OpenError::Held { pid: Some(pid), .. } if pid == child.id()), "{held}");
    let mut acknowledged = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut kill = Some(child);
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The last line may have been cut by the kill.
        if let [writer, number, revision] = words[..]
            && let (8, Ok(revision)) = (number.len(), revision.parse())
        {
            acknowledged.push((format!("/w/{writer}/{number}"), Revision(revision)));
        }
        assert!(Instant::now() < deadline, "the writer is too slow: {} commits", acknowledged.len());
        if acknowledged.len() >= count
            && let Some(mut child) = kill.take()
        {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    assert!(kill.is_none(), "the writer ended by itself after {} commits", acknowledged.len());
    // A cut revision number could still parse; everything before the last line is whole.
    acknowledged.pop();
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_commit_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let count = 50 + 131 * round as usize;
        acknowledged.extend(acknowledged_until_killed(start_writer(&path), &path, count));
        let engine = Sqlite::open(&path, options()).expect("the dead hold no lock, and nothing is damaged");
        for (key, revision) in &acknowledged {
            let found = engine.get(key, None).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("round {round}: {key} was acknowledged and is gone"));
            assert_eq!(found.mod_revision, *revision, "round {round}: {key}");
        }
        check_whole(&engine).await;
    }
    assert!(acknowledged.len() > 300, "{}", acknowledged.len());
}

/// No half transaction, no gap in history.
async fn check_whole(engine: &Sqlite) {
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    let mut question = Some(Range::prefix("/w/"));
    while let Some(range) = question {
        let page = engine.range(range).await.unwrap();
        for kv in page.keys {
            let (writer, number) = kv.key["/w/".len()..].split_once('/').unwrap();
            last.insert(writer.to_owned(), number.to_owned());
        }
        question = page.next;
    }
    for (writer, number) in last {
        let found = engine.get(&format!("/last/{writer}"), None).await.unwrap().unwrap();
        assert_eq!(found.value, number, "half a transaction of writer {writer}");
    }
    let head = engine.head().await.unwrap();
    let mut watch = engine.watch("/", Revision(1)).await.unwrap();
    for revision in 1..=head.0 {
        let batch = watch.next().await.unwrap().unwrap();
        assert_eq!((batch.revision, batch.events.len()), (Revision(revision), 2));
    }
}
