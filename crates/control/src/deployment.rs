//! Deployments: asked for here, and kept by [`reconcile`], which alone makes and removes their copies.
//!
//! A template may hold secrets, so it is kept sealed, as the door has it. What it means is the door's to say: whoever runs
//! the reconcile brings a [`Translate`] along.

mod autoscale;
mod reconcile;

pub use autoscale::Pasts;

use crate::{
    Caller, Control, Error, Result, Role,
    instance::NewInstance,
    schema::{INSTANCE_BY_OBJECT, by_project},
};
use jiff::Timestamp;
use model::{
    deployment::{
        COPIES_MAX, Copy, DEPLOYMENTS_MAX, Deployment, DeploymentStatus, Kind, REVISION_CHARS_MAX,
        REVISION_CHARS_MIN, REVISION_LABEL, Stand, TEMPLATE_BYTES_MAX,
        autoscale::{Autoscale, DeploymentScale},
    },
    error::Code,
    id::{DeploymentId, ProjectId},
    instance::{Instance, phase::Phase},
    meta::{Labels, Meta},
    port::alias::Alias,
    quota::Resource,
    seal::Sealed,
};
use std::{collections::BTreeMap, sync::Arc};
use store::Stored;

/// Name of the counter of a project's deployments.
const COUNTER: &str = "deployments";

/// From a template to the copy of this name.
pub type Translate = dyn Fn(&Control, &Caller, &[u8], &str) -> Result<NewInstance> + Send + Sync;

/// What copies are made of.
#[derive(Clone)]
pub struct Template {
    /// As the door has it; it is kept sealed.
    pub bytes: Vec<u8>,
    /// Tells it from others.
    pub revision: String,
    /// The old copies go before new ones come.
    pub recreate: bool,
    /// It holds what one instance alone can have.
    pub is_single: bool,
    /// Names that lead to its copies.
    pub aliases: Vec<Alias>,
}

/// A deployment to be made.
pub struct NewDeployment {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// Kind.
    pub kind: Kind,
    /// Copies that are wanted.
    pub replicas: u32,
    /// What these are made of.
    pub template: Template,
    /// The rule by which there are more or fewer.
    pub autoscale: Option<Autoscale>,
}

/// Changes to a deployment; what is `None` stays.
#[derive(Clone, Default)]
pub struct DeploymentChange {
    /// Free text.
    pub description: Option<String>,
    /// Copies that are wanted.
    pub replicas: Option<u32>,
    /// What these are made of.
    pub template: Option<Template>,
    /// The rule by which there are more or fewer.
    pub autoscale: Option<Option<Autoscale>>,
    /// When copies anew were asked for: another time than before replaces all that are there.
    pub restarted_at: Option<Timestamp>,
}

/// How many copies there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All, those that are on their way out included.
    pub all: usize,
    /// Of the current revision, and there to stay.
    pub current: usize,
    /// Of these, those that can be given work.
    pub ready: usize,
}

impl Control {
    /// Makes a deployment. Its copies are made by its reconcile.
    ///
    /// # Errors
    /// `invalid`, `taken`, `quota_exceeded`, `forbidden`, `too_large`, `unsupported` without a key to seal with.
    pub async fn create_deployment(&self, caller: &Caller, new: NewDeployment) -> Result<Deployment> {
        caller.require(Role::Member, "creating a deployment")?;
        let id = DeploymentId::from_random(rand::random());
        let name = self.name_asked(&new.name, "deployment", &id.short())?;
        let mut meta = Meta::new(id, caller.project, name, self.now());
        meta.description = new.description;
        meta.labels = new.labels;
        let template = self.seal_template(id, &new.template)?;
        let mut made = Deployment {
            meta,
            kind: new.kind,
            replicas: new.replicas,
            revision: String::new(),
            restarted_at: None,
            recreate: false,
            is_single: false,
            aliases: vec![],
            template,
            template_kib: 0,
            by_admin: false,
            autoscale: new.autoscale,
        };
        put_template(&mut made, caller, new.template);
        check(&made)?;
        self.transact(|tx| {
            tx.raw().count(&caller.project.to_string(), COUNTER, 1, Some(DEPLOYMENTS_MAX));
            self.charge(tx, caller.project, &[(Resource::TemplateKib, made.template_kib.into())]);
            tx.create(&made);
            Ok(made.clone())
        })
        .await
    }

