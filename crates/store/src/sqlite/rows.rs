//! The SQL of keys and events.

use bytes::Bytes;
use rusqlite::{Connection, Row, params};

use crate::engine::{Batch, Event, KeyValue, LeaseId, Revision, prefix_end};

/// One key as it is now.
pub(super) fn get(connection: &Connection, key: &str) -> rusqlite::Result<Option<KeyValue>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, value, create_revision, mod_revision, version, lease FROM kv WHERE key = ?1",
    )?;
    let mut rows = statement.query_map([key], key_value)?;
    rows.next().transpose()
}

/// One key as it was at a revision that history still covers.
pub(super) fn get_at(connection: &Connection, key: &str, at: Revision) -> rusqlite::Result<Option<KeyValue>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, value, create_revision, mod_revision, version, lease FROM kv
          WHERE key = ?1 AND mod_revision <= ?2
         UNION ALL
         SELECT key, before_value, before_create_revision, before_mod_revision, before_version, before_lease
           FROM event
          WHERE revision > ?2 AND key = ?1 AND before_value IS NOT NULL AND before_mod_revision <= ?2",
    )?;
    let mut rows = statement.query_map(params![key, at.0], key_value)?;
    rows.next().transpose()
}

/// The keys with a prefix, after `after`, as they are now; at most `limit`.
pub(super) fn range(
    connection: &Connection,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> rusqlite::Result<Vec<KeyValue>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, value, create_revision, mod_revision, version, lease FROM kv
          WHERE key >= ?1 AND key < ?2 AND key > ?3 ORDER BY key LIMIT ?4",
    )?;
    let bounds = params![prefix, prefix_end(prefix), after.unwrap_or(""), limit];
    statement.query_map(bounds, key_value)?.collect()
}

/// As [`range`], at a revision that history still covers: what has not changed since, and what the first
/// later event found.
pub(super) fn range_at(
    connection: &Connection,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    at: Revision,
) -> rusqlite::Result<Vec<KeyValue>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, value, create_revision, mod_revision, version, lease FROM kv
          WHERE key >= ?1 AND key < ?2 AND key > ?3 AND mod_revision <= ?5
         UNION ALL
         SELECT key, before_value, before_create_revision, before_mod_revision, before_version, before_lease
           FROM event
          WHERE revision > ?5 AND key >= ?1 AND key < ?2 AND key > ?3
            AND before_value IS NOT NULL AND before_mod_revision <= ?5
         ORDER BY key LIMIT ?4",
    )?;
    let bounds = params![prefix, prefix_end(prefix), after.unwrap_or(""), limit, at.0];
    statement.query_map(bounds, key_value)?.collect()
}

/// The keys that live by a lease.
pub(super) fn leased(connection: &Connection, lease: LeaseId) -> rusqlite::Result<Vec<KeyValue>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, value, create_revision, mod_revision, version, lease FROM kv
          WHERE lease = ?1 AND lease != 0 ORDER BY key",
    )?;
    statement.query_map([lease.0], key_value)?.collect()
}

/// Makes an event real: in `kv` and in history.
pub(super) fn write(connection: &Connection, revision: Revision, event: &Event) -> rusqlite::Result<()> {
    match &event.now {
        Some(kv) => connection
            .prepare_cached(
                "INSERT INTO kv (key, value, create_revision, mod_revision, version, lease)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (key) DO UPDATE SET value = ?2, mod_revision = ?4, version = ?5, lease = ?6",
            )?
            .execute(params![
                kv.key,
                &*kv.value,
                kv.create_revision.0,
                kv.mod_revision.0,
                kv.version,
                number(kv.lease)
            ])?,
        None => connection.prepare_cached("DELETE FROM kv WHERE key = ?1")?.execute([&event.key])?,
    };
    let (now, before) = (event.now.as_ref(), event.before.as_ref());
    connection
        .prepare_cached(
            "INSERT INTO event (revision, key, value, create_revision, version, lease, before_value,
                    before_create_revision, before_mod_revision, before_version, before_lease)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            revision.0,
            event.key,
            now.map(|kv| &*kv.value),
            now.map_or(0, |kv| kv.create_revision.0),
            now.map_or(0, |kv| kv.version),
            number(now.and_then(|kv| kv.lease)),
            before.map(|kv| &*kv.value),
            before.map_or(0, |kv| kv.create_revision.0),
            before.map_or(0, |kv| kv.mod_revision.0),
            before.map_or(0, |kv| kv.version),
            number(before.and_then(|kv| kv.lease)),
        ])?;
    Ok(())
}

/// The events of `revisions` revisions from `from` on, by revision.
pub(super) fn history(
    connection: &Connection,
    from: Revision,
    revisions: u64,
) -> rusqlite::Result<Vec<Batch>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, value, create_revision, revision, version, lease, before_value, before_create_revision,
                before_mod_revision, before_version, before_lease
           FROM event WHERE revision >= ?1 AND revision < ?2 ORDER BY revision, id",
    )?;
    let events = statement.query_map(params![from.0, from.0.saturating_add(revisions)], event)?;
    let mut batches: Vec<Batch> = Vec::new();
    for row in events {
        let (revision, event) = row?;
        match batches.last_mut() {
            Some(batch) if batch.revision == revision => batch.events.push(event),
            _ => batches.push(Batch { revision, events: vec![event] }),
        }
    }
    Ok(batches)
}

fn event(row: &Row<'_>) -> rusqlite::Result<(Revision, Event)> {
    let key: String = row.get(0)?;
    let revision = Revision(row.get(3)?);
    let now = row.get::<_, Option<Vec<u8>>>(1)?;
    let before = row.get::<_, Option<Vec<u8>>>(6)?;
    let now = match now {
        Some(value) => Some(KeyValue {
            key: key.clone(),
            value: value.into(),
            create_revision: Revision(row.get(2)?),
            mod_revision: revision,
            version: row.get(4)?,
            lease: lease(row.get(5)?),
        }),
        None => None,
    };
    let before = match before {
        Some(value) => Some(KeyValue {
            key: key.clone(),
            value: value.into(),
            create_revision: Revision(row.get(7)?),
            mod_revision: Revision(row.get(8)?),
            version: row.get(9)?,
            lease: lease(row.get(10)?),
        }),
        None => None,
    };
    Ok((revision, Event { key, now, before }))
}

fn key_value(row: &Row<'_>) -> rusqlite::Result<KeyValue> {
    Ok(KeyValue {
        key: row.get(0)?,
        value: Bytes::from(row.get::<_, Vec<u8>>(1)?),
        create_revision: Revision(row.get(2)?),
        mod_revision: Revision(row.get(3)?),
        version: row.get(4)?,
        lease: lease(row.get(5)?),
    })
}

fn lease(number: i64) -> Option<LeaseId> {
    (number != 0).then_some(LeaseId(number))
}

fn number(lease: Option<LeaseId>) -> i64 {
    lease.map_or(0, |lease| lease.0)
}
