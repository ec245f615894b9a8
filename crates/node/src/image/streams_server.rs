//! Root file systems of image servers (simplestreams): their documents are read, and the file that they name is fetched like
//! any other of the web, from hosts that the operator allows.

use super::{reconcile::Images, registry::WebError, upload::fault};
use crate::instance::sentence;
use model::{
    error::{Code, Fault},
    image::{Image, ImageContent},
    image_manifest::Platform,
    simplestreams::{INDEX_PATH, Index, Place, Products, pick},
};
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;

/// Longest document. The large public servers have some megabytes.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

impl Images {
    /// Fetches the root file system that a server has under a name.
    pub(super) async fn import_streams(&self, image: &Image, place: &Place) -> Result<ImageContent, Fault> {
        let index: Index = self.document(place, INDEX_PATH).await?;
        let mut documents: Vec<Products> = vec![];
        for path in index.documents() {
            documents.push(self.document(place, path).await?);
        }
        let host = Platform::linux_on(std::env::consts::ARCH);
        let root = pick(&documents, &place.alias, &host.architecture).map_err(|error| {
            fault(Code::NotFound, sentence(&error), "look at the server's list of images")
        })?;
        tracing::info!(image = %image.meta.name, version = root.version, "fetching a root file system");
        let url = url_of(place, &root.path)?;
        let (mut body, size) = self.web.get(&url).await.map_err(|error| unfetched(&error))?;
        let id = image.meta.id;
        let take = |input| self.take_archive(id, input, Some(root.digest), true);
        self.receive(id, &mut body, size.unwrap_or(0), take).await
    }

    async fn document<T: DeserializeOwned>(&self, place: &Place, path: &str) -> Result<T, Fault> {
        let url = url_of(place, path)?;
        let (body, _) = self.web.get(&url).await.map_err(|error| unfetched(&error))?;
        let mut text = Vec::new();
        let read = body.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut text).await;
        read.map_err(|error| fault(Code::Unavailable, format!("{url} could not be read: {error}"), ""))?;
        if text.len() as u64 > DOCUMENT_BYTES_MAX {
            let message = format!("{url} has more than {DOCUMENT_BYTES_MAX} bytes");
            return Err(fault(Code::TooLarge, message, ""));
        }
        let wrong =
            |error| fault(Code::Invalid, format!("{url} is no document of an image server: {error}"), "");
        serde_json::from_slice(&text).map_err(wrong)
    }
}

fn url_of(place: &Place, path: &str) -> Result<String, Fault> {
    let message = || format!("the server names a file {path:?}, which is not below its own address");
    place.url(path).ok_or_else(|| fault(Code::Invalid, message(), ""))
}

/// An answer of the web that is none.
pub(super) fn unfetched(error: &WebError) -> Fault {
    let code = if error.is_refusal() { Code::Forbidden } else { Code::Unavailable };
    fault(code, format!("the image could not be fetched: {}", sentence(error)), error.hint())
}
