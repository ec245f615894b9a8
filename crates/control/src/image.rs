//! Images: sent by users, fetched from the web or pulled from registries.

mod access;
mod import;
mod retire;
mod step;
mod tag;
mod users;

pub use import::Import;
pub use step::{NewStep, Pruned};
pub use tag::Untagged;
pub use users::User;

use crate::{
    Caller, Control, Error, Result, Role,
    transact::{Arrivals, Found, Transaction},
};
use model::{
    error::Code,
    id::ImageId,
    image::{
        Image, ImageKind, ImageSource, ImageState, ImageStatus, KernelBoot, Reach, TAG_CHARS_MAX, TAGS_MAX,
        Visibility,
    },
    image_format::{ContainerFormat, FileFormat},
    image_reference::{Reference, ReferenceError},
    instance::Instance,
    meta::{Labels, Meta},
    name::Name,
    quota::Resource,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::Stored;

/// An image to be made.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// Its id; a random one when `None`.
    pub id: Option<ImageId>,
    /// Name; an OCI image's reference when empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// What it is.
    pub kind: ImageKind,
    /// Registry reference; `None`: the bytes will be sent.
    pub reference: Option<String>,
    /// Who may use it; public ones are made by admins.
    pub visibility: Visibility,
    /// Architecture; this host's when `None`.
    pub arch: Option<String>,
    /// Image of kind kernel to boot it with.
    pub kernel: Option<String>,
    /// Image of kind initrd.
    pub initrd: Option<String>,
    /// Kernel command line.
    pub cmdline: Option<String>,
    /// UEFI rather than BIOS.
    pub uefi: bool,
    /// Least root disk in GiB.
    pub min_disk_gib: u64,
    /// Least memory in MiB.
    pub min_memory_mib: u64,
    /// User that it lets in by SSH.
    pub login: Option<String>,
    /// Properties.
    pub properties: BTreeMap<String, String>,
    /// Labels.
    pub labels: Labels,
    /// Tags.
    pub tags: BTreeSet<String>,
    /// Cannot be deleted.
    pub protected: bool,
    /// Left out of lists.
    pub hidden: bool,
    /// What the file will be, as its sender says.
    pub disk_format: Option<FileFormat>,
    /// What it will be wrapped in.
    pub container_format: Option<ContainerFormat>,
    /// Others of the project may have its name.
    pub name_repeats: bool,
}

impl NewImage {
    /// An OCI image of a registry.
    pub fn from_registry(reference: &str) -> Self {
        Self { reference: Some(reference.to_string()), ..Self::to_be_sent("", ImageKind::Oci) }
    }

    /// An image whose bytes will be sent.
    pub fn to_be_sent(name: &str, kind: ImageKind) -> Self {
        Self {
            id: None,
            name: name.to_string(),
            description: String::new(),
            kind,
            reference: None,
            visibility: Visibility::Private,
            arch: None,
            kernel: None,
            initrd: None,
            cmdline: None,
            uefi: false,
            min_disk_gib: 0,
            min_memory_mib: 0,
            login: None,
            properties: BTreeMap::new(),
            labels: Labels::new(),
            tags: BTreeSet::new(),
            protected: false,
            hidden: false,
            disk_format: None,
            container_format: None,
            name_repeats: false,
        }
    }
}

impl Control {
    /// Makes an image. Its bytes come from a registry at once, or are sent afterwards. One that has the name and the
    /// reference already is pulled anew: what is here stays if the registry has nothing newer.
    ///
    /// # Errors
    /// `invalid`, `taken`, `not_found` for kernel or initrd, `quota_exceeded`, `forbidden` for public ones.
    pub async fn create_image(&self, caller: &Caller, new: NewImage) -> Result<Image> {
        caller.require(Role::Member, "creating an image")?;
        if new.visibility == Visibility::Public {
            caller.require(Role::Admin, "making an image public")?;
        }
        let id = new.id.unwrap_or_else(|| ImageId::from_random(rand::random()));
        self.transact(|tx| {
            let image = self.draft_image(tx, caller, id, &new)?;
            if let Some(same) = self.pulled_before(caller, &image) {
                // A draft of one that exists counts for nothing.
                *tx = Transaction::default();
                return Ok(self.ask_anew(tx, &same, &image.source, image.reach));
            }
            // Of several pulls of one image at once one makes it, and the others find it.
            let is_named = |i: &Image| i.meta.project == image.meta.project && i.meta.name == image.meta.name;
            let is_pull = matches!(image.source, ImageSource::Registry { .. });
            if is_pull && !self.list::<Image>(caller).iter().any(|i| is_named(&i.record)) {
                tx.create_implied(&image);
            } else {
                tx.create(&image);
            }
            Ok(image)
        })
        .await
    }

