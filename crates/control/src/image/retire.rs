//! Images that are deleted while something stands on them: they are gone for users at once, and their record and bytes
//! go with the last that needs them.

use crate::{Caller, Control, Error, Result};
use model::{error::Code, image::Image};

impl Control {
    /// Removes an image; one that something stands on goes when nothing does any more, and nothing new starts from it.
    ///
    /// # Errors
    /// `conflict` if protected, `not_found`, `forbidden`.
    pub async fn delete_image_when_unused(&self, caller: &Caller, reference: &str) -> Result<Image> {
        self.transact(|tx| {
            let found = self.find_own::<Image>(caller, reference, "deleting an image")?;
            let image = &found.record;
            let name = &image.meta.name;
            if image.meta.is_deleting() {
                return Err(Error::new(Code::NotFound, format!("image {name} is deleted already")));
            }
            if image.protected {
                return Err(Error::new(Code::Conflict, format!("image {name} is protected"))
                    .hint(format!("lift that with `holm image set {name} --protected no`")));
            }
            self.charge(tx, image.meta.project, &[(image.resource(), -1)]);
            if let Some(seen) = self.unused_image(image.meta.id) {
                self.drop_image(tx, &found, seen);
                return Ok(image.clone());
            }
            let mut next = image.clone();
            next.meta.deleted_at = Some(self.now());
            // Its name is free at once.
            next.name_repeats = true;
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// Removes the images that were deleted and that nothing stands on any more. Doing it twice is doing it once.
    ///
    /// # Errors
    /// What the store refuses; try again.
    pub async fn sweep_images(&self) -> Result<()> {
        for found in self.store.list::<Image>() {
            let id = found.record.meta.id;
            if !found.record.meta.is_deleting() || self.unused_image(id).is_none() {
                continue;
            }
            self.transact(|tx| {
                if let Some(found) = self.get::<Image>(id)
                    && let Some(seen) = self.unused_image(id)
                {
                    self.drop_image(tx, &found, seen);
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
