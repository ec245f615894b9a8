//! Names of OCI images: one content may have several, and a name moves to another content.
//!
//! Every name is an image of its own, so that each has an owner, is counted and can be removed alone; what their content
//! is made of lies on the node once. An image whose name moves away keeps its content for the containers that stand on
//! it, and shows without a reference from then on.

use super::{NewImage, parse_reference};
use crate::{
    Caller, Control, Error, Result, Role,
    transact::{Found, Transaction},
};
use model::{
    error::Code,
    id::ImageId,
    image::{Image, ImageKind, ImageSource, ImageState},
    image_reference::Reference,
    name::Name,
    quota::Resource,
};
use store::Stored;

/// What became of an image whose name was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untagged {
    /// It is gone.
    Deleted,
    /// Something stands on it, so that it stays without a name.
    Kept,
}

impl Control {
    /// Gives the content of an OCI image another name. A name that another image has moves; one that this content has
    /// already is fine.
    ///
    /// # Errors
    /// `not_found`, `invalid`, `conflict` for an image without content, `quota_exceeded`, `forbidden`.
    pub async fn tag_image(&self, caller: &Caller, reference: &str, name: &str) -> Result<Image> {
        let found = self.find::<Image>(caller, reference)?;
        let image = &found.record;
        if image.kind != ImageKind::Oci {
            let message = format!("image {} is a VM's: only images of containers have tags", image.meta.name);
            return Err(Error::new(Code::Conflict, message).field("image"));
        }
        self.refuse_withdrawn_image(image)?;
        let Some(digest) = self.digest_of(image.meta.id) else {
            let message = format!("image {} has no content yet", image.meta.name);
            return Err(Error::new(Code::Conflict, message).hint("wait until it is ready"));
        };
        self.name_content(caller, &digest, Some(name)).await
    }

    /// Makes an OCI image of what its node has under the digest of a manifest, with this name or with none. An image that
    /// has the name and could not be had becomes this one: whoever waits for it by its id gets what the name means now.
    ///
    /// # Errors
    /// `invalid`, `conflict` for a name that is being pulled at this moment, `quota_exceeded`, `forbidden`.
    pub async fn name_content(&self, caller: &Caller, digest: &str, name: Option<&str>) -> Result<Image> {
        caller.require(Role::Member, "naming an image")?;
        let reference = name.map(tag).transpose()?;
        let id = ImageId::from_random(rand::random());
        self.transact(|tx| {
            if let Some(reference) = &reference
                && let Some(holder) = self.holder(caller, reference)
            {
                match self.digest_of(holder.record.meta.id) {
                    Some(held) if held == digest => {
                        tx.expect(&holder);
                        return Ok(holder.record.clone());
                    }
                    Some(held) => self.displace(tx, &holder, &held),
                    None if self.has_failed(&holder.record) => {
                        let source = ImageSource::Content { digest: digest.to_string() };
                        return Ok(self.ask_anew(tx, &holder, &source, caller.reach()));
                    }
                    None => {
                        let message = format!("image {} is being made", holder.record.meta.name);
                        return Err(Error::new(Code::Conflict, message).hint("wait for that, or delete it"));
                    }
                }
            } else if reference.is_none()
                && let Some(same) = self.nameless(caller, digest)
            {
                tx.expect(&same);
                return Ok(same.record.clone());
            }
            let made_up = || Name::made_up("untagged", &id.short()).to_string();
            let name = reference.as_ref().map_or_else(made_up, Reference::to_string);
            let mut image = self.draft_image(tx, caller, id, &NewImage::to_be_sent(&name, ImageKind::Oci))?;
            image.source = ImageSource::Content { digest: digest.to_string() };
            image.untagged = reference.is_none();
            tx.create(&image);
            Ok(image)
        })
        .await
    }

    /// Takes an OCI image's name away: the image goes with it, unless something stands on it. Then it stays without a
    /// name, where its content has another one or `anyway`.
    ///
    /// # Errors
    /// `in_use`, `conflict` if protected, `not_found`, `forbidden`.
    pub async fn untag_image(&self, caller: &Caller, id: ImageId, anyway: bool) -> Result<Untagged> {
        self.transact(|tx| {
            let found = self.find_own::<Image>(caller, &id.to_string(), "removing an image's name")?;
            let image = &found.record;
            if image.protected {
                return Err(Error::new(Code::Conflict, format!("image {} is protected", image.meta.name)));
            }
            let (users, seen) = self.standing_on(id);
            if users.is_empty() {
                let given_back = if image.meta.is_deleting() { 0 } else { -1 };
                self.charge(tx, image.meta.project, &[(Resource::Images, given_back)]);
                self.drop_image(tx, &found, seen);
                return Ok(Untagged::Deleted);
            }
            let digest = self.digest_of(id);
            let is_same = |other: &Image| {
                other.meta.id != id && !other.untagged && self.digest_of(other.meta.id) == digest
            };
            let has_other = || self.own_oci(caller).iter().any(|other| is_same(&other.record));
            match digest.as_ref() {
                Some(digest) if !image.untagged && (anyway || has_other()) => {
                    self.displace(tx, &found, digest);
                    Ok(Untagged::Kept)
                }
                _ => {
                    self.refuse_used_image(caller, image, &users)?;
                    let message = format!("what used image {} went at this moment", image.meta.name);
                    Err(Error::new(Code::Conflict, message).hint("try again"))
                }
            }
        })
        .await
    }

    /// The image that has a reference in the caller's project.
    fn holder(&self, caller: &Caller, reference: &Reference) -> Option<Found<Image>> {
        let all = self.own_oci(caller);
        all.into_iter().find(|image| image.record.reference().as_ref() == Some(reference))
    }

    /// The image without a reference that has this content.
    fn nameless(&self, caller: &Caller, digest: &str) -> Option<Found<Image>> {
        let is_same =
            |image: &Image| image.untagged && self.digest_of(image.meta.id).as_deref() == Some(digest);
        self.own_oci(caller).into_iter().find(|image| is_same(&image.record))
    }

    fn own_oci(&self, caller: &Caller) -> Vec<Found<Image>> {
        let mut all = self.list::<Image>(caller);
        all.retain(|image| {
            let image = &image.record;
            image.meta.project == caller.project && image.kind == ImageKind::Oci && !image.meta.is_deleting()
        });
        all
    }

    fn has_failed(&self, image: &Image) -> bool {
        let status = self.image_status(image.meta.id);
        matches!(image.state(status.as_ref().map(|s| &s.record)), ImageState::Failed(_))
    }

    fn digest_of(&self, id: ImageId) -> Option<String> {
        Some(self.image_status(id)?.record.content()?.digest.clone())
    }

    /// Leaves an image without its reference. Its name becomes free in the same transaction.
    fn displace(&self, tx: &mut Transaction, found: &Stored<Image>, digest: &str) {
        let mut next = found.record.clone();
        next.meta.name = Name::made_up("untagged", &next.meta.id.short());
        next.untagged = true;
        // What was pulled is not pulled anew under a name that it has no more.
        next.source = ImageSource::Content { digest: digest.to_string() };
        next.meta.touch(self.now());
        tx.update(found, &next);
    }
}

/// A name with a tag, as docker reads it.
fn tag(text: &str) -> Result<Reference> {
    let reference = parse_reference("name", text)?;
    if reference.digest().is_some() {
        let message = format!("{text:?} names an image by its content, which no other can have");
        return Err(Error::invalid("name", message).hint("write NAME or NAME:TAG"));
    }
    Ok(reference)
}
