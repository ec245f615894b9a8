//! Another type for a volume, while a guest writes to it as well.

use crate::{Caller, Control, Error, Result};
use model::{
    error::Code,
    id::VolumeTypeId,
    volume::{Provisioning, Volume},
};

/// The type that a volume is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeAsked {
    /// One that every cloud has.
    BuiltIn(Provisioning),
    /// One that an admin made.
    Made(VolumeTypeId),
}

impl TypeAsked {
    /// The record of it, where there is one.
    pub fn made(self) -> Option<VolumeTypeId> {
        match self {
            Self::BuiltIn(_) => None,
            Self::Made(id) => Some(id),
        }
    }
}

impl Control {
    /// Gives a volume another type. One that is to be thick gets a layer on top that takes all its space at once; one that
    /// was thick keeps what it has, and gives back what its guest discards.
    ///
    /// # Errors
    /// `conflict` while it is being made, `too_large` for one on too many layers, `unsupported` for directories, `not_found`,
    /// `forbidden`.
    pub async fn retype_volume(&self, caller: &Caller, reference: &str, asked: TypeAsked) -> Result<Volume> {
        self.transact(|tx| {
            let found = self.find_own::<Volume>(caller, reference, "giving a volume another type")?;
            let volume = &found.record;
            let (kind, provisioning) = match asked {
                TypeAsked::BuiltIn(provisioning) => (None, provisioning),
                TypeAsked::Made(id) => (Some(id), self.take_volume_type(tx, id, volume.meta.project)?),
            };
            let mut next = volume.clone();
            if (volume.provisioning, provisioning) == (Provisioning::Thin, Provisioning::Thick) {
                if self.volume_status(volume.meta.id).is_none_or(|status| status.record.path.is_none()) {
                    let message = format!("volume {} is being made", volume.meta.name);
                    return Err(Error::new(Code::Conflict, message).hint("try again in a moment"));
                }
                self.refuse_unfreezable(volume)?;
                next.freeze();
            }
            (next.kind, next.provisioning) = (kind, provisioning);
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }
}