    /// The project's image of the same name from the same place in a registry.
    fn pulled_before(&self, caller: &Caller, draft: &Image) -> Option<Found<Image>> {
        // A name that was given here, and is now to be what the registry has under it.
        let is_pull = matches!(draft.source, ImageSource::Registry { .. });
        let is_tagged = |i: &Image| is_pull && matches!(i.source, ImageSource::Content { .. });
        let same = |i: &Image| {
            i.meta.project == caller.project
                && i.meta.name == draft.meta.name
                && (i.source == draft.source || is_tagged(i))
                && i.source != ImageSource::Upload
                && i.kind == draft.kind
                && !i.meta.is_deleting()
        };
        self.list::<Image>(caller).into_iter().find(|i| same(&i.record))
    }

    fn draft_image(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        id: ImageId,
        new: &NewImage,
    ) -> Result<Image> {
        let image = self.uncounted_image(caller, id, new)?;
        self.stand_on_boot(tx, image.boot.as_ref(), id);
        self.charge(tx, caller.project, &[(Resource::Images, 1)]);
        Ok(image)
    }

    /// The same, of one that its project's quota does not count.
    fn uncounted_image(&self, caller: &Caller, id: ImageId, new: &NewImage) -> Result<Image> {
        let source = match &new.reference {
            Some(text) => {
                let reference = parse_reference("reference", text)?;
                ImageSource::Registry { reference: reference.to_string() }
            }
            None => ImageSource::Upload,
        };
        let name = match (&new.name, &source) {
            (name, ImageSource::Registry { reference }) if name.is_empty() => reference.clone(),
            (name, _) => name.clone(),
        };
        let name: Name = name.parse().map_err(|e| Error::invalid("name", e))?;
        let mut meta = Meta::new(id, caller.project, name, self.now());
        meta.description.clone_from(&new.description);
        meta.labels.clone_from(&new.labels);
        let boot = self.kernel_asked(caller, id, new)?;
        let image = Image {
            meta,
            kind: new.kind,
            visibility: new.visibility,
            source,
            arch: new.arch.clone().unwrap_or_else(|| std::env::consts::ARCH.to_string()),
            boot,
            uefi: new.uefi,
            min_disk_gib: new.min_disk_gib,
            min_memory_mib: new.min_memory_mib,
            protected: new.protected,
            login: new.login.clone(),
            properties: new.properties.clone(),
            asked: u64::from(new.reference.is_some()),
            tags: new.tags.clone(),
            hidden: new.hidden,
            deactivated: false,
            disk_format: new.disk_format,
            container_format: new.container_format,
            members: BTreeMap::new(),
            name_repeats: new.name_repeats,
            untagged: false,
            backup: None,
            step: None,
            reach: caller.reach(),
        };
        check_image(&image)?;
        Ok(image)
    }

    fn kernel_asked(&self, caller: &Caller, id: ImageId, new: &NewImage) -> Result<Option<KernelBoot>> {
        let of_kind = |field: &str, reference: &str, kind: ImageKind| {
            let found = self.find_for::<Image>(caller, field, reference)?;
            if found.record.kind == kind {
                return Ok(found.record.meta.id);
            }
            let word = if kind == ImageKind::Kernel { "kernel" } else { "initrd" };
            Err(Error::invalid(field, format!("image {reference} is not of kind {word}")))
        };
        let initrd = match &new.initrd {
            Some(reference) => Some(of_kind("initrd", reference, ImageKind::Initrd)?),
            None => None,
        };
        let kernel = match (&new.kernel, new.kind) {
            (Some(reference), _) => Some(of_kind("kernel", reference, ImageKind::Kernel)?),
            (None, ImageKind::Kernel) => Some(id),
            (None, _) => None,
        };
        match kernel {
            Some(kernel) => {
                Ok(Some(KernelBoot { kernel, initrd, cmdline: new.cmdline.clone().unwrap_or_default() }))
            }
            None if initrd.is_some() || new.cmdline.is_some() => {
                Err(Error::invalid("kernel", "an initrd or a kernel command line needs a kernel"))
            }
            None => Ok(None),
        }
    }

