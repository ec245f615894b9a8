//! The embedded engine on real files: damage, torn writes, a full disk, a second holder, backups, history.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rusqlite::Connection;
use store::{
    Revision, Sqlite,
    engine::{Engine, Error, KeyValue, Op, Range, Txn},
    sqlite::{OpenError, Options},
};

fn open(path: &Path) -> Result<Sqlite, OpenError> {
    Sqlite::open(path, Options::default())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

async fn all(engine: &Sqlite) -> Vec<KeyValue> {
    engine.range(Range::prefix("")).await.unwrap().keys
}

/// Two keys per transaction, so that half of one would show.
async fn write_pair(engine: &Sqlite, number: u32) -> Revision {
    let value = vec![number as u8; 700];
    let txn = Txn::new()
        .then(Op::put(format!("/one/{number:04}"), value.clone()))
        .then(Op::put(format!("/two/{number:04}"), value));
    engine.commit(txn).await.unwrap().revision
}

/// How many pairs there are; panics if they are not exactly the first ones.
async fn pairs(engine: &Sqlite) -> u32 {
    let keys = all(engine).await;
    let count = keys.len() as u32 / 2;
    let wanted =
        ["one", "two"].into_iter().flat_map(|half| (0..count).map(move |n| format!("/{half}/{n:04}")));
    assert!(keys.iter().map(|kv| kv.key.clone()).eq(wanted), "not a whole beginning: {keys:?}");
    assert_eq!(engine.head().await.unwrap(), Revision(u64::from(count)));
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_log_loses_at_most_its_torn_end() {
    const PAIRS: u32 = 60;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let engine = open(&path).unwrap();
    for number in 0..PAIRS {
        write_pair(&engine, number).await;
    }
    let (file, log) = (std::fs::read(&path).unwrap(), std::fs::read(beside(&path, "-wal")).unwrap());
    drop(engine);
    assert!(log.len() > 100_000, "the log holds the writes: {} bytes", log.len());

    let mut counts = Vec::new();
    for step in 0..=40 {
        let cut = log.len() * step / 40;
        let mut garbled = log.clone();
        garbled[cut..].iter_mut().take(512).for_each(|byte| *byte ^= 0x5a);
        for (kind, log) in [("cut", &log[..cut]), ("garbled", &garbled[..])] {
            let path = directory.path().join(format!("{kind}-{step}.db"));
            std::fs::write(&path, &file).unwrap();
            std::fs::write(beside(&path, "-wal"), log).unwrap();
            let engine = open(&path).unwrap_or_else(|error| panic!("{kind} at {cut}: {error}"));
            let count = pairs(&engine).await;
            let next = write_pair(&engine, count).await;
            assert_eq!(next.0, u64::from(count) + 1, "{kind} at {cut}: work goes on");
            drop(engine);
            assert_eq!(pairs(&open(&path).unwrap()).await, count + 1);
            counts.push(count);
        }
    }
    assert_eq!((counts.first(), counts.last()), (Some(&0), Some(&PAIRS)), "{counts:?}");
    let cuts: Vec<u32> = counts.iter().step_by(2).copied().collect();
    assert!(cuts.is_sorted() && cuts.windows(2).filter(|pair| pair[0] < pair[1]).count() > 20, "{cuts:?}");
}

/// The bytes of a whole store with 200 pairs.
async fn whole_store(directory: &Path) -> Vec<u8> {
    let path = directory.join("whole.db");
    let engine = open(&path).unwrap();
    for number in 0..200 {
        write_pair(&engine, number).await;
    }
    engine.close().await;
    drop(engine);
    std::fs::read(&path).unwrap()
}

/// The bytes after some SQL was run on them.
fn changed(directory: &Path, bytes: &[u8], sql: &str) -> Vec<u8> {
    let path = directory.join("changed.db");
    std::fs::write(&path, bytes).unwrap();
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    std::fs::read(&path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_foreign_files_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let whole = whole_store(directory.path()).await;
    let spoiled = |spoil: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        spoil(&mut bytes);
        bytes
    };
    let changed = |bytes: &[u8], sql: &str| changed(directory.path(), bytes, sql);
    let text = b"This is not a store, but it is a long text.\n".repeat(200);
    let check = |name: &str, bytes: Vec<u8>, wanted: &str| {
        let path = directory.path().join(format!("{name}.db"));
        std::fs::write(&path, &bytes).unwrap();
        let Err(error) = open(&path) else { panic!("{name} was opened") };
        let text = error.to_string();
        assert!(text.contains(wanted) && text.contains(&path.display().to_string()), "{name}: {text}");
        if matches!(error, OpenError::Corrupt { .. }) {
            assert!(text.contains("put a backup copy in their place"), "{name} tells the way out: {text}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name} was changed");
    };
    check("empty", Vec::new(), "is damaged: the file is empty. Nothing was changed.");
    check("text", text, "is damaged: file is not a database");
    check("half", spoiled(&|bytes| bytes.truncate(bytes.len() / 2)), "is damaged: ");
    check("pages", spoiled(&|bytes| bytes[4096..].fill(0xa5)), "is damaged: ");
    check("zeroes", spoiled(&|bytes| bytes[8192..].fill(0)), "is damaged: ");
    let behind = changed(&whole, "UPDATE meta SET head = 7");
    check("behind", behind, "it holds changes of revision 200, but ends at revision 7");
    check("another", changed(b"", "CREATE TABLE t (a)"), "is not a store of holm; nothing was changed");
    let newer = changed(&whole, "PRAGMA user_version = 99");
    check("newer", newer, "has format 99, this holm knows formats up to 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_file_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    std::fs::write(beside(&path, "-wal"), b"something").unwrap();
    let Err(error) = open(&path) else { panic!("a log without its file was opened") };
    assert!(error.to_string().contains("the file is missing, only its log is there"), "{error}");
    assert_eq!(std::fs::read(beside(&path, "-wal")).unwrap(), b"something");
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_holder_is_told_who_has_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let first = open(&path).unwrap();
    let Err(error) = open(&path) else { panic!("two holders") };
    assert!(matches!(error, OpenError::Held { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(error.to_string().contains(&format!("is in use by process {};", std::process::id())), "{error}");
    write_pair(&first, 0).await;
    drop(first);
    assert_eq!(pairs(&open(&path).unwrap()).await, 1);
}

/// A small file system that is gone when the test is.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> SmallDisk {
        let directory = tempfile::tempdir().unwrap();
        let options = Some(format!("size={size}"));
        mount(Some("holm-test"), directory.path(), Some("tmpfs"), MsFlags::empty(), options.as_deref())
            .unwrap();
        SmallDisk(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_writes_and_nothing_else() {
    let disk = SmallDisk::new("6m");
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 2 << 20]).unwrap();
    let path = disk.0.path().join("store.db");
    let engine = open(&path).unwrap();
    let value = vec![7; 50_000];
    let mut written = 0;
    let error = loop {
        assert!(written < 1000, "a disk of 6 MiB never got full");
        let txn = Txn::new().then(Op::put(format!("/k/{written:04}"), value.clone()));
        match engine.commit(txn).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Unavailable { operation: "commit", .. }), "{error}");
    assert!(error.to_string().contains("no space is left for"), "{error}");
    assert_eq!(engine.range(Range::prefix("/k/")).await.unwrap().keys.len(), written, "reads go on");
    std::fs::remove_file(&ballast).unwrap();
    let after = engine.commit(Txn::new().then(Op::put("/after", "1"))).await.expect("room again");
    assert_eq!(after.revision, Revision(written as u64 + 1), "a failed write takes no revision");
    drop(engine);
    assert_eq!(all(&open(&path).unwrap()).await.len(), written + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_a_whole_store_and_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Arc::new(open(&directory.path().join("store.db")).unwrap());
    for number in 0..20 {
        write_pair(&engine, number).await;
    }
    let copy = directory.path().join("copy.db");
    // What an interrupted backup left is no obstacle.
    std::fs::write(beside(&copy, ".part"), b"torn").unwrap();
    engine.backup(copy.clone()).await.unwrap();
    write_pair(&engine, 20).await;
    let error = engine.backup(copy.clone()).await.unwrap_err();
    assert!(error.to_string().contains("File exists"), "{error}");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&copy.metadata().unwrap()) & 0o777, 0o600);
    assert_eq!(pairs(&open(&copy).unwrap()).await, 20);
    assert_eq!(pairs(&engine).await, 21);
    let names: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_kept_within_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let engine = Sqlite::open(&path, Options { history_revisions: 100 }).unwrap();
    for number in 0..400_u32 {
        engine.commit(Txn::new().then(Op::put("/k", number.to_string()))).await.unwrap();
    }
    let old = engine.get("/k", Some(Revision(200))).await;
    assert!(matches!(old, Err(Error::Compacted { .. })), "{old:?}");
    let kept = engine.get("/k", Some(Revision(300))).await.unwrap().unwrap();
    assert_eq!(&*kept.value, b"299");
    assert!(engine.watch("/", Revision(301)).await.is_ok());
    drop(engine);
    let events: u64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM event", [], |row| row.get(0))
        .unwrap();
    assert!((100..200).contains(&events), "{events} events are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_and_their_keys_survive_a_restart_and_then_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let engine = open(&path).unwrap();
    let short = engine.lease_grant(Duration::from_secs(2)).await.unwrap();
    let long = engine.lease_grant(Duration::from_secs(3600)).await.unwrap();
    let txn = Txn::new().then(Op::put_leased("/short", "", short)).then(Op::put_leased("/long", "", long));
    engine.commit(txn).await.unwrap();
    drop(engine);
    let engine = open(&path).unwrap();
    assert_eq!(all(&engine).await.len(), 2, "a restart gives a lease its time again");
    engine.lease_keep_alive(long).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while engine.get("/short", None).await.unwrap().is_some() {
        assert!(std::time::Instant::now() < deadline, "the short lease never ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(engine.get("/long", None).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_creation_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    std::fs::write(beside(&path, ".new"), b"torn").unwrap();
    std::fs::write(beside(&path, ".new-journal"), vec![0xd9; 4096]).unwrap();
    let engine = open(&path).unwrap();
    write_pair(&engine, 0).await;
    drop(engine);
    assert_eq!(pairs(&open(&path).unwrap()).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let engine = open(&path).unwrap();
    write_pair(&engine, 0).await;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mode = beside(&path, suffix).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{suffix} has mode {mode:o}");
    }
    let missing = directory.path().join("none/store.db");
    let Err(error) = open(&missing) else { panic!("a directory was made up") };
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}
