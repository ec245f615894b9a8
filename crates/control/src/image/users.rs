//! Who uses an image: what stands on it, so that it cannot go, and what has its layers as well, so that less of the disk
//! comes free when it goes than it seems to take.

use crate::{Caller, Control, Error, Result, transact::Arrivals};
use model::{
    error::Code,
    id::{ImageId, ProjectId},
    image::{Hold, Image, ImageContent, ImageSource, ImageStatus},
    instance::Instance,
    snapshot::Snapshot,
    volume::{Volume, VolumeSource},
};
use std::{collections::BTreeSet, fmt};
use store::View;
use uuid::Uuid;

/// Most users that a refusal names; a list tells all.
const USERS_TOLD_MAX: usize = 3;

/// One that uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `instance`, `volume`, `snapshot`, `image`, or `build step` for what a build keeps.
    pub noun: &'static str,
    /// Its id.
    pub id: Uuid,
    /// Its name; of a build step, what that did.
    pub name: String,
    /// Its project.
    pub project: ProjectId,
    /// How.
    pub hold: Hold,
    /// Digests of the layers (unpacked) that it has in common with the image; empty where that is not how.
    pub layers: BTreeSet<String>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.noun, self.name)
    }
}

impl Control {
    /// All that has to do with an image: first what it cannot go for, then the images and build steps that have layers of
    /// it, as far as the caller may see these.
    ///
    /// # Errors
    /// `not_found`.
    pub fn users_of_image(&self, caller: &Caller, reference: &str) -> Result<Vec<User>> {
        let found = self.find::<Image>(caller, reference)?;
        let (mut users, _) = self.standing_on(found.record.meta.id);
        // Its owner learns that other projects use it; these learn nothing of each other.
        let is_own = caller.sees(found.record.meta.project);
        users.retain(|user| is_own || caller.sees(user.project));
        users.extend(self.sharers(caller, &found.record));
        Ok(users)
    }

    /// What stands on an image, and how often anybody came to until then: all at one moment, in which what hands an image on
    /// to another is there with it or has not begun.
    pub(super) fn standing_on(&self, id: ImageId) -> (Vec<User>, Arrivals) {
        self.store.mirror().view(|view| (firm_users(view, id), Arrivals::of::<Image>(view, id)))
    }

    /// What a deletion of an image needs to know on which nothing stands; `None` if something does.
    pub(super) fn unused_image(&self, id: ImageId) -> Option<Arrivals> {
        let (users, seen) = self.standing_on(id);
        users.is_empty().then_some(seen)
    }

    /// Refuses to let an image go that something stands on, and says what that is.
    pub(super) fn refuse_used_image(&self, caller: &Caller, image: &Image, users: &[User]) -> Result<()> {
        if users.is_empty() {
            return Ok(());
        }
        let name = &image.meta.name;
        let mut told: Vec<String> = users
            .iter()
            .filter(|user| caller.sees(user.project))
            .take(USERS_TOLD_MAX)
            .map(User::to_string)
            .collect();
        match users.len() - told.len() {
            0 => {}
            // What other projects have is not told by its name.
            others if told.is_empty() => told.push(format!("{others} of other projects")),
            others => told.push(format!("{others} more")),
        }
        let message = format!("image {name} is used by {}", told.join(", "));
        Err(Error::new(Code::InUse, message)
            .hint(format!("delete that first; `holm image users {name}` tells all that has to do with it")))
    }

    /// The images that have layers of this one.
    fn sharers(&self, caller: &Caller, image: &Image) -> Vec<User> {
        let Some(content) = self.content_of(image.meta.id) else { return vec![] };
        let mut users = vec![];
        for found in self.store.list::<Image>() {
            let (other, meta) = (&found.record, &found.record.meta);
            if meta.id == image.meta.id || !caller.sees(meta.project) && !other.is_listed_for(caller.project)
            {
                continue;
            }
            let Some((hold, layers)) = self.content_of(meta.id).and_then(|it| shared(&content, &it)) else {
                continue;
            };
            let (noun, name) = match &other.step {
                Some(step) => ("build step", step.what.clone()),
                None => ("image", meta.name.to_string()),
            };
            users.push(User { noun, id: meta.id.into(), name, project: meta.project, hold, layers });
        }
        users
    }

