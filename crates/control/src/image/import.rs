//! The ways in other than sending the bytes at once: from where they lie ready, and from the web.
//!
//! An import is a wish like any other: the image's source says where the bytes are to come from, and the node that sees
//! it brings them.

use crate::{Caller, Control, Error, Result};
use model::{
    error::Code,
    image::{Asked, Image, ImageKind, ImageSource, ImageState, URL_BYTES_MAX},
    simplestreams::{Place, SCHEME},
};

/// Where an image's bytes are to be taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Import {
    /// From where the user laid them ready.
    Staged,
    /// From a web server. Whether it may be asked is the operator's setting on the node.
    Web {
        /// Its address.
        url: String,
    },
}

impl Control {
    /// Asks for an image's bytes to be brought in.
    ///
    /// # Errors
    /// `not_found`, `forbidden`; `conflict` for an image that has content, is being sent or has nothing staged;
    /// `invalid` for a URL that is none.
    pub async fn import_image(&self, caller: &Caller, reference: &str, from: Import) -> Result<Image> {
        if let Import::Web { url } = &from {
            check_url(url)?;
        }
        self.transact(|tx| {
            let found = self.find_own::<Image>(caller, reference, "importing an image")?;
            let image = &found.record;
            let name = &image.meta.name;
            refuse_other_kind(image, &from)?;
            let status = self.image_status(image.meta.id);
            let conflict = |message: String| Err(Error::new(Code::Conflict, message));
            match (status.as_ref().map(|s| &s.record.state), &image.source, &from) {
                (_, ImageSource::Registry { .. }, _) => {
                    return conflict(format!("image {name} comes from a registry"));
                }
                (_, ImageSource::Volume { .. }, _) => {
                    return conflict(format!("image {name} is made of a volume"));
                }
                (_, ImageSource::Content { .. }, _) => {
                    return conflict(format!("image {name} is made of what is here"));
                }
                (Some(ImageState::Ready(_)), ..) => {
                    return conflict(format!("image {name} has its content already"));
                }
                (Some(ImageState::Fetching { .. }), ..) => {
                    return conflict(format!("image {name} is being sent already"));
                }
                // Asked for, and not begun or not told of yet.
                (None | Some(ImageState::Waiting | ImageState::Staged { .. }), source, _)
                    if *source != ImageSource::Upload =>
                {
                    return conflict(format!("image {name} is being imported already"));
                }
                (Some(ImageState::Staged { .. }), _, Import::Web { .. }) => {
                    return conflict(format!("bytes lie ready for image {name}: import these"));
                }
                (Some(ImageState::Staged { .. }), _, Import::Staged) | (_, _, Import::Web { .. }) => {}
                (_, _, Import::Staged) => return conflict(format!("no bytes lie ready for image {name}")),
            }
            let mut next = image.clone();
            let asked = Asked { at: self.now(), request_id: caller.request_id.clone() };
            next.source = match &from {
                Import::Staged => ImageSource::Staged { asked },
                Import::Web { url } => ImageSource::Web { url: url.clone(), asked },
            };
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }
}

impl Control {
    /// Says that an image's bytes are about to be sent, after an import that failed.
    ///
    /// # Errors
    /// `not_found`, `forbidden`; `conflict` for an image that has its content, gets it or comes from a registry, or for
    /// which bytes lie ready.
    pub async fn expect_upload(&self, caller: &Caller, reference: &str) -> Result<Image> {
        self.transact(|tx| {
            let found = self.find_own::<Image>(caller, reference, "sending an image")?;
            let image = &found.record;
            let name = &image.meta.name;
            let conflict = |message: String| Error::new(Code::Conflict, message);
            match image.source {
                ImageSource::Registry { .. } => {
                    return Err(conflict(format!("image {name} comes from a registry")));
                }
                ImageSource::Volume { .. } => {
                    return Err(conflict(format!("image {name} is made of a volume")));
                }
                ImageSource::Content { .. } => {
                    return Err(conflict(format!("image {name} is made of what is here")));
                }
                ImageSource::Upload | ImageSource::Staged { .. } | ImageSource::Web { .. } => {}
            }
            let status = self.image_status(image.meta.id);
            match status.as_ref().map(|s| &s.record.state) {
                Some(ImageState::Ready(_)) => {
                    return Err(conflict(format!("image {name} has its content already"))
                        .hint("an image never changes; make another"));
                }
                Some(ImageState::Staged { .. }) => {
                    return Err(conflict(format!("bytes lie ready for image {name}"))
                        .hint("import these, or make another image"));
                }
                Some(ImageState::Failed(_)) => {}
                _ if image.source == ImageSource::Upload => {}
                _ => return Err(conflict(format!("image {name} is being imported already"))),
            }
            if image.source == ImageSource::Upload {
                return Ok(image.clone());
            }
            let mut next = image.clone();
            next.source = ImageSource::Upload;
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }
}

/// What image servers have are root file systems of system containers.
fn refuse_other_kind(image: &Image, from: &Import) -> Result<()> {
    match from {
        Import::Web { url } if url.starts_with(SCHEME) && image.kind != ImageKind::System => {
            let message = format!("image {} is to hold no root file system", image.meta.name);
            Err(Error::invalid("url", message).hint("make an image of kind system for it"))
        }
        _ => Ok(()),
    }
}

fn check_url(url: &str) -> Result<()> {
    if url.starts_with(SCHEME) && url.len() <= URL_BYTES_MAX {
        let place = url.parse::<Place>();
        return place.map(|_| ()).map_err(|error| Error::invalid("url", error.to_string()));
    }
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let is_fine = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        && url.len() <= URL_BYTES_MAX
        && !url.chars().any(|c| c.is_control() || c.is_whitespace());
    if is_fine {
        return Ok(());
    }
    Err(Error::invalid("url", "an image is fetched from an address that begins with https:// or http://"))
}