    /// What an image boots with must not go while the image comes. One that boots with itself stands on nothing.
    pub(crate) fn stand_on_boot(&self, tx: &mut Transaction, boot: Option<&KernelBoot>, own: ImageId) {
        let ids = boot.into_iter().flat_map(|boot| std::iter::once(boot.kernel).chain(boot.initrd));
        // What went before it was looked for keeps nobody from naming it as another does.
        for id in ids.filter(|id| *id != own && self.get::<Image>(*id).is_some()) {
            tx.stand_on::<Image>(id);
        }
    }

    /// The OCI image of a reference, made in the same transaction if nobody named it before.
    pub(crate) fn oci_image(&self, tx: &mut Transaction, caller: &Caller, asked: &str) -> Result<Image> {
        if let Ok(found) = self.find::<Image>(caller, asked) {
            return match found.record.kind {
                ImageKind::Oci | ImageKind::System => {
                    tx.stand_on::<Image>(found.record.meta.id);
                    Ok(self.ask_failed_anew(tx, &found, caller.reach()))
                }
                _ => Err(Error::invalid("image", format!("image {asked} is a VM's, not a container's"))
                    .hint(format!("start it with `holm run --vm {asked}`"))),
            };
        }
        let reference = parse_reference("image", asked)?;
        let same = |i: &Image| i.kind == ImageKind::Oci && i.reference().as_ref() == Some(&reference);
        if let Some(found) = self.list::<Image>(caller).into_iter().find(|i| same(&i.record)) {
            tx.stand_on::<Image>(found.record.meta.id);
            return Ok(self.ask_failed_anew(tx, &found, caller.reach()));
        }
        let id = ImageId::from_random(rand::random());
        let image = self.draft_image(tx, caller, id, &NewImage::from_registry(asked))?;
        tx.create_implied(&image);
        Ok(image)
    }

    /// Asks for an image anew whose pull has failed: whoever needs it waits for no backoff of an earlier try.
    fn ask_failed_anew(&self, tx: &mut Transaction, found: &Stored<Image>, reach: Reach) -> Image {
        let image = &found.record;
        let status = self.image_status(image.meta.id);
        let failed = matches!(image.state(status.as_ref().map(|s| &s.record)), ImageState::Failed(_));
        let pulled = matches!(image.source, ImageSource::Registry { .. });
        if failed && pulled { self.ask_anew(tx, found, &image.source, reach) } else { image.clone() }
    }

    /// `reach` is that of who asks. The place that an admin asked for is as good for the next one of the project.
    fn ask_anew(
        &self,
        tx: &mut Transaction,
        found: &Stored<Image>,
        source: &ImageSource,
        reach: Reach,
    ) -> Image {
        let mut next = found.record.clone();
        next.reach = if next.source == *source { next.reach.max(reach) } else { reach };
        next.source.clone_from(source);
        next.asked += 1;
        next.meta.touch(self.now());
        tx.update(found, &next);
        next
    }

    /// The same for all images of an instance's containers.
    pub(crate) fn ask_images_anew(&self, tx: &mut Transaction, instance: &Instance) {
        let ids: BTreeSet<ImageId> = instance.containers.iter().filter_map(|c| c.image).collect();
        for found in ids.iter().filter_map(|id| self.store.get::<Image>(&id.to_string())) {
            self.ask_failed_anew(tx, &found, Reach::Public);
        }
    }

    /// What the node that holds an image says of it.
    pub fn image_status(&self, id: ImageId) -> Option<Arc<Stored<ImageStatus>>> {
        self.store.get::<ImageStatus>(&id.to_string())
    }

    /// Refuses an image that was withdrawn.
    ///
    /// # Errors
    /// `conflict`.
    pub(crate) fn refuse_withdrawn_image(&self, image: &Image) -> Result<()> {
        let name = &image.meta.name;
        if image.meta.is_deleting() {
            return Err(Error::new(Code::Conflict, format!("image {name} is deleted")).field("image"));
        }
        if !image.deactivated {
            return Ok(());
        }
        Err(Error::new(Code::Conflict, format!("image {name} is deactivated"))
            .field("image")
            .hint(format!("`holm image reactivate {name}` lets it be used again")))
    }

