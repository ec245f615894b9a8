//! The tables of the store file, and how a new file is made: whole, or not at all.
//!
//! ```text
//!  meta   one row: the newest revision, and up to where history is forgotten
//!  kv     what is there now
//!  event  what happened, with the value before and after. The state at revision R is `kv` where it did
//!         not change since, and the value before the first later event where it did; so forgetting history
//!         is deleting old events, and needs no look at anything else
//!  lease  leases and their times; when they end is known to the writer alone
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::open::OpenError;

/// Says that an SQLite file is a store of ours: "holm" in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x686f_6c6d;
/// The version of these tables.
pub(super) const SCHEMA_VERSION: i32 = 1;

const TABLES: &str = "
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    head INTEGER NOT NULL,
    compacted INTEGER NOT NULL
);
INSERT INTO meta (id, head, compacted) VALUES (1, 0, 0);
CREATE TABLE kv (
    key TEXT PRIMARY KEY NOT NULL,
    create_revision INTEGER NOT NULL,
    mod_revision INTEGER NOT NULL,
    version INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    value BLOB NOT NULL
) STRICT;
CREATE INDEX kv_lease ON kv (lease) WHERE lease != 0;
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    key TEXT NOT NULL,
    create_revision INTEGER NOT NULL,
    version INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    before_create_revision INTEGER NOT NULL,
    before_mod_revision INTEGER NOT NULL,
    before_version INTEGER NOT NULL,
    before_lease INTEGER NOT NULL,
    value BLOB,
    before_value BLOB
) STRICT;
CREATE INDEX event_revision ON event (revision);
CREATE TABLE lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ttl_ms INTEGER NOT NULL
) STRICT;
";

/// Makes a store file where none is. It appears under its name only when it is complete, so a file that is
/// there and empty was damaged, not interrupted.
pub(super) fn create(path: &Path) -> Result<(), OpenError> {
    let directory = directory_of(path);
    let unfinished = with_suffix(path, ".new");
    let io = |operation, error| OpenError::Io { operation, path: path.to_owned(), error };
    remove_stale(&unfinished)
        .and_then(|()| create_private(&unfinished))
        .map_err(|error| io("create", error))?;
    fill(&unfinished).map_err(|error| OpenError::sqlite("create", path, error))?;
    let publish = || {
        File::open(&unfinished)?.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        File::open(directory)?.sync_all()
    };
    publish().map_err(|error| io("create", error))
}

fn fill(path: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    let header = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};");
    connection.execute_batch(&format!("BEGIN; {header} {TABLES} COMMIT;"))?;
    connection.close().map_err(|(_, error)| error)
}

/// Removes what an interrupted attempt left, with SQLite's journal of it.
pub(super) fn remove_stale(unfinished: &Path) -> io::Result<()> {
    for path in [unfinished.to_owned(), with_suffix(unfinished, "-journal")] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes an empty file that only its owner may read: stores hold secrets.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(|_| ())
}

/// The directory that holds a file.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path with something appended to its last name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
