//! Snapshots of volumes.

use super::{
    described::describe,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::Served,
    types::{
        Fault, Head,
        list::ListQuery,
        snapshot::{CreateSnapshot, Snapshot as View, SnapshotState, UpdateSnapshot},
    },
};
use control::{Caller, Control, snapshot::NewSnapshot};
use model::{
    snapshot::{Snapshot, SnapshotState as Seen},
    volume::Volume,
};

impl Served for Snapshot {
    type View = View;
    const FILTERS: &'static [&'static str] = &["phase", "volume"];
    const PHASES: &'static [&'static str] = &["creating", "available", "failed"];

    fn view(&self, scene: &Scene<'_>) -> View {
        let state = state(self, scene);
        let status = scene.control.volume_status(self.volume);
        let fault = status.as_ref().and_then(|s| s.record.fault.as_ref());
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            volume: scene.reference::<Volume>(self.volume),
            size_gib: self.size_gib,
            state,
            fault: fault.filter(|_| state == SnapshotState::Failed).map(Fault::from),
        }
    }

    fn phase_word(&self, scene: &Scene<'_>) -> &'static str {
        state(self, scene).as_str()
    }

    fn fits(&self, query: &ListQuery, scene: &Scene<'_>) -> control::Result<bool> {
        let Some(volume) = &query.volume else {
            return Ok(true);
        };
        Ok(self.volume == scene.control.find_for::<Volume>(scene.caller, "volume", volume)?.record.meta.id)
    }

    fn is_settled(&self, scene: &Scene<'_>) -> bool {
        state(self, scene) != SnapshotState::Creating
    }
}

fn state(snapshot: &Snapshot, scene: &Scene<'_>) -> SnapshotState {
    match scene.control.snapshot_state(snapshot) {
        Seen::Creating => SnapshotState::Creating,
        Seen::Available => SnapshotState::Available,
        Seen::Failed => SnapshotState::Failed,
    }
}

impl Kept for Snapshot {
    fn name_asked(new: &CreateSnapshot) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateSnapshot) -> control::Result<Self> {
        let CreateSnapshot { name, description, volume, labels } = new;
        control::change::check_labels(&labels)?;
        control.create_snapshot(caller, NewSnapshot { name, description, volume, labels }).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateSnapshot,
    ) -> control::Result<Self> {
        let edit = |snapshot: &mut Self| {
            describe(&mut snapshot.meta, change.name.as_ref(), change.description.as_ref(), &change.labels)
        };
        control.change(caller, reference, edit).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_snapshot(caller, id).await
    }
}

/// Adds the routes of snapshots.
pub fn routes(routes: Routes) -> Routes {
    routes.kept::<Snapshot>(
        Doc::new("Take a snapshot of a volume")
            .details(
                "At once, and while a guest writes to it as well: it holds what was there at one moment.",
            )
            .answer::<View>(201, "Taken."),
        Doc::new("Change a snapshot's record"),
        Doc::new("Delete a snapshot").details("Copies that were made of it stay as they are."),
    )
}