    /// Refuses an image that failed, with its cause. One that is still coming is fine: instances wait for it.
    ///
    /// # Errors
    /// `conflict`, with why the image failed.
    pub(crate) fn refuse_failed_image(&self, image: &Image) -> Result<()> {
        self.refuse_withdrawn_image(image)?;
        let status = self.image_status(image.meta.id);
        if let ImageState::Failed(fault) = image.state(status.as_ref().map(|s| &s.record)) {
            let message = format!("image {} cannot be used: {}", image.meta.name, fault.message);
            return Err(Error::new(Code::Conflict, message).field("image").hint(&fault.hint));
        }
        let lies_ready = matches!(status.as_ref().map(|s| &s.record.state), Some(ImageState::Staged { .. }));
        if image.source == ImageSource::Upload && (status.is_none() || lies_ready) {
            let message = format!("image {} has no content yet", image.meta.name);
            return Err(Error::new(Code::Conflict, message)
                .field("image")
                .hint(format!("send it with `holm image upload {} FILE`", image.meta.name)));
        }
        Ok(())
    }

    /// Removes an image that nothing stands on.
    ///
    /// # Errors
    /// `in_use` with who uses it, `conflict` if protected, `not_found`, `forbidden`.
    pub async fn delete_image(&self, caller: &Caller, reference: &str) -> Result<Image> {
        self.transact(|tx| {
            let found = self.find_own::<Image>(caller, reference, "deleting an image")?;
            let image = &found.record;
            if image.protected {
                return Err(Error::new(Code::Conflict, format!("image {} is protected", image.meta.name))
                    .hint(format!("lift that with `holm image set {} --protected no`", image.meta.name)));
            }
            let (users, seen) = self.standing_on(image.meta.id);
            self.refuse_used_image(caller, image, &users)?;
            // What is going already was given back.
            let given_back = image.meta.is_deleting();
            self.charge(tx, image.meta.project, &[(image.resource(), if given_back { 0 } else { -1 })]);
            self.drop_image(tx, &found, seen);
            Ok(image.clone())
        })
        .await
    }

    /// Takes an image out in a transaction, on which nothing stood when `seen` was looked up.
    fn drop_image(&self, tx: &mut Transaction, found: &Stored<Image>, seen: Arrivals) {
        tx.raw().remove::<ImageStatus>(&found.record.meta.id.to_string());
        tx.delete_unused(found, seen);
    }

    /// Changes what is said of an image.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `invalid`, `taken`.
    pub async fn update_image(
        &self,
        caller: &Caller,
        reference: &str,
        change: impl Fn(&mut Image) -> Result<()> + Send + Sync,
    ) -> Result<Image> {
        self.transact(|tx| {
            let found = self.find_own::<Image>(caller, reference, "changing an image")?;
            let mut next = found.record.clone();
            change(&mut next)?;
            check_image(&next)?;
            if next.visibility == Visibility::Public && found.record.visibility != Visibility::Public {
                caller.require(Role::Admin, "making an image public")?;
            }
            if next.boot != found.record.boot {
                self.stand_on_boot(tx, next.boot.as_ref(), next.meta.id);
            }
            if next != found.record {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }
}

fn parse_reference(field: &str, text: &str) -> Result<Reference> {
    text.parse().map_err(|error: ReferenceError| {
        Error::invalid(field, format!("{text:?} names no image: {error}")).hint(error.hint())
    })
}

/// Refuses tags and properties beyond what is kept with an image.
fn check_image(image: &Image) -> Result<()> {
    crate::change::check_labels(&image.properties).map_err(|e| Error {
        message: e.message.replace("label", "property").replace("propertys", "properties"),
        ..e.field("properties")
    })?;
    if image.tags.len() > TAGS_MAX {
        let message = format!("{} tags: at most {TAGS_MAX} are possible", image.tags.len());
        return Err(Error::new(Code::TooLarge, message).field("tags"));
    }
    let is_wrong = |tag: &&String| {
        tag.is_empty() || tag.chars().count() > TAG_CHARS_MAX || tag.chars().any(char::is_control)
    };
    match image.tags.iter().find(is_wrong) {
        Some(tag) => Err(Error::invalid(
            "tags",
            format!(
                "the tag {tag:.40?} is empty, has control characters or more than {TAG_CHARS_MAX} characters"
            ),
        )),
        None => Ok(()),
    }
}
