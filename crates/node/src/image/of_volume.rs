//! Images that are made of volumes: what a disk held at one moment, as one file that stands alone.

use super::reconcile::{ImageError, Images, again_after, rest_after};
use crate::{
    instance::sentence,
    volume::files::{DiskFiles, Frozen, disks_dir, frozen, image_content},
};
use jiff::Timestamp;
use model::{
    error::{Code, Fault},
    id::ImageId,
    image::{ImageContent, ImageState, ImageStatus},
    plan::DiskFormat,
    volume::Ground,
};
use reconcile::Outcome;
use std::path::Path;

impl Images {
    /// Makes the image once what it is made of is frozen; that brings the next run.
    pub(super) async fn run_of_volume(
        &self,
        id: ImageId,
        ground: &Ground,
        size_gib: u64,
        format: DiskFormat,
    ) -> Result<Outcome, ImageError> {
        let status = self.store.get::<ImageStatus>(&id.to_string());
        match status.as_ref().map(|s| (&s.record, &s.record.state)) {
            Some((_, ImageState::Ready(_))) => return Ok(Outcome::Done),
            Some((status, ImageState::Failed(fault))) => {
                if let Some(rest) = rest_after(status, fault) {
                    return Ok(rest);
                }
            }
            _ => {}
        }
        match frozen(&self.store, ground) {
            Frozen::Yes => {}
            Frozen::NotYet => return Ok(Outcome::Done),
            Frozen::Never(fault) => return self.fail(id, fault).await,
        }
        self.write(id, ImageState::Fetching { done_bytes: 0, total_bytes: size_gib << 30 }).await?;
        let state = match self.export(id, ground, format).await {
            Ok(content) => ImageState::Ready(content),
            Err(fault) => return self.fail(id, fault).await,
        };
        self.write(id, state).await?;
        Ok(Outcome::Done)
    }

    async fn fail(&self, id: ImageId, fault: Fault) -> Result<Outcome, ImageError> {
        let state = ImageState::Failed(fault);
        let again = again_after(&state);
        self.write(id, state).await?;
        Ok(again)
    }

    async fn export(&self, id: ImageId, ground: &Ground, format: DiskFormat) -> Result<ImageContent, Fault> {
        let state = self.disks.images_dir().parent().unwrap_or(Path::new("/"));
        let files = DiskFiles::new(disks_dir(state), self.disks.images_dir().to_path_buf());
        let image = ground.image.and_then(|id| image_content(&self.store, id));
        let fault = |code: Code, message: String, hint: String| Fault {
            code,
            message,
            hint,
            since: Timestamp::now(),
        };
        let files = files.ground(ground, image.as_ref()).map_err(|error| {
            fault(Code::Internal, format!("the volume cannot be read: {error}"), String::new())
        })?;
        let made = self.disks.export(id, files, format).await;
        let made = made.map_err(|error| fault(error.code(), sentence(&error), error.hint()))?;
        Ok(ImageContent {
            digest: made.digest.to_string(),
            size_bytes: made.sent_bytes,
            virtual_bytes: made.virtual_bytes,
            format: Some(made.format),
            oci: None,
            sent_format: Some(made.detected.file_format()),
            hashes: Some(made.hashes),
        })
    }
}
