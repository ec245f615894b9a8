//! Finding what a path names: by its id alone, as Cinder does. Names are looked up by lists.

use crate::openstack::{Fault, Result, Session};
use control::Control;
use model::{instance::Instance, snapshot::Snapshot, volume::Volume};
use std::sync::Arc;
use store::Stored;

/// The volume with this id, if the caller may see it.
///
/// # Errors
/// 404.
pub fn volume(control: &Control, session: &Session, id: &str) -> Result<Arc<Stored<Volume>>> {
    let missing = || Fault::not_found("Volume", id);
    let found = control.get::<Volume>(id.parse().map_err(|_| missing())?).ok_or_else(missing)?;
    let is_visible = session.caller.sees(found.record.meta.project) && !is_own_disk(control, &found.record);
    if is_visible { Ok(found) } else { Err(missing()) }
}

/// The snapshot with this id, if the caller may see it.
///
/// # Errors
/// 404.
pub fn snapshot(control: &Control, session: &Session, id: &str) -> Result<Arc<Stored<Snapshot>>> {
    let missing = || Fault::not_found("Snapshot", id);
    let found = control.get::<Snapshot>(id.parse().map_err(|_| missing())?).ok_or_else(missing)?;
    if session.caller.sees(found.record.meta.project) { Ok(found) } else { Err(missing()) }
}

/// Whether a volume is what these clients call a server's own disk, which is no volume to them: the root disk of an
/// instance that was made from an image.
pub fn is_own_disk(control: &Control, volume: &Volume) -> bool {
    let user = volume.attached_to.and_then(|id| control.get::<Instance>(id));
    user.is_some_and(|user| {
        let is_for_rescue = user.record.rescue.as_ref().is_some_and(|rescue| rescue.volume == volume.meta.id);
        is_for_rescue || user.record.image.is_some() && user.record.root_volume() == Some(volume.meta.id)
    })
}
