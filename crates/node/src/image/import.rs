//! Imports that were asked for: of bytes that lie ready on this host, and of files on web servers.
//!
//! A failed import is not tried again by itself: whoever asked sees why, and asks again. One that was cut off by the end
//! of the daemon is done again from its beginning, since what lies ready stays until the image's status says that it is
//! whole.

use super::{
    reconcile::{ImageError, Images},
    streams_server::unfetched,
    upload::{fault, refused},
};
use model::{
    error::{Code, Fault},
    image::{Image, ImageContent, ImageSource, ImageState, ImageStatus},
    simplestreams,
};
use reconcile::Outcome;
use std::time::Duration;

/// Until it is looked again whether somebody still sends the same image.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

impl Images {
    /// Does what an image's source asks for, unless that was done or failed already.
    pub(super) async fn run_import(&self, image: &Image) -> Result<Outcome, ImageError> {
        let id = image.meta.id;
        let asked = match &image.source {
            ImageSource::Staged { asked } | ImageSource::Web { asked, .. } => asked,
            _ => return Ok(Outcome::Done),
        };
        let status = self.store.get::<ImageStatus>(&id.to_string());
        match status.as_ref().map(|s| &s.record.state) {
            Some(ImageState::Ready(_)) => {
                self.disks.delete_staged(id).await?;
                return Ok(Outcome::Done);
            }
            Some(ImageState::Failed(fault)) if fault.since >= asked.at => return Ok(Outcome::Done),
            _ => {}
        }
        let Ok(_turn) = self.begin(image) else { return Ok(Outcome::After(LOOK_AGAIN)) };
        let outcome = match &image.source {
            ImageSource::Web { url, .. } => self.import_web(image, url).await,
            _ => self.import_staged(image).await,
        };
        match self.conclude(image, outcome.map(ImageState::Ready)).await {
            Ok(()) => {}
            Err(fault) => {
                tracing::warn!(image = %image.meta.name, fault.message, "image could not be imported");
            }
        }
        self.disks.delete_staged(id).await?;
        Ok(Outcome::Done)
    }

    async fn import_staged(&self, image: &Image) -> Result<ImageContent, Fault> {
        let id = image.meta.id;
        let (mut file, size) = self.disks.open_staged(id).await.map_err(|error| refused(&error))?;
        self.receive(id, &mut file, size, |input| self.take(image, input)).await
    }

    async fn import_web(&self, image: &Image, url: &str) -> Result<ImageContent, Fault> {
        if url.starts_with(simplestreams::SCHEME) {
            let place = url.parse::<simplestreams::Place>();
            let place = place.map_err(|error| fault(Code::Invalid, error.to_string(), ""))?;
            return self.import_streams(image, &place).await;
        }
        let (mut body, size) = self.web.get(url).await.map_err(|error| unfetched(&error))?;
        self.receive(image.meta.id, &mut body, size.unwrap_or(0), |input| self.take(image, input)).await
    }
}
