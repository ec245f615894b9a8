//! Images of containers: from the door's words to the node's.

use super::{NodeStreams, explain, files, refused};
use api::streams::{CommitAsked, ImageDetails, ImageIn, OfferedRoot, Reader};
use control::Error;
use model::{
    image::{Image, ImageContent},
    image_reference::Reference,
    instance::Instance,
};
use node::{driver::DriverError, image::content::Held};
use serde_json::Value;
use std::sync::Arc;

fn told(held: Held) -> ImageIn {
    ImageIn {
        digest: held.digest.clone(),
        config_digest: held.config_digest.clone(),
        names: held.names.clone(),
        held: Box::new(held),
    }
}

impl NodeStreams {
    pub(super) async fn details_of_image(&self, content: &ImageContent) -> Result<ImageDetails, Error> {
        let details = self.images.details(content).await.map_err(refused)?;
        Ok(ImageDetails { config: details.config, layer_bytes: details.layer_bytes })
    }

    pub(super) async fn offer_image(&self, image: &Image, metadata: String) -> Result<OfferedRoot, Error> {
        let offered = self.images.offer(image, metadata).await.map_err(refused)?;
        Ok(OfferedRoot {
            metadata: offered.metadata.into(),
            metadata_file: offered.metadata_file,
            root: offered.root,
            suffix: offered.root_suffix,
            combined_sha256: offered.combined_sha256,
        })
    }

    pub(super) async fn save_images(
        &self,
        wanted: Vec<(ImageContent, Vec<Reference>)>,
    ) -> Result<Reader, Error> {
        self.images.save(wanted).await.map_err(refused)
    }

    pub(super) async fn load_images(&self, archive: Reader) -> Result<Vec<ImageIn>, Error> {
        let loaded = self.images.load(archive).await.map_err(refused)?;
        Ok(loaded.into_iter().map(told).collect())
    }

    pub(super) async fn build_image(&self, root: Reader, config: Value) -> Result<ImageIn, Error> {
        self.images.build(None, Some(root), config).await.map(told).map_err(refused)
    }

    pub(super) async fn configure_image(&self, base: &ImageContent, config: Value) -> Result<ImageIn, Error> {
        self.images.build(Some(base), None, config).await.map(told).map_err(refused)
    }

    /// Makes an image of what a container changed. Frozen meanwhile if that is asked for, and thawed whatever comes of it.
    pub(super) async fn commit_container(
        &self,
        instance: &Instance,
        base: &ImageContent,
        config: Value,
        asked: CommitAsked,
    ) -> Result<ImageIn, Error> {
        let driver = Arc::clone(self.driver(instance)?);
        let (id, instance, base) = (instance.meta.id, instance.clone(), base.clone());
        let (images, files) = (Arc::clone(&self.images), self.open_files(&instance).await?);
        // A task of its own: a client that goes leaves no container frozen.
        let work = tokio::spawn(async move {
            let is_frozen = asked.pauses
                && match driver.pause(id).await {
                    Ok(()) => true,
                    Err(DriverError::NotRunning) => false,
                    Err(error) => return Err(explain(&instance, error)),
                };
            let layer = files.send_layer(asked.newest_s).await;
            let layer = layer.map_err(|error| files::refused(&instance, &error));
            let built = match layer {
                Ok(layer) => images.build(Some(&base), Some(layer), config).await.map(told).map_err(refused),
                Err(error) => Err(error),
            };
            if is_frozen && let Err(error) = driver.resume(id).await {
                // It is not wished for: the next look at the instance thaws it.
                tracing::warn!(instance = %instance.meta.name, error = %error, "a container could not be thawed");
            }
            built
        });
        work.await.unwrap_or_else(|_| {
            Err(Error::new(model::error::Code::Internal, "holm made a mistake while it made the image"))
        })
    }
}