    /// Changes a deployment. Nothing is written where nothing differs.
    ///
    /// # Errors
    /// As [`Self::create_deployment`], and `not_found`.
    pub async fn change_deployment(
        &self,
        caller: &Caller,
        reference: &str,
        change: &DeploymentChange,
    ) -> Result<Deployment> {
        self.change_in::<Deployment>(caller, reference, |tx, next| {
            if change.replicas.is_some() && change.template.is_none() && next.autoscale.is_some() {
                let message = format!("{} is scaled by what it uses", next.reference());
                return Err(Error::new(Code::Conflict, message)
                    .field("replicas")
                    .hint("change minReplicas and maxReplicas in its file and play it"));
            }
            if let Some(rule) = change.autoscale {
                if rule.is_none() {
                    // As many stay as the rule had come to.
                    next.replicas = self.wanted_copies(next);
                }
                next.autoscale = rule;
            }
            next.replicas = change.replicas.unwrap_or(next.replicas);
            next.restarted_at = change.restarted_at.or(next.restarted_at);
            if let Some(text) = &change.description {
                next.meta.description.clone_from(text);
            }
            if let Some(template) = &change.template {
                let is_same = self.open_template(next).is_ok_and(|bytes| bytes == template.bytes);
                if !is_same {
                    next.template = self.seal_template(next.meta.id, template)?;
                }
                let before = i64::from(next.template_kib);
                put_template(next, caller, template.clone());
                let more = i64::from(next.template_kib) - before;
                self.charge(tx, next.meta.project, &[(Resource::TemplateKib, more)]);
            }
            if change.replicas.is_some() || change.autoscale.is_some() {
                // More copies are made with the rights of who asked for them.
                next.by_admin &= caller.role == Role::Admin;
            }
            check(next)
        })
        .await
    }

    /// Removes a deployment. Its copies stay, as instances like others.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn delete_deployment(&self, caller: &Caller, reference: &str) -> Result<()> {
        self.transact(|tx| {
            let found = self.find_own::<Deployment>(caller, reference, "deleting a deployment")?;
            let project = found.record.meta.project;
            tx.raw().count(&project.to_string(), COUNTER, -1, None);
            self.charge(tx, project, &[(Resource::TemplateKib, -i64::from(found.record.template_kib))]);
            tx.raw().remove::<DeploymentStatus>(&found.record.meta.id.to_string());
            tx.raw().remove::<DeploymentScale>(&found.record.meta.id.to_string());
            tx.delete(&found);
            Ok(())
        })
        .await
    }

    /// Removes what a project has of them.
    pub(crate) async fn drop_deployments(&self, caller: &Caller, project: ProjectId) -> Result<()> {
        for id in self.deployments_of(project) {
            self.delete_deployment(caller, &id.to_string()).await?;
        }
        Ok(())
    }

    /// What was last said of a deployment.
    pub fn deployment_status(&self, id: DeploymentId) -> Option<Arc<Stored<DeploymentStatus>>> {
        self.store.get::<DeploymentStatus>(&id.to_string())
    }

    /// What the rule of a deployment has come to.
    pub fn deployment_scale(&self, id: DeploymentId) -> Option<Arc<Stored<DeploymentScale>>> {
        self.store.get::<DeploymentScale>(&id.to_string())
    }

    /// Copies that are wanted of a deployment now.
    pub fn wanted_copies(&self, deployment: &Deployment) -> u32 {
        let scale = self.deployment_scale(deployment.meta.id);
        deployment.wanted(scale.as_ref().map(|scale| &scale.record))
    }

    /// Deployments of a project.
    pub fn deployments_of(&self, project: ProjectId) -> Vec<DeploymentId> {
        let all = self.store.by_index(&by_project::<Deployment>(), &project.to_string());
        all.iter().map(|found| found.record.meta.id).collect()
    }

    /// The deployment that an instance is a copy of.
    pub fn deployment_of(&self, instance: &Instance) -> Option<DeploymentId> {
        let object = instance.meta.labels.get(model::deployment::OBJECT_LABEL)?;
        let all = self.store.by_index(&by_project::<Deployment>(), &instance.meta.project.to_string());
        all.iter().find(|found| found.record.reference() == *object).map(|found| found.record.meta.id)
    }

    /// How many copies there are, and of what use they are.
    pub fn count_copies(&self, deployment: &Deployment) -> Counts {
        let status = self.deployment_status(deployment.meta.id);
        let none = BTreeMap::new();
        let copies = self.copies(deployment, status.as_ref().map_or(&none, |status| &status.record.leaving));
        let current = copies.iter().filter(|(copy, _)| copy.is_current && copy.stand == Stand::There);
        let ready = current.clone().filter(|(copy, _)| copy.is_ready).count();
        Counts { all: copies.len(), current: current.count(), ready }
    }

    /// The copies of a deployment, as they are seen now. `leaving` are those that no name leads to any more.
    fn copies<T>(
        &self,
        deployment: &Deployment,
        leaving: &BTreeMap<model::id::InstanceId, T>,
    ) -> Vec<(Copy, Arc<Stored<Instance>>)> {
        let all = self.store.by_index(&INSTANCE_BY_OBJECT, &deployment.reference());
        let revision = deployment.wanted_revision();
        let own = all.into_iter().filter(|found| found.record.meta.project == deployment.meta.project);
        let copy = |found: Arc<Stored<Instance>>| {
            let instance = &found.record;
            let phase = self.phase(instance);
            let stand = match leaving.contains_key(&instance.meta.id) {
                _ if phase == Phase::Deleting || instance.remove_on_exit => Stand::Going,
                true => Stand::Leaving,
                false => Stand::There,
            };
            let is_ready = match phase {
                Phase::Running => self.is_ready(instance).unwrap_or(true),
                Phase::Exited => true,
                _ => false,
            };
            let copy = Copy {
                id: instance.meta.id,
                number: number_of(instance.meta.name.as_str()),
                is_current: instance.meta.labels.get(REVISION_LABEL) == Some(&revision),
                stand,
                is_ready,
            };
            (copy, found)
        };
        own.map(copy).collect()
    }

    fn seal_template(&self, id: DeploymentId, template: &Template) -> Result<Sealed> {
        if template.bytes.len() > TEMPLATE_BYTES_MAX {
            let message = format!(
                "a template of {} bytes: at most {TEMPLATE_BYTES_MAX} are kept",
                template.bytes.len()
            );
            return Err(Error::new(Code::TooLarge, message)
                .field("template")
                .hint("put what is large on a volume or into an image"));
        }
        let Some(key) = &self.seal_key else {
            let message = "this holm has no key to seal templates with";
            return Err(Error::new(Code::Unsupported, message).field("template"));
        };
        Ok(key.seal(rand::random(), id.to_string().as_bytes(), &template.bytes))
    }

    /// The template of a deployment, as the door gave it.
    fn open_template(&self, deployment: &Deployment) -> Result<Vec<u8>> {
        let key = self.seal_key.as_ref();
        let opened = key
            .and_then(|key| key.open(deployment.meta.id.to_string().as_bytes(), &deployment.template).ok());
        opened.ok_or_else(|| {
            let message =
                format!("the template of {} does not open with this cloud's key", deployment.reference());
            Error::new(Code::Unavailable, message).hint("play its file again")
        })
    }
}

