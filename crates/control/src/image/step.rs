//! Steps of builds: images that stand for what an instruction of a Dockerfile made, so that the next build need not do it
//! again.
//!
//! A step belongs to its build until that has ended. Then it is kept for others, or goes: what a build left that was cut off
//! goes with the next start of the daemon, since builds live in its memory alone. Steps count for no quota; their number has
//! a limit of its own. Every container of a build stands on a step, so that it is known by that.

use super::NewImage;
use crate::{
    Caller, Control, Error, Result, Role,
    finalize::system_caller,
    transact::{Found, Transaction},
};
use jiff::Timestamp;
use model::{
    error::Code,
    id::{ImageId, ProjectId},
    image::{BuildStep, Image, ImageKind, ImageSource, STEP_CHARS_MAX, STEPS_MAX},
    instance::Instance,
    name::Name,
};
use std::collections::BTreeSet;

/// Steps that go in one transaction, which has room for so many changes only.
const STEPS_AT_ONCE: usize = 100;

/// A step to be kept.
#[derive(Debug, Clone)]
pub struct NewStep {
    /// What it depends on.
    pub key: String,
    /// Digest of its manifest.
    pub digest: String,
    /// The build that makes it.
    pub build: String,
    /// What it did.
    pub what: String,
}

/// A step that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Its id.
    pub id: ImageId,
    /// Its content, as far as it is known.
    pub digest: Option<String>,
}

