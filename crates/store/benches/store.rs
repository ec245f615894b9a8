//! What a commit, a read and a start cost on this machine: `cargo bench -p holm-store`.
//!
//! Prints numbers, judges nothing: the disk's own price of one durable write is printed beside.

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use store::{Index, Record, Schema, Sqlite, Store, Tx, sqlite::Options};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Server {
    id: String,
    project: String,
    name: String,
    addresses: Vec<String>,
    description: String,
}

impl Record for Server {
    const TABLE: &'static str = "server";
    fn key(&self) -> String {
        self.id.clone()
    }
}

const BY_PROJECT: Index<Server> = Index::new("project", |server| vec![server.project.clone()]);

fn server(number: usize) -> Server {
    Server {
        id: format!("{number:08}-aaaa-bbbb-cccc-dddddddddddd"),
        project: format!("project-{}", number % 10),
        name: format!("server-{number}"),
        addresses: vec!["10.0.0.1".into(), "fd00::1".into()],
        description: "x".repeat(600),
    }
}

async fn open(path: &Path) -> Store {
    let engine = Sqlite::open(path, Options::default()).expect("a store");
    Store::open(Arc::new(engine), Schema::new().index(BY_PROJECT)).await.expect("a mirror")
}

async fn create(store: Store, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let server = server(number);
        let mut tx = Tx::new();
        tx.create(&server).claim("name", &server.name, &server.id);
        store.commit(tx).await.expect("a commit");
    }
}

fn show(what: &str, count: u32, time: Duration) {
    println!("{what:<58} {:>10.1?} each  {:>9.0}/s", time / count, f64::from(count) / time.as_secs_f64());
}

fn time_fsync(directory: &Path) {
    let mut file = File::create(directory.join("plain")).expect("a file");
    let begin = Instant::now();
    for _ in 0..200 {
        file.write_all(&[0; 4096]).expect("a write");
        file.sync_data().expect("a sync");
    }
    show("plain 4 KiB append and fdatasync", 200, begin.elapsed());
}

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = directory.path().join("store.db");
    time_fsync(directory.path());
    let store = open(&path).await;

    let begin = Instant::now();
    create(store.clone(), 0..500).await;
    show("commit, one after the other (mirror shows it)", 500, begin.elapsed());

    let begin = Instant::now();
    let tasks: Vec<_> = (0..64)
        .map(|task| tokio::spawn(create(store.clone(), 500 + task * 140..500 + task * 140 + 140)))
        .collect();
    for task in tasks {
        task.await.expect("a writer");
    }
    show("commit, 64 at once", 64 * 140, begin.elapsed());
    create(store.clone(), 9460..10_000).await;

    let begin = Instant::now();
    for _ in 0..1000 {
        assert_eq!(std::hint::black_box(store.by_index(&BY_PROJECT, "project-3")).len(), 1000);
    }
    show("list the 1,000 servers of a project out of 10,000", 1000, begin.elapsed());
    let begin = Instant::now();
    for number in 0..100_000 {
        std::hint::black_box(store.get::<Server>(&server(number % 10_000).id));
    }
    show("get one (and build its key)", 100_000, begin.elapsed());

    store.engine().close().await;
    drop(store);
    let begin = Instant::now();
    let engine = Arc::new(Sqlite::open(&path, Options::default()).expect("a store"));
    show("open and check a file of 10,000 records and their history", 1, begin.elapsed());
    let begin = Instant::now();
    let store = Store::open(engine, Schema::new().index(BY_PROJECT)).await.expect("a mirror");
    show("read 10,000 records into the mirror", 1, begin.elapsed());
    assert_eq!(store.list::<Server>().len(), 10_000);
    println!("store file: {} KiB", path.metadata().expect("the file").len() / 1024);
}
