//! Bringing a deployment to as many copies as are wanted: a run gets its key, looks at what is there, and does what
//! [`model::deployment::next`] says.
//!
//! ```text
//!   names of those that stay ──► those that are retired: no name leads to them ──► those whose time has come: asked to end
//!                                                                              └──► what is missing: made
//! ```
//! A copy is made in one transaction, which also holds that the deployment is still what it was when the run began; its name
//! is taken in the same transaction. So whatever is cut off and wherever, a run that follows makes nothing twice, and what was
//! deleted or changed meanwhile gets no copy more.

use super::Translate;
use crate::{
    Caller, Control, Error, Proof, Result, Role, instance::action, port::PortChange, schema::by_name,
};
use jiff::{SignedDuration, Timestamp};
use model::{
    deployment::{
        COPIES_MAX, Deployment, DeploymentStatus, OBJECT_LABEL, REVISION_LABEL, Stand, free_numbers, next,
    },
    error::{Code, Fault},
    id::DeploymentId,
    instance::{Instance, Power, phase::Phase},
    kube::service::PODS,
    operation::Subject,
    port::Port,
};
use std::{sync::Arc, time::Duration};
use store::Stored;

/// How long a name may lead to a copy after it was taken out: twice what DNS answers are kept for.
const FORGET_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// How long what is under way to a copy may take to arrive after its Service's address stopped leading there.
const ARRIVE_PAUSE: SignedDuration = SignedDuration::from_secs(3);

impl Control {
    /// Does what there is to do for a deployment. Tells when to look again, where that is known.
    ///
    /// # Errors
    /// What keeps a copy from being made or removed; it is part of the status then.
    pub async fn reconcile_deployment(
        &self,
        id: DeploymentId,
        translate: &Translate,
    ) -> Result<Option<Duration>> {
        let Some(found) = self.get::<Deployment>(id) else { return Ok(None) };
        let mut status = self
            .deployment_status(id)
            .map_or_else(|| DeploymentStatus::new(id), |status| status.record.clone());
        let outcome = self.bring_about(&found, &mut status, translate).await;
        let is_same = |now: Arc<Stored<Deployment>>| now.mod_revision == found.mod_revision;
        if !self.get::<Deployment>(id).is_some_and(is_same) {
            // It is another one now: what was refused was refused to the one before.
            return Ok(Some(Duration::ZERO));
        }
        status.generation = found.record.meta.generation;
        self.note_fault(&found.record, &mut status, outcome.as_ref().err()).await;
        self.write_status(&found, status).await?;
        outcome
    }

    async fn bring_about(
        &self,
        found: &Arc<Stored<Deployment>>,
        status: &mut DeploymentStatus,
        translate: &Translate,
    ) -> Result<Option<Duration>> {
        let deployment = &found.record;
        let copies = self.copies(deployment, &status.leaving);
        status.leaving.retain(|id, _| copies.iter().any(|(copy, _)| copy.id == *id));
        let seen: Vec<_> = copies.iter().map(|(copy, _)| copy.clone()).collect();
        let next = next(self.wanted_copies(deployment) as usize, deployment.recreate, &seen);
        let caller = deployer(deployment);
        let (mut again, mut refused, mut told) = (None::<Duration>, None, vec![]);
        for (copy, instance) in &copies {
            let is_retired = copy.stand == Stand::Leaving || next.retire.contains(&copy.id);
            let done = match copy.stand {
                Stand::Going => continue,
                _ if is_retired => self.retire(&caller, deployment, &instance.record, status).await,
                _ if copy.is_current => {
                    self.lead_names(&caller, &instance.record, deployment).await.map(|()| None)
                }
                _ => continue,
            };
            match done {
                Ok(None) => {}
                Ok(Some(Retired::Ends)) => {
                    told.push(format!("{} is asked to end", instance.record.meta.name))
                }
                Ok(Some(Retired::Waits(wait))) => again = Some(again.map_or(wait, |other| other.min(wait))),
                // Somebody deleted it meanwhile.
                Err(_) if !self.is_there(&instance.record) => {}
                Err(error) => refused = Some(error),
            }
        }
        let named: Vec<String> = copies.iter().map(|(_, it)| it.record.meta.name.to_string()).collect();
        let made = self.make_copies(found, &caller, (next.make, &named), translate).await;
        told.extend(made.names.iter().map(|name| format!("{name} is made")));
        if !told.is_empty() {
            let message = format!("{}: {}", deployment.reference(), told.join(", "));
            self.note_event(Some(deployment.meta.project), subject(deployment), "scaled", &message, false)
                .await;
        }
        made.refused.or(refused).map_or(Ok(again), Err)
    }

