//! Quotas: limits of projects, counted in the transaction that makes or removes what is counted.

use crate::{Caller, Control, Error, Result, Role, resolve::Noun, transact::Transaction};
use model::{
    error::Code,
    id::ProjectId,
    project::Project,
    quota::{Exceeded, Limits, Resource, Usage},
};
use store::{Counter, Revision};

impl Control {
    /// Adds to (or takes from) a project's counts in the same transaction; the commit refuses what exceeds a limit.
    pub fn charge(&self, tx: &mut Transaction, project: ProjectId, change: &[(Resource, i64)]) {
        let found = self.get::<Project>(project);
        if change.iter().any(|(_, delta)| *delta > 0) {
            self.expect_project(tx, project);
        }
        let limits = found.map(|p| p.record.limits.clone()).unwrap_or_default();
        for &(resource, delta) in change.iter().filter(|(_, delta)| *delta != 0) {
            tx.count(project, resource, delta, limits.of(resource));
        }
    }

    /// Nothing is made for a project that is gone, or goes at this moment.
    fn expect_project(&self, tx: &mut Transaction, project: ProjectId) {
        if tx.expect_there::<Project>(project) && self.get::<Project>(project).is_none() {
            tx.refuse(Error::new(Code::NotFound, format!("project {project} is no more")));
        }
    }

    /// Commits only if none of these counts of a project has changed since `seen`.
    pub(crate) fn expect_counts(
        &self,
        tx: &mut Transaction,
        project: ProjectId,
        seen: &[(Resource, Revision)],
    ) {
        for &(resource, revision) in seen {
            let key = store::counter_key(&project.to_string(), resource.as_str());
            match revision {
                Revision::ABSENT => tx.raw().expect_absent::<Counter>(&key),
                known => tx.raw().expect_unchanged::<Counter>(&key, known),
            };
        }
    }

    /// As which counts of a project are written now.
    pub(crate) fn counts_seen(&self, project: ProjectId, of: &[Resource]) -> Vec<(Resource, Revision)> {
        let revision = |resource: Resource| {
            let key = store::counter_key(&project.to_string(), resource.as_str());
            self.store.get::<Counter>(&key).map_or(Revision::ABSENT, |counter| counter.mod_revision)
        };
        of.iter().map(|resource| (*resource, revision(*resource))).collect()
    }

    /// Counts one more of a noun of which every project has few, whatever its quotas.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub(crate) fn count_one_more<R: Noun>(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        max: u64,
    ) -> Result<()> {
        if self.list_own::<R>(caller).len() as u64 >= max {
            let message = format!("a project has at most {max} {}s", R::WORD);
            return Err(Error::new(Code::QuotaExceeded, message).hint("delete one that is not needed"));
        }
        self.expect_project(tx, caller.project);
        tx.raw().count(&caller.project.to_string(), &few::<R>(), 1, Some(max));
        Ok(())
    }

    /// Counts one less.
    pub(crate) fn count_one_less<R: Noun>(&self, tx: &mut Transaction, project: ProjectId) {
        tx.raw().count(&project.to_string(), &few::<R>(), -1, None);
    }

    /// Limits and counts of a project.
    pub fn quota(&self, project: ProjectId) -> (Limits, Usage) {
        let limits = self.get::<Project>(project).map(|p| p.record.limits.clone()).unwrap_or_default();
        let mut usage = Usage::empty(project);
        for resource in Resource::ALL {
            let key = store::counter_key(&project.to_string(), resource.as_str());
            if let Some(counter) = self.store.get::<Counter>(&key) {
                usage.used.insert(resource, counter.record.used);
            }
        }
        (limits, usage)
    }

    /// Changes limits of a project; `None` lifts a limit.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn set_quota(
        &self,
        caller: &Caller,
        project: &str,
        limits: &[(Resource, Option<u64>)],
    ) -> Result<Limits> {
        caller.require(Role::Admin, "changing a quota")?;
        self.transact(|tx| {
            let found = self.find_project(caller, project)?;
            let mut next = found.record.clone();
            next.limits.0.extend(limits.iter().copied());
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next.limits)
        })
        .await
    }
}

/// Name of the counter of a noun of which a project has few.
fn few<R: Noun>() -> String {
    format!("{}s", R::TABLE)
}

/// The refusal of a request that exceeds a limit, with the way out.
pub(crate) fn explain(exceeded: Exceeded) -> Error {
    let noun = exceeded.resource.as_str().replace('_', "-");
    let way_out = match exceeded.resource {
        Resource::Instances | Resource::Vcpus | Resource::MemoryMib => {
            "delete or shrink an instance (`holm ls`)".to_string()
        }
        Resource::VolumeGib => "delete a volume (`holm volume list`)".to_string(),
        Resource::Backups => "delete some of them (`holm image list`)".to_string(),
        Resource::SecurityGroupRules => {
            "remove some of them (`holm security-group rule list GROUP`)".to_string()
        }
        Resource::TemplateKib => {
            "put what is large on a volume or into an image, or take Deployments down (`holm kube get`)"
                .to_string()
        }
        _ => format!("delete some of them (`holm {} list`)", noun.trim_end_matches('s')),
    };
    Error::new(Code::QuotaExceeded, &exceeded)
        .field(exceeded.resource.as_str())
        .hint(format!("{way_out}, or ask an admin for `holm quota set PROJECT {noun}=N`"))
}
