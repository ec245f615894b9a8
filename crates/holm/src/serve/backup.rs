//! Copies of the store, made while it is in use: the way out when the file itself is damaged.
//!
//! ```text
//!  <state>/backups/holm-20260102T030405Z.db   whole, flushed; the newest few are kept
//!  <state>/backups/.partial                   being written; of no use after a crash
//! ```
//!
//! A copy is made every hour in which something changed. It lies on the same disk as the store: it helps against damage
//! of the file and against mistakes, not against the loss of the disk.

use jiff::Timestamp;
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::{
    Sqlite,
    engine::{Engine, Revision},
};
use tokio_util::sync::CancellationToken;

/// Directory of the copies below the state directory.
pub const DIRECTORY: &str = "backups";
/// How often the store is copied.
const EVERY: Duration = Duration::from_secs(3600);
/// After a failure.
const AGAIN_AFTER: Duration = Duration::from_secs(300);
/// Copies kept.
const KEPT: usize = 3;
const PREFIX: &str = "holm-";
const SUFFIX: &str = ".db";
const PARTIAL: &str = ".partial";
const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// Why there is no new copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store could not be read, or the copy not be written.
    #[error(transparent)]
    Store(#[from] store::engine::Error),
    /// The directory of copies.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_path_buf();
    move |source| BackupError::File { operation, path, source }
}

/// The copies in a state directory, oldest first. Those that were made at a time which is yet to come come before all others:
/// a clock was wrong then, and they would count as the newest for as long as it was ahead.
fn list(state: &Path, now: Timestamp) -> Vec<PathBuf> {
    let entries = fs::read_dir(state.join(DIRECTORY)).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
        })
        .map(|entry| entry.path())
        .collect();
    // The names tell the time, so their order is that of the time.
    found.sort();
    let newest = name(now);
    let is_to_come = |path: &PathBuf| path.file_name().is_some_and(|name| name > newest.as_str());
    let (to_come, past): (Vec<_>, Vec<_>) = found.into_iter().partition(is_to_come);
    to_come.into_iter().chain(past).collect()
}

fn name(at: Timestamp) -> String {
    format!("{PREFIX}{}{SUFFIX}", at.strftime(TIME_FORMAT))
}

/// What to do with a damaged store, in words. A copy whose time is yet to come is named where there is no other.
pub fn way_out(state: &Path, now: Timestamp) -> String {
    let store = state.join("holm.db");
    let store = store.display();
    match list(state, now).last() {
        Some(newest) => format!(
            "The newest copy that holm made of it is {copy}: `mkdir {aside} && mv {store}* {aside}/ && cp {copy} {store}` \
             puts it back. What was changed after it is forgotten: what was made since is removed with its files, and a disk of which \
             a snapshot or a copy was made since is left as it is and named with its way out. To keep all of that, copy \
             {volumes} elsewhere first. Other guests that run go on",
            volumes = state.join("volumes").display(),
            copy = newest.display(),
            aside = state.join("damaged").display(),
        ),
        None => format!("holm made no copy of it yet in {}", state.join(DIRECTORY).display()),
    }
}

/// Copies the store, and lets go of the oldest copies.
///
/// # Errors
/// What could not be written; the older copies are all there then.
pub async fn make(engine: &Sqlite, state: &Path, now: Timestamp) -> Result<PathBuf, BackupError> {
    let dir = state.join(DIRECTORY);
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&dir).map_err(at("create", &dir))?;
    let partial = dir.join(PARTIAL);
    remove(&partial)?;
    engine.backup(partial.clone()).await?;
    let path = dir.join(name(now));
    let (from, to) = (partial.clone(), path.clone());
    let placed = tokio::task::spawn_blocking(move || {
        fs::File::open(&from)?.sync_all()?;
        fs::rename(&from, &to)?;
        fs::File::open(&dir)?.sync_all()
    });
    placed.await.map_err(io::Error::other).and_then(|done| done).map_err(at("keep", &path))?;
    let all = list(state, now);
    for old in all.iter().take(all.len().saturating_sub(KEPT)) {
        remove(old)?;
    }
    Ok(path)
}

