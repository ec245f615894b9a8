//! The node's status, written at the start and whenever it changed enough to matter; and what is wrong with records.

use super::ServeError;
use crate::cli::wording;
use control::Control;
use jiff::Timestamp;
use model::{
    id::{EventId, NodeId},
    node::{NodeStatus, Room, STORAGE_LOW_FACT},
    operation::{Event, Subject},
};
use node::host::HostFacts;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};
use store::{Store, Tx};
use tokio_util::sync::CancellationToken;

/// How often the host is looked at.
const EVERY: Duration = Duration::from_secs(60);
/// Fact that names records which cannot be read.
const UNREADABLE: &str = "unreadable_records";
/// Records that the fact names; the number tells of the rest.
const NAMED_MAX: usize = 10;

/// Writes the status if it differs from what is stored, the time aside.
pub async fn beat(store: &Store, id: NodeId, state: &Path, known: &HostFacts) -> Result<(), ServeError> {
    let mut status = node::host::status(id, state, known).map_err(super::host_error("look at the host"))?;
    if let Some(text) = unreadable(store) {
        status.facts.insert(UNREADABLE.into(), text);
    }
    let stored = store.get::<NodeStatus>(&id.to_string());
    let room = node::host::disk_room(state).map_err(super::host_error("look at the storage"))?;
    // The fact in the store remembers what was told, over restarts too.
    let was_low = stored.as_ref().is_some_and(|stored| stored.record.facts.contains_key(STORAGE_LOW_FACT));
    let is_low = room.is_low(was_low);
    if is_low {
        status.facts.insert(STORAGE_LOW_FACT.into(), storage_words(room));
    }
    if let Some(stored) = stored {
        let now = std::mem::replace(&mut status.at, stored.record.at);
        if status == stored.record {
            return Ok(());
        }
        status.at = now;
    }
    let mut tx = Tx::new();
    tx.put(&status);
    if is_low != was_low {
        tx.put(&storage_event(id, status.at, room, is_low));
    }
    store.commit(tx).await?;
    Ok(())
}

fn storage_words(room: Room) -> String {
    let (used, free) = (room.used_percent(), wording::bytes(room.available_bytes));
    format!("{used} % of {} are used, {free} are free", wording::bytes(room.total_bytes))
}

/// Told when the line is crossed, up or down.
fn storage_event(id: NodeId, at: Timestamp, room: Room, is_low: bool) -> Event {
    let words = storage_words(room);
    let (reason, message) = match is_low {
        true => (
            "storage.low",
            format!(
                "the storage is nearly full: {words}. Virtual machines that find no room stand still: delete volumes, \
                 snapshots or images, let guests trim their disks, or give the state directory more space"
            ),
        ),
        false => ("storage.well", format!("the storage has room again: {words}")),
    };
    tracing::warn!(is_low, "{message}");
    let subject = Subject { noun: "node".to_string(), id: id.to_string() };
    Event {
        id: EventId::from_random(rand::random()),
        at,
        project: None,
        subject,
        reason: reason.to_string(),
        message,
        warning: is_low,
    }
}

/// Names of records that this holm cannot read: nothing is done for them, and nothing of theirs is removed.
fn unreadable(store: &Store) -> Option<String> {
    let corrupt = store.mirror().corrupt();
    if corrupt.is_empty() {
        return None;
    }
    let named: Vec<String> =
        corrupt.iter().take(NAMED_MAX).map(|c| format!("{} {}", c.table, c.key)).collect();
    let more = if corrupt.len() > NAMED_MAX { ", …" } else { "" };
    Some(format!("{}: {}{more}", corrupt.len(), named.join(", ")))
}