/// Number at the end of a copy's name; the highest of all where there is none.
fn number_of(name: &str) -> u32 {
    name.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
}

fn put_template(deployment: &mut Deployment, caller: &Caller, template: Template) {
    // No longer than TEMPLATE_BYTES_MAX: it is sealed already.
    deployment.template_kib = template.bytes.len().div_ceil(1024) as u32;
    deployment.revision = template.revision;
    deployment.recreate = template.recreate;
    deployment.is_single = template.is_single;
    deployment.aliases = template.aliases;
    deployment.by_admin = caller.role == Role::Admin;
}

fn check(deployment: &Deployment) -> Result<()> {
    let revision = &deployment.revision;
    if !(REVISION_CHARS_MIN..=REVISION_CHARS_MAX).contains(&revision.len())
        || !revision.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
    {
        let message = format!(
            "a revision has {REVISION_CHARS_MIN} to {REVISION_CHARS_MAX} small letters and digits, not {revision:.40?}"
        );
        return Err(Error::invalid("revision", message));
    }
    let most = if deployment.kind == Kind::DaemonSet { 1 } else { COPIES_MAX };
    if deployment.replicas > most {
        let message =
            format!("{} copies: a {} has at most {most}", deployment.replicas, deployment.kind.as_str());
        return Err(Error::invalid("replicas", message));
    }
    if let Some(rule) = &deployment.autoscale {
        if deployment.kind == Kind::DaemonSet {
            return Err(Error::invalid("autoscale", "a daemonset has one copy for each host"));
        }
        rule.check().map_err(|(field, why)| Error::invalid(&format!("autoscale.{field}"), why))?;
    }
    let most = deployment.autoscale.map_or(deployment.replicas, |rule| rule.replicas_max);
    if deployment.is_single && most > 1 {
        let message = format!(
            "{} holds a volume or a port of the host, which one copy alone can have",
            deployment.reference()
        );
        return Err(Error::invalid("replicas", message)
            .hint("ask for one copy, or leave the volume and the port out"));
    }
    Ok(())
}
