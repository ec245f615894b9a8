//! Projects: tenants. A new one has its private network, router and default security group at once.

pub mod tenant;

pub use tenant::ProjectChange;

use crate::{
    Caller, Control, Error, Result, Role,
    network::Draft,
    schema::{by_name, by_project},
    transact::Transaction,
};
use model::{
    assignment::{Actor, Assignment, Target},
    error::Code,
    id::{DomainId, ProjectId},
    instance::Instance,
    meta::Labels,
    name::Name,
    network::Network,
    project::Project,
    quota::Resource,
};
use std::sync::Arc;
use store::Stored;

/// Range of a new project's own subnet. Projects may all use the same: they never meet.
pub const DEFAULT_CIDR_V4: &str = "10.0.0.0/24";

/// What keeps a project from being deleted.
const KEEPING: [Resource; 6] = [
    Resource::Instances,
    Resource::Volumes,
    Resource::FloatingIps,
    Resource::Images,
    Resource::Snapshots,
    Resource::Backups,
];

impl Control {
    /// The project that `reference` means, among those the caller may see.
    ///
    /// # Errors
    /// `not_found`.
    pub fn find_project(&self, caller: &Caller, reference: &str) -> Result<Arc<Stored<Project>>> {
        let by_id = reference.parse().ok().and_then(|id| self.get::<Project>(id));
        let named = self.store.by_index(&by_name::<Project>(), reference);
        let all: Vec<Arc<Stored<Project>>> =
            by_id.into_iter().chain(named).filter(|p| caller.sees(p.record.meta.id)).collect();
        // A name may be there once in each domain: the default domain's is meant, or the only one.
        let own = |p: &&Arc<Stored<Project>>| p.record.domain == DomainId::DEFAULT;
        let found: Vec<_> = all.iter().collect();
        match (found.iter().copied().find(own), found.as_slice()) {
            (Some(found), _) => return Ok(Arc::clone(found)),
            (None, [found]) => return Ok(Arc::clone(*found)),
            (None, []) => {}
            (None, several) => {
                let message = format!("{} projects of other domains are called {reference:?}", several.len());
                return Err(Error::new(Code::Conflict, message).hint("name it by its id"));
            }
        }
        let all = self.projects(caller);
        let names: Vec<&str> = all.iter().map(|p| p.record.meta.name.as_str()).collect();
        Err(crate::resolve::not_found::<Project>(reference, &names).field("project"))
    }

    /// Projects that the caller may see: all for admins, else their own.
    pub fn projects(&self, caller: &Caller) -> Vec<Arc<Stored<Project>>> {
        let mut all = self.store.mirror().list::<Project>();
        all.retain(|p| caller.sees(p.record.meta.id));
        all.sort_by(|a, b| a.record.meta.name.cmp(&b.record.meta.name));
        all
    }

    /// Makes a project with a network `default`, a subnet, a router to the default external network and a
    /// security group `default`. The cloud's first user is an admin in it, so that it can be worked in by every door.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `taken`.
    pub async fn create_project(
        &self,
        caller: &Caller,
        name: &str,
        description: &str,
        labels: Labels,
    ) -> Result<Project> {
        caller.require(Role::Admin, "creating a project")?;
        let name: Name = name.parse().map_err(|e| Error::invalid("name", e))?;
        let mut project = Project::new(ProjectId::from_random(rand::random()), name, labels, self.now());
        project.meta.description = description.to_string();
        self.transact(|tx| {
            self.add_project(tx, &project)?;
            self.admit_first_user(tx, project.meta.id);
            Ok(project.clone())
        })
        .await
    }

    fn admit_first_user(&self, tx: &mut Transaction, project: ProjectId) {
        let user = self.user_named(DomainId::DEFAULT, crate::user::ADMIN_USER);
        if let (Some(user), Some(role)) = (user, self.role_named(model::role::ADMIN)) {
            let actor = Actor::User(user.record.id);
            tx.raw().put(&Assignment { actor, target: Target::Project(project), role: role.record.id });
        }
    }

    /// Adds a project and all that it starts with to a transaction.
    ///
    /// # Errors
    /// `taken` at commit; `invalid` cannot happen with the built-in ranges.
    pub(crate) fn add_project(&self, tx: &mut Transaction, project: &Project) -> Result<()> {
        let id = project.meta.id;
        tx.create(project);
        self.add_default_group(tx, id);
        let draft = Draft::default_of(id, self.now());
        self.add_draft(tx, &draft)
    }

    /// Removes a project that has nothing left but what it started with.
    ///
    /// # Errors
    /// `in_use` with what is left, `forbidden`, `not_found`.
    pub async fn delete_project(&self, caller: &Caller, reference: &str) -> Result<()> {
        caller.require(Role::Admin, "deleting a project")?;
        let found = self.find_project(caller, reference)?;
        let id = found.record.meta.id;
        if id == caller.project && found.record.meta.name.as_str() == crate::bootstrap::ADMIN_PROJECT {
            return Err(Error::new(Code::Conflict, "the admin project cannot be deleted"));
        }
        self.refuse_leftovers(id)?;
        let inside = Caller { project: id, ..caller.clone() };
        self.drop_deployments(&inside, id).await?;
        self.remove_all_networking(&inside).await?;
        self.prune_steps(&inside, None).await?;
        self.transact(|tx| {
            let found = self.find_project(caller, reference)?;
            // Before they are judged: what is made meanwhile has it judged anew.
            let seen = self.counts_seen(id, &KEEPING);
            self.refuse_leftovers(id)?;
            self.expect_counts(tx, id, &seen);
            self.drop_groups(tx, id);
            self.drop_steps(tx, id);
            tx.delete(&found);
            Ok(())
        })
        .await?;
        // What is left of these after a crash means nothing: the id never comes back.
        self.drop_tokens(id).await?;
        self.drop_assignments(|a| a.target == Target::Project(id)).await?;
        self.drop_credentials(|c| c.project == id).await
    }

    fn refuse_leftovers(&self, id: ProjectId) -> Result<()> {
        let (_, usage) = self.quota(id);
        let left: Vec<String> = KEEPING
            .iter()
            .filter(|r| usage.of(**r) > 0)
            .map(|r| format!("{} {}", usage.of(*r), r.as_str().replace('_', " ")))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::InUse, format!("the project still has {}", left.join(", ")))
            .hint("delete these first; networks, keys and security groups go with the project"))
    }

    /// The project's own network: the one named `default`, else its only one.
    ///
    /// # Errors
    /// `invalid` when it cannot be told which network is meant.
    pub fn own_network(&self, caller: &Caller) -> Result<Arc<Stored<Network>>> {
        let all: Vec<_> =
            self.list_own::<Network>(caller).into_iter().filter(|n| n.record.external().is_none()).collect();
        let named = all.iter().find(|n| n.record.meta.name.as_str() == "default");
        match (named, all.as_slice()) {
            (Some(network), _) | (None, [network]) => Ok(Arc::clone(network)),
            (None, several) => Err(Error::invalid(
                "network",
                format!("the project has {} networks and none is called \"default\"", several.len()),
            )
            .hint("name one with --network")),
        }
    }

    /// Instances of a project, those that are going included.
    pub fn instances_of(&self, project: ProjectId) -> Vec<Arc<Stored<Instance>>> {
        self.store.by_index(&by_project::<Instance>(), &project.to_string())
    }
}