    fn is_there(&self, instance: &Instance) -> bool {
        self.get::<Instance>(instance.meta.id).is_some_and(|now| !now.record.meta.is_deleting())
    }

    /// Takes a copy out of what leads to it, and asks it to end once that had its time.
    async fn retire(
        &self,
        caller: &Caller,
        deployment: &Deployment,
        instance: &Instance,
        status: &mut DeploymentStatus,
    ) -> Result<Option<Retired>> {
        // Whoever locked it did not mean it to go because others are not wanted any more: not for a deployment of an admin's
        // either.
        action::refuse_locked(&Caller { role: Role::Member, ..caller.clone() }, instance)?;
        let due = self.take_out(caller, deployment, instance, status).await?;
        let now = self.now();
        if due > now {
            return Ok(Some(Retired::Waits(due.duration_since(now).unsigned_abs())));
        }
        self.end_copy(caller, instance).await?;
        Ok(Some(Retired::Ends))
    }

    /// Makes so many copies under the lowest numbers that nobody has, until one is refused. `named` are the names of those
    /// that were seen: whoever made others meanwhile took numbers that are tried here too, and so makes no copy too many.
    async fn make_copies(
        &self,
        found: &Stored<Deployment>,
        caller: &Caller,
        (count, named): (usize, &[String]),
        translate: &Translate,
    ) -> Made {
        let mut made = Made { names: vec![], refused: None };
        if count == 0 {
            return made;
        }
        let deployment = &found.record;
        let template = match self.open_template(deployment) {
            Ok(template) => template,
            Err(error) => return Made { refused: Some(error), ..made },
        };
        let name = |number: u32| format!("{}{number}", deployment.stem());
        let is_taken = |number: u32| {
            let all = self.store.by_index(&by_name::<Instance>(), &name(number));
            let is_foreign = |other: &Instance| {
                other.meta.project == deployment.meta.project
                    && other.meta.labels.get(OBJECT_LABEL) != Some(&deployment.reference())
            };
            named.contains(&name(number)) || all.iter().any(|other| is_foreign(&other.record))
        };
        for number in free_numbers(count.min(COPIES_MAX as usize), is_taken) {
            let name = name(number);
            let outcome = async {
                let mut new = translate(self, caller, &template, &name)?;
                new.name.clone_from(&name);
                new.labels.insert(OBJECT_LABEL.to_string(), deployment.reference());
                new.labels.insert(REVISION_LABEL.to_string(), deployment.wanted_revision());
                self.create_instance_for(caller, new, found).await
            };
            match outcome.await {
                Ok(_) => made.names.push(name),
                Err(error) => return Made { refused: Some(error), ..made },
            }
        }
        made
    }

    /// Takes a copy out of all names that lead to it. Gives when it may be asked to end: what knows its address by then has
    /// had its time. Noted only after the names are gone, so whoever is cut off in between begins anew.
    async fn take_out(
        &self,
        caller: &Caller,
        deployment: &Deployment,
        instance: &Instance,
        status: &mut DeploymentStatus,
    ) -> Result<Timestamp> {
        let ports = self.ports_of(instance.ports.get(..1).unwrap_or_default());
        let aliases = ports.first().map(|port| port.aliases.clone()).unwrap_or_default();
        let known = status.leaving.get(&instance.meta.id).copied();
        if let (Some(due), true) = (known, aliases.is_empty()) {
            return Ok(due);
        }
        // Names that a run before this one took away, and did not come to note.
        let led = if aliases.is_empty() { &deployment.aliases } else { &aliases };
        let pause = match led.iter().all(|alias| alias.as_str().ends_with(PODS)) {
            _ if led.is_empty() || deployment.recreate => SignedDuration::ZERO,
            true => ARRIVE_PAUSE,
            false => FORGET_PAUSE,
        };
        if let Some(port) = ports.first().filter(|port| !port.aliases.is_empty()) {
            self.set_names(caller, port, vec![]).await?;
        }
        let due = self.now() + pause;
        status.leaving.insert(instance.meta.id, due);
        Ok(due)
    }

