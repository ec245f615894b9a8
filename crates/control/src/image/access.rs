//! Who may use an image: sharing it with other projects, their answers, and withdrawing it.

use crate::{Caller, Control, Error, Result, Role, resolve::not_found};
use model::{
    error::Code,
    id::ProjectId,
    image::{Answer, Image, MEMBERS_MAX, Member, Visibility},
    project::Project,
};
use std::sync::Arc;
use store::Stored;

impl Control {
    /// All images that the caller may use by their id, those in nobody's list included.
    pub fn images_open_to(&self, caller: &Caller) -> Vec<Arc<Stored<Image>>> {
        let mut all = self.store.mirror().list::<Image>();
        all.retain(|i| i.record.meta.project == caller.project || i.record.is_open_to(caller.project));
        all
    }

    /// Shares an image with a project, by the project's id.
    ///
    /// # Errors
    /// `not_found` for image or project, `forbidden`, `conflict` if the image is not of the visibility `shared`,
    /// `taken` if that project has it already, `too_large` for too many.
    pub async fn share_image(
        &self,
        caller: &Caller,
        reference: &str,
        with: &str,
    ) -> Result<(Image, ProjectId)> {
        self.transact(|tx| {
            let found = self.find_own::<Image>(caller, reference, "sharing an image")?;
            let image = &found.record;
            let name = &image.meta.name;
            let project = self.sharing_project(caller, with)?;
            if image.visibility != Visibility::Shared {
                let message = format!("image {name} is {}, not shared", image.visibility.as_str());
                return Err(Error::new(Code::Conflict, message)
                    .hint(format!("`holm image set {name} --visibility shared`")));
            }
            if project == image.meta.project {
                return Err(Error::invalid("project", format!("image {name} is that project's own")));
            }
            if image.members.contains_key(&project) {
                let message = format!("image {name} is shared with {project} already");
                return Err(Error::new(Code::Taken, message).field("project"));
            }
            if image.members.len() >= MEMBERS_MAX {
                let message =
                    format!("image {name} is shared with {MEMBERS_MAX} projects, more are not possible");
                return Err(Error::new(Code::TooLarge, message).hint("make it public, or of the community"));
            }
            let now = self.now();
            let mut next = image.clone();
            let member = Member { answer: Answer::Pending, created_at: now, updated_at: now };
            next.members.insert(project, member);
            tx.update(&found, &next);
            Ok((next, project))
        })
        .await
    }

    /// Takes an image back from a project.
    ///
    /// # Errors
    /// `not_found` for the image, or if that project does not have it; `forbidden`.
    pub async fn unshare_image(
        &self,
        caller: &Caller,
        reference: &str,
        with: &str,
    ) -> Result<(Image, ProjectId)> {
        self.transact(|tx| {
            let found = self.find_own::<Image>(caller, reference, "taking an image back")?;
            let mut next = found.record.clone();
            let project = member_meant(self, caller, &next, with)?;
            next.members.remove(&project);
            tx.update(&found, &next);
            Ok((next, project))
        })
        .await
    }

    /// Says for a project what it thinks of an image that is shared with it: that project's own matter, or an
    /// admin's.
    ///
    /// # Errors
    /// `not_found`, `forbidden` for others, the owner included.
    pub async fn answer_share(
        &self,
        caller: &Caller,
        reference: &str,
        member: &str,
        answer: Answer,
    ) -> Result<(Image, ProjectId)> {
        caller.require(Role::Member, "answering a share")?;
        self.transact(|tx| {
            let found = self.find::<Image>(caller, reference)?;
            let mut next = found.record.clone();
            let project = member_meant(self, caller, &next, member)?;
            if project != caller.project && caller.role != Role::Admin {
                let message = format!("image {} is shared with another project", next.meta.name);
                return Err(
                    Error::new(Code::Forbidden, message).hint("that project itself accepts or rejects it")
                );
            }
            let now = self.now();
            if let Some(member) = next.members.get_mut(&project)
                && member.answer != answer
            {
                *member = Member { answer, updated_at: now, ..member.clone() };
                tx.update(&found, &next);
            }
            Ok((next, project))
        })
        .await
    }

    /// With whom an image is shared: its owner sees all, a member itself.
    ///
    /// # Errors
    /// `not_found`, also for those who may use the image and are no members.
    pub fn image_members(&self, caller: &Caller, reference: &str) -> Result<Vec<(ProjectId, Member)>> {
        let found = self.find::<Image>(caller, reference)?;
        let image = &found.record;
        let all = image.members.iter().map(|(project, member)| (*project, member.clone()));
        if caller.sees(image.meta.project) {
            return Ok(all.collect());
        }
        let own: Vec<_> = all.filter(|(project, _)| *project == caller.project).collect();
        if own.is_empty() && !image.is_listed_for(caller.project) {
            return Err(not_found::<Image>(reference, &[]));
        }
        Ok(own)
    }

    /// Withdraws an image, or lets it be used again.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` while it has no content.
    pub async fn set_image_deactivated(
        &self,
        caller: &Caller,
        reference: &str,
        deactivated: bool,
    ) -> Result<Image> {
        self.transact(|tx| {
            let action = if deactivated { "deactivating an image" } else { "reactivating an image" };
            let found = self.find_own::<Image>(caller, reference, action)?;
            let status = self.image_status(found.record.meta.id);
            if status.is_none_or(|s| s.record.content().is_none()) {
                let message = format!("image {} has no content yet", found.record.meta.name);
                return Err(Error::new(Code::Conflict, message).hint("wait until it is ready"));
            }
            let mut next = found.record.clone();
            next.deactivated = deactivated;
            if next != found.record {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }

    /// A project by its id, whoever it is; by its name, too, where the caller may see it.
    fn sharing_project(&self, caller: &Caller, reference: &str) -> Result<ProjectId> {
        if let Ok(found) = self.find_project(caller, reference) {
            return Ok(found.record.meta.id);
        }
        let id = reference.parse::<ProjectId>().ok().filter(|id| self.get::<Project>(*id).is_some());
        id.ok_or_else(|| {
            not_found::<Project>(reference, &[]).field("project").hint("name a project by its id")
        })
    }
}

fn member_meant(control: &Control, caller: &Caller, image: &Image, reference: &str) -> Result<ProjectId> {
    let project = control.sharing_project(caller, reference)?;
    if image.members.contains_key(&project) {
        return Ok(project);
    }
    let message = format!("image {} is not shared with {reference}", image.meta.name);
    Err(Error::new(Code::NotFound, message).field("project"))
}
