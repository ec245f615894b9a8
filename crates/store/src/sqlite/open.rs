//! Opening a store file: take the lock, look before touching, check every page, then get ready to serve.
//!
//! It exists so that a bad file is found at the start and named, with the way out, instead of being met in
//! the middle of work. It must never change, replace or "repair" a file that it refuses.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    lock::{self, StoreLock},
    schema::{self, APPLICATION_ID, SCHEMA_VERSION, with_suffix},
};
use crate::engine::{LeaseId, Revision};

/// How many findings of the integrity check are told.
const FINDINGS_MAX: usize = 3;
/// How many prepared statements a connection keeps; more than there are.
const STATEMENTS_MAX: usize = 64;

/// Why a store file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process serves this store.
    #[error("the store {} is in use by {}", path.display(), holder(*pid))]
    Held {
        /// The store file.
        path: PathBuf,
        /// Who holds it, when it can be told.
        pid: Option<u32>,
    },
    /// The file is not whole. It was left as it is.
    #[error(
        "the store {path} is damaged: {detail}. Nothing was changed. To go on, move {path}, {path}-wal and \
         {path}-shm aside together and put a backup copy in their place, or save what can be read with \
         `sqlite3 {path} .recover`", path = path.display()
    )]
    Corrupt {
        /// The store file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A file is there, but it is not a store.
    #[error("{} is not a store of holm; nothing was changed", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error(
        "the store {} has format {found}, this holm knows formats up to {SCHEMA_VERSION}: use the newer holm \
         that wrote it, or put back a backup copy from before the upgrade", path.display()
    )]
    Newer {
        /// The store file.
        path: PathBuf,
        /// The format found.
        found: i32,
    },
    /// The file system said no.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// SQLite said no, but not because of damage.
    #[error("cannot {operation} the store {}", path.display())]
    Sqlite {
        /// What was being done.
        operation: &'static str,
        /// The store file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        error: rusqlite::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}; stop that one first, or give this one another state directory"),
        None => "another process".into(),
    }
}

impl OpenError {
    pub(super) fn sqlite(operation: &'static str, path: &Path, error: rusqlite::Error) -> OpenError {
        match is_damage(&error) {
            true => OpenError::Corrupt { path: path.to_owned(), detail: error.to_string() },
            false => OpenError::Sqlite { operation, path: path.to_owned(), error },
        }
    }

    fn corrupt(path: &Path, detail: impl Into<String>) -> OpenError {
        OpenError::Corrupt { path: path.to_owned(), detail: detail.into() }
    }
}

/// Whether SQLite says that the file itself is bad.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// Where history stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub(super) head: Revision,
    pub(super) compacted: Revision,
}

/// A store file that is whole, locked and ready.
pub(super) struct Opened {
    pub(super) lock: StoreLock,
    pub(super) writer: Connection,
    pub(super) reader: Connection,
    pub(super) meta: Meta,
    pub(super) leases: Vec<(LeaseId, Duration)>,
}

pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    let lock = lock::take(path)?;
    if !exists(path)? {
        schema::create(path)?;
    }
    let failed = |error| OpenError::sqlite("open", path, error);
    let writer = connect(path).map_err(failed)?;
    // Until the file has proven whole, closing it must not move the log into it.
    writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    check(path, &writer)?;
    writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
    prepare_writer(&writer).map_err(failed)?;
    let reader = connect(path).map_err(failed)?;
    reader.pragma_update(None, "query_only", true).map_err(failed)?;
    let meta = read_meta(&writer).map_err(failed)?;
    let leases = read_leases(&writer).map_err(failed)?;
    Ok(Opened { lock, writer, reader, meta, leases })
}

/// Whether there is a store file. An empty one, or a log without its file, is the rest of a damaged store:
/// SQLite would throw the log away and begin anew.
fn exists(path: &Path) -> Result<bool, OpenError> {
    let size = |path: &Path| match path.metadata() {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::Io { operation: "open", path: path.to_owned(), error }),
    };
    let log = size(&with_suffix(path, "-wal"))?.unwrap_or(0);
    match size(path)? {
        Some(0) => Err(OpenError::corrupt(path, "the file is empty")),
        Some(_) => Ok(true),
        None if log > 0 => Err(OpenError::corrupt(path, "the file is missing, only its log is there")),
        None => Ok(false),
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

fn check(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let failed = |error| OpenError::sqlite("check", path, error);
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    if number("application_id").map_err(failed)? != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    let found = number("user_version").map_err(failed)?;
    if found > SCHEMA_VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found });
    }
    let findings = integrity_check(connection).map_err(failed)?;
    if !findings.is_empty() {
        return Err(OpenError::corrupt(path, findings.join("; ")));
    }
    let youngest = "SELECT max((SELECT ifnull(max(mod_revision), 0) FROM kv),
                               (SELECT ifnull(max(revision), 0) FROM event))";
    let youngest: u64 = connection.query_row(youngest, [], |row| row.get(0)).map_err(failed)?;
    let head = read_meta(connection).map_err(failed)?.head;
    if youngest > head.0 {
        let detail = format!("it holds changes of revision {youngest}, but ends at revision {head}");
        return Err(OpenError::corrupt(path, detail));
    }
    Ok(())
}

fn integrity_check(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({FINDINGS_MAX})"))?;
    let findings = statement.query_map([], |row| row.get::<_, String>(0))?;
    let findings: Vec<String> = findings.collect::<rusqlite::Result<_>>()?;
    Ok(findings.into_iter().filter(|finding| finding != "ok").collect())
}

fn prepare_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    // A log that once grew large shrinks again.
    connection.pragma_update_and_check(None, "journal_size_limit", 16 * 1024 * 1024, |_| Ok(()))
}

pub(super) fn read_meta(connection: &Connection) -> rusqlite::Result<Meta> {
    let mut statement = connection.prepare_cached("SELECT head, compacted FROM meta")?;
    statement.query_row([], |row| Ok(Meta { head: Revision(row.get(0)?), compacted: Revision(row.get(1)?) }))
}

fn read_leases(connection: &Connection) -> rusqlite::Result<Vec<(LeaseId, Duration)>> {
    let mut statement = connection.prepare("SELECT id, ttl_ms FROM lease")?;
    let leases =
        statement.query_map([], |row| Ok((LeaseId(row.get(0)?), Duration::from_millis(row.get(1)?))))?;
    leases.collect()
}