    fn content_of(&self, id: ImageId) -> Option<ImageContent> {
        self.image_status(id)?.record.content().cloned()
    }
}

/// What an image cannot go for.
fn firm_users(view: &View<'_>, id: ImageId) -> Vec<User> {
    let user = |noun, uuid, name: String, project, hold| User {
        noun,
        id: uuid,
        name,
        project,
        hold,
        layers: BTreeSet::new(),
    };
    let mut users = vec![];
    for found in view.list::<Instance>() {
        let (instance, meta) = (&found.record, &found.record.meta);
        if instance.image == Some(id) || instance.containers.iter().any(|c| c.image == Some(id)) {
            users.push(user("instance", meta.id.into(), meta.name.to_string(), meta.project, Hold::StandsOn));
        }
    }
    for found in view.list::<Volume>() {
        let (volume, meta) = (&found.record, &found.record.meta);
        if volume.source == VolumeSource::Image(id) || volume.ground().image == Some(id) {
            users.push(user("volume", meta.id.into(), meta.name.to_string(), meta.project, Hold::DiskOf));
        }
    }
    for found in view.list::<Snapshot>() {
        let meta = &found.record.meta;
        if found.record.ground.image == Some(id) {
            users.push(user("snapshot", meta.id.into(), meta.name.to_string(), meta.project, Hold::DiskOf));
        }
    }
    for found in view.list::<Image>() {
        let meta = &found.record.meta;
        if let Some(hold) = firm_hold(view, &found.record, id) {
            users.push(user("image", meta.id.into(), meta.name.to_string(), meta.project, hold));
        }
    }
    users
}

/// How one image needs another's record.
fn firm_hold(view: &View<'_>, image: &Image, id: ImageId) -> Option<Hold> {
    let boots = image.boot.as_ref().is_some_and(|boot| boot.kernel == id || boot.initrd == Some(id));
    if boots && image.meta.id != id {
        return Some(Hold::Boots);
    }
    // An image that is still being made of a volume reads this one.
    let reads = matches!(&image.source, ImageSource::Volume { ground, .. } if ground.image == Some(id));
    let status = || view.get::<ImageStatus>(&image.meta.id.to_string());
    let is_made = || status().is_some_and(|status| status.record.content().is_some());
    (reads && !is_made()).then_some(Hold::Reads)
}

/// What another image has of this one.
fn shared(of: &ImageContent, other: &ImageContent) -> Option<(Hold, BTreeSet<String>)> {
    let (below, above) = (&of.oci.as_ref()?.diff_ids, &other.oci.as_ref()?.diff_ids);
    let layers: BTreeSet<String> = below.iter().filter(|id| above.contains(id)).cloned().collect();
    let hold = if of.digest == other.digest {
        Hold::SameContent
    } else if layers.is_empty() {
        return None;
    } else if above.len() > below.len() && above.starts_with(below) {
        Hold::BuiltOn
    } else {
        Hold::SharesLayers
    };
    Some((hold, layers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::image::OciContent;

    #[test]
    fn what_two_images_share_is_told_by_their_layers() {
        let content = |digest: &str, layers: &[&str]| ImageContent {
            digest: digest.into(),
            oci: Some(OciContent {
                diff_ids: layers.iter().map(|id| (*id).to_string()).collect(),
                ..OciContent::default()
            }),
            ..ImageContent::default()
        };
        let base = content("m1", &["a", "b"]);
        for (digest, layers, hold) in [
            ("m1", &["a", "b"][..], Some((Hold::SameContent, 2))),
            ("m2", &["a", "b"][..], Some((Hold::SharesLayers, 2))),
            ("m2", &["a", "b", "c"][..], Some((Hold::BuiltOn, 2))),
            ("m2", &["a"][..], Some((Hold::SharesLayers, 1))),
            ("m2", &["b", "a", "c"][..], Some((Hold::SharesLayers, 2))),
            ("m2", &["c"][..], None),
        ] {
            let told = shared(&base, &content(digest, layers)).map(|(hold, layers)| (hold, layers.len()));
            assert_eq!(told, hold, "{digest} {layers:?}");
        }
        assert_eq!(shared(&base, &ImageContent::default()), None, "a disk has no layers");
    }
}