/// Tells of each record that cannot be read, once while holm runs.
#[derive(Default)]
pub struct Alarm {
    told: BTreeSet<(&'static str, String)>,
}

impl Alarm {
    /// Notes an event for every record that became unreadable since the last look.
    pub async fn look(&mut self, control: &Control) {
        let corrupt = control.store().mirror().corrupt();
        self.told.retain(|(table, key)| corrupt.iter().any(|c| c.table == *table && c.key == *key));
        for record in corrupt {
            if !self.told.insert((record.table, record.key.clone())) {
                continue;
            }
            let message = format!(
                "the record of {} {} cannot be read ({}); it is left as it is, and what it stands for is not touched. \
                 A newer holm may have written it: use that one, or put back a copy of the store from `backups`",
                record.table, record.key, record.reason
            );
            tracing::error!(
                table = record.table,
                key = record.key,
                reason = record.reason,
                "a record cannot be read"
            );
            let subject = Subject { noun: record.table.to_string(), id: record.key };
            control.note_event(None, subject, "record.unreadable", &message, true).await;
        }
    }
}

/// Does both again and again until holm stops.
pub async fn run(
    control: Control,
    id: NodeId,
    state: PathBuf,
    known: HostFacts,
    stopping: CancellationToken,
) {
    let mut alarm = Alarm::default();
    loop {
        alarm.look(&control).await;
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = beat(control.store(), id, &state, &known).await {
            tracing::warn!(%error, "the host's status could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::volume::Volume;
    use std::{collections::BTreeMap, sync::Arc};
    use store::{
        Memory, Record,
        engine::{Engine, Op, Txn},
    };

    struct Mounted<'a>(&'a Path);

    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = sys::mount::unmount(self.0);
        }
    }

    fn known() -> HostFacts {
        HostFacts {
            accelerator: "tcg".into(),
            accelerator_reason: String::new(),
            qemu: String::new(),
            facts: BTreeMap::new(),
            cpus: None,
        }
    }

    #[tokio::test]
    async fn nearly_full_storage_is_told_once_and_so_is_room_again() {
        let memory = Arc::new(Memory::new());
        let open = || Store::open(Arc::clone(&memory) as Arc<dyn Engine>, control::schema::schema());
        let mut store = open().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        sys::mount::tmpfs(directory.path(), 16 << 20, 0o700).unwrap();
        let _mount = Mounted(directory.path());
        let node = NodeId::from_random([1; 16]);
        let mut told = vec![];
        for (used_mib, expected) in [
            (1, None),
            (12, None),
            (13, Some("storage.low")),
            (15, None),
            (13, None),
            (12, None),
            (11, Some("storage.well")),
            (12, None),
            (16, Some("storage.low")),
        ] {
            std::fs::write(directory.path().join("disk"), vec![1; (used_mib << 20) - (64 << 10)]).unwrap();
            beat(&store, node, directory.path(), &known()).await.unwrap();
            let events = store.list::<Event>();
            let fresh: Vec<&Event> =
                events.iter().map(|e| &e.record).filter(|e| !told.contains(&e.id)).collect();
            let reasons: Vec<&str> = fresh.iter().map(|e| e.reason.as_str()).collect();
            assert_eq!(reasons, expected.into_iter().collect::<Vec<_>>(), "{used_mib} MiB");
            let is_low = store.get::<NodeStatus>(&node.to_string()).unwrap();
            let is_low = is_low.record.facts.contains_key(STORAGE_LOW_FACT);
            told.extend(fresh.iter().map(|e| e.id));
            if expected == Some("storage.low") {
                assert!(is_low && fresh[0].warning && fresh[0].message.contains(" % of 16 MiB"), "{fresh:?}");
                // A daemon that starts anew tells nothing twice.
                store = open().await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_told_once_and_named_in_the_status() {
        let memory = Arc::new(Memory::new());
        let store =
            Store::open(Arc::clone(&memory) as Arc<dyn Engine>, control::schema::schema()).await.unwrap();
        let control = Control::new(store.clone());
        let key = "0b0b0b0b-0000-4000-8000-000000000001";
        let path = format!("/holm/record/{}/{key}", Volume::TABLE);
        memory.commit(Txn::new().then(Op::put(&path, "{not a record"))).await.unwrap();
        store.wait_for(memory.head().await.unwrap()).await.unwrap();
        assert_eq!(store.mirror().corrupt().len(), 1, "the key is where records are");
        let mut alarm = Alarm::default();
        for _ in 0..2 {
            alarm.look(&control).await;
        }
        let events = store.list::<Event>();
        assert_eq!(events.len(), 1);
        let event = &events[0].record;
        assert!(event.warning && event.message.contains(key) && event.subject.id == key, "{event:?}");
        let node = NodeId::from_random([1; 16]);
        beat(&store, node, Path::new("/"), &known()).await.unwrap();
        let status = store.get::<NodeStatus>(&node.to_string()).unwrap();
        assert_eq!(status.record.facts[UNREADABLE], format!("1: volume {key}"));
    }
}