    /// Gives a copy the names that lead to its deployment's copies, where it has others.
    async fn lead_names(&self, caller: &Caller, instance: &Instance, deployment: &Deployment) -> Result<()> {
        let ports = self.ports_of(instance.ports.get(..1).unwrap_or_default());
        match ports.first().filter(|port| port.aliases != deployment.aliases) {
            Some(port) => self.set_names(caller, port, deployment.aliases.clone()).await,
            None => Ok(()),
        }
    }

    async fn set_names(
        &self,
        caller: &Caller,
        port: &Port,
        names: Vec<model::port::alias::Alias>,
    ) -> Result<()> {
        let edit = |port: &mut Port| {
            port.aliases.clone_from(&names);
            Ok(())
        };
        let id = port.meta.id.to_string();
        self.update_port(caller, &id, &PortChange::default(), edit).await.map(drop)
    }

    /// Asks a copy to end, with its hooks and within its grace period; it goes by itself then. One that does not run goes at
    /// once.
    async fn end_copy(&self, caller: &Caller, instance: &Instance) -> Result<()> {
        let id = instance.meta.id.to_string();
        let ended = match self.phase(instance) {
            Phase::Running => {
                let end = |next: &mut Instance| {
                    (next.remove_on_exit, next.power, next.hard) = (true, Power::Off, false);
                    Ok(())
                };
                self.update_instance(caller, &id, end).await
            }
            _ => self.delete_instance(caller, &id).await,
        };
        match ended {
            Err(error) if error.code != Code::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Puts what was refused into the status, and tells it once as an event.
    async fn note_fault(
        &self,
        deployment: &Deployment,
        status: &mut DeploymentStatus,
        error: Option<&Error>,
    ) {
        let Some(error) = error else {
            status.fault = None;
            return;
        };
        let before = status.fault.as_ref();
        let is_new = before.is_none_or(|fault| fault.code != error.code);
        let since = before.filter(|_| !is_new).map_or_else(|| self.now(), |fault| fault.since);
        let (code, message, hint) = (error.code, error.message.clone(), error.hint.clone());
        if is_new {
            let message = format!("{} has not the copies it is to have: {message}", deployment.reference());
            self.note_event(Some(deployment.meta.project), subject(deployment), "refused", &message, true)
                .await;
        }
        status.fault = Some(Fault { code, message, hint, since });
    }

    /// Writes the status where it differs, as long as its deployment is there.
    async fn write_status(&self, found: &Stored<Deployment>, status: DeploymentStatus) -> Result<()> {
        let id = found.record.meta.id;
        if self.deployment_status(id).is_some_and(|before| before.record == status) {
            return Ok(());
        }
        self.transact(|tx| {
            let Some(now) = self.get::<Deployment>(id) else { return Ok(()) };
            tx.expect(&now);
            tx.raw().put(&status);
            Ok(())
        })
        .await
    }
}

/// How far a copy that is not wanted any more has come.
enum Retired {
    /// What knows its address has so long left.
    Waits(Duration),
    /// It was asked to end.
    Ends,
}

/// What came of making copies.
struct Made {
    names: Vec<String>,
    refused: Option<Error>,
}

/// Who makes the copies: holm, with the rights of who asked for the deployment.
fn deployer(deployment: &Deployment) -> Caller {
    Caller {
        project: deployment.meta.project,
        role: if deployment.by_admin { Role::Admin } else { Role::Member },
        actor: deployment.reference(),
        request_id: String::new(),
        proof: Proof::Peer,
    }
}

fn subject(deployment: &Deployment) -> Subject {
    Subject { noun: "deployment".into(), id: deployment.meta.id.to_string() }
}