impl Control {
    /// Makes a step of what its node has under the digest of a manifest.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn keep_step(&self, caller: &Caller, new: &NewStep) -> Result<Image> {
        caller.require(Role::Member, "building an image")?;
        let id = ImageId::from_random(rand::random());
        self.transact(|tx| {
            let image = self.image_of_step(caller, id, new)?;
            tx.create(&image);
            Ok(image)
        })
        .await
    }

    /// Makes several steps at once, of those that changed no files: each stands on what the files' last step made.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn keep_steps(&self, caller: &Caller, all: &[NewStep]) -> Result<()> {
        caller.require(Role::Member, "building an image")?;
        let ids: Vec<ImageId> = all.iter().map(|_| ImageId::from_random(rand::random())).collect();
        self.transact(|tx| {
            for (id, new) in ids.iter().zip(all) {
                tx.create(&self.image_of_step(caller, *id, new)?);
            }
            Ok(())
        })
        .await
    }

    fn image_of_step(&self, caller: &Caller, id: ImageId, new: &NewStep) -> Result<Image> {
        let name = Name::made_up("step", &id.short()).to_string();
        let draft =
            NewImage { name_repeats: true, hidden: true, ..NewImage::to_be_sent(&name, ImageKind::Oci) };
        let mut image = self.uncounted_image(caller, id, &draft)?;
        image.source = ImageSource::Content { digest: new.digest.clone() };
        image.untagged = true;
        image.step = Some(BuildStep {
            key: new.key.clone(),
            build: Some(new.build.clone()),
            what: new.what.chars().take(STEP_CHARS_MAX).collect(),
            used_at: self.now(),
            uses: 0,
        });
        Ok(image)
    }

    /// The steps of the caller's project.
    pub fn steps(&self, caller: &Caller) -> Vec<Found<Image>> {
        self.steps_of(caller.project)
    }

    fn steps_of(&self, project: ProjectId) -> Vec<Found<Image>> {
        let mut all = self.store.list::<Image>();
        all.retain(|found| {
            let image = &found.record;
            image.step.is_some() && image.meta.project == project && !image.meta.is_deleting()
        });
        all
    }

    /// The step with this key that a build may take: one that is kept, whose content is here.
    pub fn step_of_key(&self, caller: &Caller, key: &str) -> Option<Found<Image>> {
        let is_kept =
            |image: &Image| image.step.as_ref().is_some_and(|step| step.key == key && step.build.is_none());
        let has_content = |image: &Image| {
            self.image_status(image.meta.id).is_some_and(|status| status.record.content().is_some())
        };
        self.steps(caller).into_iter().find(|found| is_kept(&found.record) && has_content(&found.record))
    }

    /// Whether a step with this key is kept, be its content here or not: of one that changed no files nothing is taken.
    pub fn knows_step(&self, caller: &Caller, key: &str) -> bool {
        let is_kept = |step: &BuildStep| step.key == key && step.build.is_none();
        self.steps(caller).iter().any(|found| found.record.step.as_ref().is_some_and(is_kept))
    }

    /// Notes that a build had a step.
    ///
    /// # Errors
    /// What the store refuses.
    pub async fn use_step(&self, caller: &Caller, id: ImageId) -> Result<()> {
        self.transact(|tx| {
            let Some(found) = self.get::<Image>(id) else { return Ok(()) };
            let mut next = found.record.clone();
            let Some(step) = next.step.as_mut().filter(|_| found.record.meta.project == caller.project)
            else {
                return Ok(());
            };
            step.used_at = self.now();
            step.uses += 1;
            tx.update(&found, &next);
            Ok(())
        })
        .await
    }

    /// A step of the caller's own, for a container of its build.
    pub(crate) fn step_image(&self, tx: &mut Transaction, caller: &Caller, id: ImageId) -> Result<Image> {
        match self.get::<Image>(id) {
            Some(found) if found.record.step.is_some() && found.record.meta.project == caller.project => {
                tx.stand_on::<Image>(id);
                Ok(found.record.clone())
            }
            _ => {
                Err(Error::new(Code::NotFound, "the step was removed while it was built on")
                    .hint("build again"))
            }
        }
    }

    /// Ends a build: its steps are kept for others, or go. More than are kept make the oldest go.
    ///
    /// # Errors
    /// What the store refuses; the rest goes with the next start of the daemon.
    pub async fn end_build(&self, caller: &Caller, build: &str, keeps: bool) -> Result<()> {
        self.transact(|tx| {
            let (own, mut others): (Vec<_>, Vec<_>) = self.steps(caller).into_iter().partition(|found| {
                found.record.step.as_ref().is_some_and(|step| step.build.as_deref() == Some(build))
            });
            others.retain(|found| found.record.step.as_ref().is_some_and(|step| step.build.is_none()));
            let mut kept = BTreeSet::new();
            for found in &own {
                let mut next = found.record.clone();
                // One without a key is no step of anybody's; of two stages that have the same step one keeps it.
                let is_kept =
                    |step: &&mut BuildStep| keeps && !step.key.is_empty() && kept.insert(step.key.clone());
                if let Some(step) = next.step.as_mut().filter(is_kept) {
                    step.build = None;
                    tx.update(found, &next);
                } else {
                    self.drop_step(tx, found);
                }
            }
            // What was made anew takes the place of what was there.
            let is_replaced = |found: &Found<Image>| {
                found.record.step.as_ref().is_some_and(|step| kept.contains(&step.key))
            };
            for found in others.extract_if(.., |found| is_replaced(found)) {
                self.drop_step(tx, &found);
            }
            others
                .sort_by_key(|found| std::cmp::Reverse(found.record.step.as_ref().map(|step| step.used_at)));
            for found in others.iter().skip(STEPS_MAX.saturating_sub(kept.len())) {
                self.drop_step(tx, found);
            }
            Ok(())
        })
        .await
    }

    /// Removes the kept steps that no build used since `until`, or all. Those that a build stands on stay.
    ///
    /// # Errors
    /// `forbidden`, what the store refuses.
    pub async fn prune_steps(&self, caller: &Caller, until: Option<Timestamp>) -> Result<Vec<Pruned>> {
        caller.require(Role::Member, "pruning the build cache")?;
        let mut all = vec![];
        loop {
            let gone = self.transact(|tx| Ok(self.prune_some_steps(tx, caller, until))).await?;
            let is_last = gone.len() < STEPS_AT_ONCE;
            all.extend(gone);
            if is_last {
                return Ok(all);
            }
        }
    }

    fn prune_some_steps(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        until: Option<Timestamp>,
    ) -> Vec<Pruned> {
        let mut gone = vec![];
        for found in self.steps(caller) {
            let step = found.record.step.as_ref();
            let is_old = step
                .is_some_and(|step| step.build.is_none() && until.is_none_or(|until| step.used_at < until));
            let id = found.record.meta.id;
            if !is_old || gone.len() == STEPS_AT_ONCE {
                continue;
            }
            if let Some(seen) = self.unused_image(id) {
                gone.push(Pruned { id, digest: self.digest_of_image(id) });
                self.drop_image(tx, &found, seen);
            }
        }
        gone
    }

    fn digest_of_image(&self, id: ImageId) -> Option<String> {
        Some(self.image_status(id)?.record.content()?.digest.clone())
    }

    /// Removes a step; one that a container stands on goes with that.
    fn drop_step(&self, tx: &mut Transaction, found: &Found<Image>) {
        let id = found.record.meta.id;
        if let Some(seen) = self.unused_image(id) {
            self.drop_image(tx, found, seen);
            return;
        }
        let mut next = found.record.clone();
        next.meta.deleted_at = Some(self.now());
        tx.update(found, &next);
    }

    /// The steps of a project that goes.
    pub(crate) fn drop_steps(&self, tx: &mut Transaction, project: ProjectId) {
        for found in self.steps_of(project) {
            self.drop_step(tx, &found);
        }
    }

    /// Removes what builds left that the end of the daemon cut off: their containers and their steps. Called before any
    /// build begins. Doing it twice is doing it once.
    ///
    /// # Errors
    /// What the store refuses.
    pub async fn sweep_builds(&self) -> Result<()> {
        for found in self.store.list::<Instance>() {
            let instance = &found.record;
            let stands_on_step =
                |id: ImageId| self.get::<Image>(id).is_some_and(|image| image.record.step.is_some());
            let is_builds =
                instance.containers.iter().filter_map(|container| container.image).any(stands_on_step);
            if is_builds && !instance.meta.is_deleting() {
                let caller = system_caller(instance.meta.project);
                self.delete_instance(&caller, &instance.meta.id.to_string()).await?;
            }
        }
        let is_left = |image: &Image| {
            image.step.as_ref().is_some_and(|step| step.build.is_some()) && !image.meta.is_deleting()
        };
        let mut left = self.store.list::<Image>();
        left.retain(|found| is_left(&found.record));
        for some in left.chunks(STEPS_AT_ONCE) {
            self.transact(|tx| {
                let now = some.iter().filter_map(|found| self.get::<Image>(found.record.meta.id));
                now.filter(|found| is_left(&found.record)).for_each(|found| self.drop_step(tx, &found));
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