fn remove(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// How long the newest copy is good for still.
fn wait(state: &Path, now: Timestamp) -> Duration {
    let newest = list(state, now).pop();
    let age = newest.and_then(|path| fs::metadata(path).ok()?.modified().ok()?.elapsed().ok());
    age.map_or(Duration::ZERO, |age| EVERY.saturating_sub(age))
}

/// Copies it hourly until holm stops.
pub async fn run(engine: Arc<Sqlite>, state: PathBuf, stopping: CancellationToken) {
    let mut copied: Option<Revision> = None;
    let mut pause = wait(&state, Timestamp::now());
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = EVERY;
        let head = engine.head().await.ok();
        if head.is_some() && head == copied {
            continue;
        }
        match make(&engine, &state, Timestamp::now()).await {
            Ok(path) => {
                tracing::debug!(copy = %path.display(), "the store was copied");
                copied = head;
            }
            Err(error) => {
                let error = node::instance::sentence(&error);
                tracing::warn!(error, "the store could not be copied");
                pause = AGAIN_AFTER;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{
        engine::{Op, Txn},
        sqlite::{OpenError, Options},
    };

    fn open(state: &Path) -> Result<Sqlite, OpenError> {
        Sqlite::open(&state.join("holm.db"), Options::default())
    }

    async fn put(engine: &Sqlite, value: &str) {
        engine.commit(Txn::new().then(Op::put("/holm/x", value.to_string()))).await.unwrap();
    }

    #[tokio::test]
    async fn the_newest_few_are_kept_and_one_of_them_brings_a_damaged_store_back() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        let first = Timestamp::from_second(1_800_000_000).unwrap();
        assert!(way_out(state, first).contains("no copy"));
        assert_eq!(wait(state, first), Duration::ZERO);
        let engine = open(state).unwrap();
        fs::create_dir(state.join(DIRECTORY)).unwrap();
        fs::write(state.join(DIRECTORY).join(PARTIAL), "cut short").unwrap();
        let (mut made, mut now) = (vec![], first);
        for hour in 0..5 {
            put(&engine, &hour.to_string()).await;
            now = first + EVERY * hour;
            made.push(make(&engine, state, now).await.unwrap());
        }
        assert_eq!(list(state, now), made[2..]);
        assert!(wait(state, now) > EVERY / 2);
        drop(engine);

        let file = state.join("holm.db");
        let mut bytes = fs::read(&file).unwrap();
        let size = bytes.len();
        bytes[size / 2..].fill(0x5a);
        bytes[100..200].fill(0xff);
        fs::write(&file, bytes).unwrap();
        assert!(matches!(open(state), Err(OpenError::Corrupt { .. })));
        let told = way_out(state, now);
        let newest = made.last().unwrap();
        assert!(told.contains(&newest.display().to_string()), "{told}");
        // What it says to type, typed.
        let command = told.split('`').nth(1).unwrap();
        assert!(std::process::Command::new("sh").args(["-c", command]).status().unwrap().success());
        let engine = open(state).unwrap();
        let value = engine.get("/holm/x", None).await.unwrap().unwrap().value;
        assert_eq!(String::from_utf8_lossy(&value), "4");
    }

    #[tokio::test]
    async fn copies_of_a_time_that_is_yet_to_come_go_first_and_are_not_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        let engine = open(state).unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        // The clock was years ahead, and is right again.
        let ahead = now + EVERY * 50_000;
        let mut made = vec![];
        for hour in 0..3 {
            put(&engine, &hour.to_string()).await;
            made.push(make(&engine, state, ahead + EVERY * hour).await.unwrap());
        }
        assert!(way_out(state, now).contains(&made[2].display().to_string()), "better than none");
        put(&engine, "right").await;
        let right = make(&engine, state, now).await.unwrap();
        assert_eq!(list(state, now), [made[1].clone(), made[2].clone(), right.clone()]);
        assert!(way_out(state, now).contains(&right.display().to_string()));
        for hour in 1..3 {
            made.push(make(&engine, state, now + EVERY * hour).await.unwrap());
        }
        assert_eq!(list(state, now + EVERY * 2), [right, made[3].clone(), made[4].clone()]);
    }
}
