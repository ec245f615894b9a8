//! Snapshots of volumes.

use super::{
    audit::{deed, note},
    described::{describe, remove},
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Fault, Head,
        list::{ListQuery, WaitQuery},
        snapshot::{CreateSnapshot, Snapshot as View, SnapshotState, UpdateSnapshot},
    },
};
use crate::{
    app::{App, Asker},
    error::Result,
    request::{Input, Params},
};
use axum::{
    extract::{Path, State},
    http::{Method, StatusCode},
    response::Response,
};
use control::snapshot::NewSnapshot;
use model::{
    snapshot::{Snapshot, SnapshotState as Kept},
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
        Kept::Creating => SnapshotState::Creating,
        Kept::Available => SnapshotState::Available,
        Kept::Failed => SnapshotState::Failed,
    }
}

/// Adds the routes of snapshots.
pub fn routes(routes: Routes) -> Routes {
    let tag = "snapshots";
    routes
        .collection::<Snapshot>()
        .add(
            Method::POST,
            "/v1/snapshots",
            tag,
            Doc::new("Take a snapshot of a volume")
                .details(
                    "At once, and while a guest writes to it as well: it holds what was there at one moment.",
                )
                .wait()
                .input::<CreateSnapshot>()
                .answer::<View>(201, "Taken."),
            create,
        )
        .add(
            Method::PATCH,
            "/v1/snapshots/{ref}",
            tag,
            Doc::new("Change a snapshot's record")
                .wait()
                .input::<UpdateSnapshot>()
                .answer::<View>(200, "Changed."),
            update,
        )
        .add(
            Method::DELETE,
            "/v1/snapshots/{ref}",
            tag,
            Doc::new("Delete a snapshot")
                .details("Copies that were made of it stay as they are.")
                .wait()
                .empty(204, "Gone."),
            delete,
        )
}

async fn create(
    State(app): State<App>,
    Asker(caller): Asker,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<CreateSnapshot>,
) -> Result<Response> {
    check_wait::<Snapshot>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let new = NewSnapshot {
        name: input.name.clone(),
        description: input.description.clone(),
        volume: input.volume.clone(),
        labels: input.labels.clone(),
    };
    let made = app.control().create_snapshot(&caller, new).await;
    let made = note(&app, &caller, deed("create", "snapshot", &input.name), made).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}

async fn update(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<UpdateSnapshot>,
) -> Result<Response> {
    check_wait::<Snapshot>(&wait)?;
    let changed = app
        .control()
        .change::<Snapshot>(&caller, &reference, |snapshot| {
            describe(&mut snapshot.meta, input.name.as_ref(), input.description.as_ref(), &input.labels)
        })
        .await;
    let changed = note(&app, &caller, deed("update", "snapshot", &reference), changed).await?;
    answer(&app, &caller, StatusCode::OK, &changed, &wait).await
}

async fn delete(
    State(app): State<App>,
    asker: Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
) -> Result<Response> {
    let act = async |id: &str| app.control().delete_snapshot(&asker.0, id).await;
    remove::<Snapshot>(&app, &asker, &reference, &wait, act).await
}
