//! Finding the image that a client means, and what is known of it.

use crate::{
    docker::{door::Door, refusal},
    error::{Failure, Result},
};
use control::Caller;
use model::{
    error::Code,
    image::{Image, ImageContent, ImageKind, ImageSource, OciContent},
    image_digest::Digest,
    image_reference::Reference,
};
use std::sync::Arc;
use store::Stored;

/// An image that is here.
#[derive(Clone)]
pub struct Local {
    /// Its record.
    pub stored: Arc<Stored<Image>>,
    /// What was found in it.
    pub content: ImageContent,
    /// What it says of itself.
    pub oci: OciContent,
}

impl Local {
    /// The record.
    pub fn image(&self) -> &Image {
        &self.stored.record
    }

    /// Docker's id: the digest of its config, `sha256:` and 64 digits.
    pub fn id(&self) -> &str {
        &self.oci.config_digest
    }

    /// The 64 digits alone.
    pub fn hex(&self) -> &str {
        self.id().strip_prefix("sha256:").unwrap_or(self.id())
    }

    /// What it is called, if that is a name that docker knows.
    pub fn reference(&self) -> Option<Reference> {
        self.image().reference()
    }

    /// `busybox:latest`; `None` for an image that is pinned to its content.
    pub fn tag(&self) -> Option<String> {
        let reference = self.reference()?;
        reference.tag()?;
        let tagged = Reference::new(reference.registry(), reference.repository(), reference.tag(), None);
        tagged.ok().map(|tagged| tagged.familiar())
    }

    /// `busybox@sha256:…`, for what a registry gave.
    pub fn repo_digest(&self) -> Option<String> {
        let ImageSource::Registry { .. } = self.image().source else {
            return None;
        };
        Some(format!("{}@{}", self.reference()?.familiar_name(), self.content.digest))
    }
}

/// A record's image, if it is a container's and here.
pub fn of_record(door: &Door, stored: Arc<Stored<Image>>) -> Option<Local> {
    if stored.record.kind != ImageKind::Oci || stored.record.meta.is_deleting() {
        return None;
    }
    let content = door.control().image_status(stored.record.meta.id)?.record.content()?.clone();
    let oci = content.oci.clone()?;
    Some(Local { stored, content, oci })
}

/// The images of containers that are here and in the caller's lists.
pub fn all(door: &Door, caller: &Caller) -> Vec<Local> {
    let all = door.control().list::<Image>(caller);
    all.into_iter().filter_map(|stored| of_record(door, stored)).collect()
}

/// Reads a reference as docker does.
///
/// # Errors
/// `invalid`, in docker's words.
pub fn parse(text: &str) -> Result<Reference> {
    text.parse().map_err(|error: model::image_reference::ReferenceError| {
        Failure::new(Code::Invalid, format!("invalid reference format: {error}")).hint(error.hint())
    })
}

/// All images that a reference, an id or the beginning of an id means: of one content, under one or more names.
///
/// # Errors
/// `not_found`, or `conflict` if several ids begin so.
pub fn find_all(door: &Door, caller: &Caller, text: &str) -> Result<Vec<Local>> {
    let all: Vec<Local> = door
        .control()
        .images_open_to(caller)
        .into_iter()
        .filter_map(|stored| of_record(door, stored))
        .collect();
    if let Some(named) = by_name(&all, text) {
        return Ok(vec![named]);
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id = !digits.is_empty()
        && digits.len() <= 64
        && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let fitting: Vec<Local> =
        all.into_iter().filter(|local| is_id && local.hex().starts_with(digits)).collect();
    match fitting.first() {
        None => Err(refusal::no_image(text)),
        Some(first) if fitting.iter().all(|local| local.id() == first.id()) => Ok(fitting),
        Some(_) => Err(refusal::conflict(format!("ambiguous reference: {text} begins several image ids"))),
    }
}

/// The image that a reference, an id or the beginning of an id means.
///
/// # Errors
/// As [`find_all`].
pub fn find(door: &Door, caller: &Caller, text: &str) -> Result<Local> {
    let mut all = find_all(door, caller, text)?;
    Ok(all.swap_remove(0))
}

/// Whether a text means an image by its name, and not by its id.
pub fn is_name(text: &str, local: &Local) -> bool {
    by_name(std::slice::from_ref(local), text).is_some()
}

fn by_name(all: &[Local], text: &str) -> Option<Local> {
    let exact = all.iter().find(|local| local.image().meta.name.as_str() == text);
    let asked: Option<Reference> = text.parse().ok();
    let named = || {
        let asked = asked.as_ref()?;
        all.iter().find(|local| local.reference().is_some_and(|has| fits(asked, &has, &local.content.digest)))
    };
    exact.or_else(named).cloned()
}

/// Whether an image that is called `has` and holds `digest` is the one that is asked for.
fn fits(asked: &Reference, has: &Reference, digest: &str) -> bool {
    if (asked.registry(), asked.repository()) != (has.registry(), has.repository()) {
        return false;
    }
    match asked.digest() {
        Some(pinned) => digest.parse::<Digest>() == Ok(pinned),
        None => asked.tag() == has.tag(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_by_tag_or_by_content() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let other = format!("sha256:{}", "b".repeat(64));
        for (asked, has, does) in [
            ("busybox".to_string(), "docker.io/library/busybox:latest", true),
            ("busybox:latest".into(), "docker.io/library/busybox:latest", true),
            ("busybox:1".into(), "docker.io/library/busybox:latest", false),
            ("library/busybox".into(), "docker.io/library/busybox:latest", true),
            ("localhost:5000/busybox".into(), "docker.io/library/busybox:latest", false),
            (format!("busybox@{digest}"), "docker.io/library/busybox:latest", true),
            (format!("busybox@{other}"), "docker.io/library/busybox:latest", false),
        ] {
            assert_eq!(fits(&asked.parse().unwrap(), &has.parse().unwrap(), &digest), does, "{asked}");
        }
    }
}
