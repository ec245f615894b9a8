//! Volumes.

use super::{
    audit::{deed, note},
    described::describe,
    kept::Kept,
    routes::{Doc, Routes},
    scene::Scene,
    served::{Served, answer, check_wait},
    types::{
        Fault, Head, Reference,
        image::Image as ImageView,
        list::{ListQuery, WaitQuery},
        volume::{CreateVolume, RestoreVolume, SaveVolume, UpdateVolume, Volume as View, VolumeState},
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
use control::{
    Caller, Control, Error, Role,
    volume::{NewImageOfVolume, NewVolume, SourceAsked},
};
use model::{
    image::Image,
    instance::Instance,
    plan::DiskFormat,
    snapshot::Snapshot,
    volume::{Provisioning, Volume, VolumeSource},
};
use std::collections::BTreeMap;

impl Served for Volume {
    type View = View;
    const FILTERS: &'static [&'static str] = &["phase", "instance"];
    const PHASES: &'static [&'static str] = &["creating", "available", "in_use", "failed", "deleting"];

    fn view(&self, scene: &Scene<'_>) -> View {
        let control = scene.control;
        let status = control.volume_status(self.meta.id);
        let status = status.as_ref().map(|s| &s.record);
        let origin = match &self.source {
            VolumeSource::Copy(origin) => Some(origin),
            VolumeSource::Empty | VolumeSource::Image(_) => None,
        };
        let is_admin = scene.caller.role == Role::Admin;
        View {
            head: Head::of(&self.meta, &scene.project(self.meta.project).name),
            size_gib: self.size_gib,
            thick: self.provisioning == Provisioning::Thick,
            image: self.ground().image.map(|id| scene.reference::<Image>(id)),
            snapshot: origin
                .and_then(|o| control.get::<Snapshot>(o.snapshot?))
                .map(|s| Reference::to(&s.record.meta)),
            copy_of: origin
                .and_then(|o| control.get::<Volume>(o.volume))
                .map(|v| Reference::to(&v.record.meta)),
            bootable: self.bootable,
            snapshots: control.snapshots_of(self.meta.id).len() as u64,
            attached_to: self.attached_to.map(|id| scene.reference::<Instance>(id)),
            delete_with_instance: self.delete_with_instance,
            read_only: self.refuses_writes(),
            mount_path: self.mount_path.clone(),
            node: self.node.map(|id| scene.node(id)),
            serial: self.serial(),
            state: state(self, scene),
            path: status.and_then(|s| s.path.clone()).filter(|_| is_admin),
            format: status.map(|s| s.format),
            used_bytes: status.map_or(0, |s| s.used_bytes),
            fault: status.and_then(|s| s.fault.as_ref()).map(Fault::from),
        }
    }

    fn phase_word(&self, scene: &Scene<'_>) -> &'static str {
        state(self, scene).as_str()
    }

    fn fits(&self, query: &ListQuery, scene: &Scene<'_>) -> control::Result<bool> {
        let Some(instance) = &query.instance else {
            return Ok(true);
        };
        Ok(self.attached_to == Some(scene.instance_meant(instance)?))
    }

    fn is_settled(&self, scene: &Scene<'_>) -> bool {
        let status = scene.control.volume_status(self.meta.id);
        status.is_some_and(|s| {
            let status = &s.record;
            let is_made =
                status.path.is_some() && status.size_gib >= self.size_gib && status.layer >= self.layer;
            status.fault.is_some() || is_made
        })
    }
}

fn state(volume: &Volume, scene: &Scene<'_>) -> VolumeState {
    let status = scene.control.volume_status(volume.meta.id);
    let status = status.as_ref().map(|s| &s.record);
    if volume.meta.is_deleting() {
        VolumeState::Deleting
    } else if status.is_some_and(|s| s.fault.is_some()) {
        VolumeState::Failed
    } else if volume.attached_to.is_some() {
        VolumeState::InUse
    } else if status.is_some_and(|s| s.path.is_some()) {
        VolumeState::Available
    } else {
        VolumeState::Creating
    }
}

impl Kept for Volume {
    fn name_asked(new: &CreateVolume) -> &str {
        &new.name
    }

    async fn make(control: &Control, caller: &Caller, new: CreateVolume) -> control::Result<Self> {
        control::change::check_labels(&new.labels)?;
        let new = NewVolume {
            source: source_asked(&new)?,
            name: new.name,
            description: new.description,
            size_gib: new.size_gib,
            thick: new.thick,
            kind: None,
            labels: new.labels,
        };
        control.create_volume(caller, new).await
    }

    async fn alter(
        control: &Control,
        caller: &Caller,
        reference: &str,
        change: UpdateVolume,
    ) -> control::Result<Self> {
        let id = control.find::<Self>(caller, reference)?.record.meta.id.to_string();
        if let Some(size) = change.size_gib {
            control.resize_volume(caller, &id, size).await?;
        }
        let edit = |volume: &mut Self| {
            describe(&mut volume.meta, change.name.as_ref(), change.description.as_ref(), &change.labels)?;
            volume.delete_with_instance = change.delete_with_instance.unwrap_or(volume.delete_with_instance);
            volume.read_only = change.read_only.unwrap_or(volume.read_only);
            volume.bootable = change.bootable.unwrap_or(volume.bootable);
            Ok(())
        };
        control.change(caller, &id, edit).await
    }

    async fn delete(control: &Control, caller: &Caller, id: &str) -> control::Result<()> {
        control.delete_volume(caller, id).await
    }
}

/// Adds the routes of volumes.
pub fn routes(routes: Routes) -> Routes {
    let tag = "volumes";
    routes
        .kept::<Volume>(
            Doc::new("Make a volume"),
            Doc::new("Change or grow a volume")
                .details("It grows while it is in use too; it never shrinks."),
            Doc::new("Delete a volume")
                .details("Its bytes are gone for good. Refused while it is attached and while it has snapshots."),
        )
        .add(
            Method::POST,
            "/v1/volumes/{ref}/restore",
            tag,
            Doc::new("Put a volume back to a snapshot")
                .details("What was written since is gone, unless another snapshot has it. Refused while an instance \
                          that may run has it.")
                .wait()
                .input::<RestoreVolume>()
                .answer::<View>(200, "Put back."),
            restore,
        )
        .add(
            Method::POST,
            "/v1/volumes/{ref}/image",
            tag,
            Doc::new("Make an image of a volume")
                .details("It holds what the volume has now, while that is written to as well.")
                .wait()
                .input::<SaveVolume>()
                .answer::<ImageView>(201, "Being made."),
            save,
        )
}

/// What a new volume starts as: one thing at most.
fn source_asked(input: &CreateVolume) -> control::Result<SourceAsked> {
    match (&input.image, &input.snapshot, &input.copy_of) {
        (None, None, None) => Ok(SourceAsked::Empty),
        (Some(image), None, None) => Ok(SourceAsked::Image(image.clone())),
        (None, Some(snapshot), None) => Ok(SourceAsked::Snapshot(snapshot.clone())),
        (None, None, Some(volume)) => Ok(SourceAsked::Volume(volume.clone())),
        _ => Err(Error::invalid(
            "image",
            "a volume starts as an image, a snapshot or a volume, not as several",
        )),
    }
}

async fn restore(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<RestoreVolume>,
) -> Result<Response> {
    check_wait::<Volume>(&wait)?;
    let restored = app.control().restore_volume(&caller, &reference, &input.snapshot).await;
    let restored = note(&app, &caller, deed("restore", "volume", &reference), restored).await?;
    answer(&app, &caller, StatusCode::OK, &restored, &wait).await
}

async fn save(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(reference): Path<String>,
    Params(wait): Params<WaitQuery>,
    Input(input): Input<SaveVolume>,
) -> Result<Response> {
    check_wait::<Image>(&wait)?;
    control::change::check_labels(&input.labels)?;
    let new = NewImageOfVolume {
        name: input.name.clone(),
        description: input.description.clone(),
        volume: reference.clone(),
        snapshot: None,
        is_backup: false,
        format: input.format.unwrap_or(DiskFormat::Qcow2),
        public: input.public,
        protected: false,
        properties: BTreeMap::new(),
        labels: input.labels.clone(),
    };
    let made = app.control().image_of_volume(&caller, new).await;
    let made = note(&app, &caller, deed("create", "image", &input.name), made).await?;
    answer(&app, &caller, StatusCode::CREATED, &made, &wait).await
}
