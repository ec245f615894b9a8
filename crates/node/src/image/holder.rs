//! Who brought which content. A digest alone opens nothing: what lies here for one project is given to another one
//! only when a registry gave it the same bytes, though they are kept once.
//!
//! ```text
//! <state>/blobs/held/<hex>.<project>     the project was given this blob; goes with the blob
//! ```

use super::{
    blobs::{BlobError, BlobStore},
    cancel::run_blocking,
    reconcile::Images,
    stored::StoredImage,
};
use model::{
    id::ProjectId,
    image::{Image, ImageStatus},
    image_digest::Digest,
    image_manifest::Platform,
};
use std::{collections::HashSet, fs::File, path::PathBuf};

/// The content that a project may use without being given it again.
#[derive(Debug, Clone)]
pub struct Holder {
    directory: PathBuf,
    project: ProjectId,
    own: HashSet<Digest>,
}

impl Holder {
    pub(super) fn new(directory: PathBuf, project: ProjectId, own: HashSet<Digest>) -> Self {
        Self { directory, project, own }
    }

    /// Whether the project has the content already.
    pub fn holds(&self, digest: &Digest) -> bool {
        self.own.contains(digest) || self.mark(digest).exists()
    }

    /// Notes that the project was given the content. Without the note it would be asked for once more, no worse.
    pub fn note(&self, digest: &Digest) {
        if let Err(error) = File::create(self.mark(digest)) {
            tracing::warn!(%error, %digest, "it cannot be noted whose content this is");
        }
    }

    fn mark(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{}.{}", digest.hex(), self.project))
    }
}

impl Images {
    /// What the project of an image may use: the content of its own images, and of those that are open to it.
    pub(super) async fn holder(&self, project: ProjectId) -> Result<Holder, BlobError> {
        let open = |image: &Image| image.meta.project == project || image.is_open_to(project);
        let images = self.store.list::<Image>();
        let contents: Vec<Digest> = images
            .iter()
            .filter(|image| open(&image.record))
            .filter_map(|image| self.store.get::<ImageStatus>(&image.record.meta.id.to_string()))
            .filter_map(|status| status.record.content()?.digest.parse().ok())
            .collect();
        let blobs: BlobStore = self.blobs.clone();
        let own = run_blocking(move |_| {
            let platform = Platform::linux_on(std::env::consts::ARCH);
            let whole = contents.iter().filter_map(|digest| {
                let stored = StoredImage::load(&blobs, *digest, &platform).ok()?;
                Some(stored.blobs().collect::<Vec<_>>())
            });
            whole.flatten().collect::<HashSet<_>>()
        });
        let own = own.await.ok_or(BlobError::Cancelled)?;
        Ok(self.blobs.holder(project, own))
    }
}
