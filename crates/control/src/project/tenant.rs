//! Projects as those who manage identities see them: of a domain, and bare when they are new.

use crate::{
    Control, Error, Result,
    access::{Realm, missing},
    domain::parse_name,
    finalize::system_caller,
    session::Session,
};
use model::{
    domain::Domain,
    error::Code,
    id::{DomainId, ProjectId},
    meta::Labels,
    project::{Project, TAG_BYTES_MAX, TAGS_MAX},
};
use std::{collections::BTreeSet, sync::Arc};
use store::Stored;

/// What may be said of a project; what is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProjectChange {
    /// Name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Whether anybody may work in it.
    pub enabled: Option<bool>,
    /// Tags.
    pub tags: Option<BTreeSet<String>>,
}

impl ProjectChange {
    fn apply(&self, project: &mut Project) -> Result<()> {
        if let Some(name) = &self.name {
            project.meta.name = parse_name(name)?;
        }
        project.meta.description =
            self.description.clone().unwrap_or_else(|| project.meta.description.clone());
        project.enabled = self.enabled.unwrap_or(project.enabled);
        if let Some(tags) = &self.tags {
            check_tags(tags)?;
            project.tags = tags.clone();
        }
        Ok(())
    }
}

fn check_tags(tags: &BTreeSet<String>) -> Result<()> {
    if tags.len() > TAGS_MAX {
        return Err(Error::invalid("tags", format!("a project has at most {TAGS_MAX} tags")));
    }
    let is_wrong = |tag: &&String| tag.is_empty() || tag.len() > TAG_BYTES_MAX || tag.contains(['/', ',']);
    match tags.iter().find(is_wrong) {
        Some(tag) => Err(Error::invalid("tags", format!("{tag:?} cannot be a tag"))),
        None => Ok(()),
    }
}

impl Control {
    /// The projects of all domains that the session looks at.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn tenants(&self, asker: &Session, domain: Option<DomainId>) -> Result<Vec<Arc<Stored<Project>>>> {
        self.check_looks(asker, domain, "identity:list_projects")?;
        let mut all = self.store.list::<Project>();
        all.retain(|p| asker.looks(Realm::Domain(p.record.domain)));
        all.retain(|p| domain.is_none_or(|d| p.record.domain == d));
        all.sort_by(|a, b| a.record.meta.name.cmp(&b.record.meta.name));
        Ok(all)
    }

    /// A project that the session may see: its own, or one of a domain that it looks at.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub fn tenant_for(&self, asker: &Session, id: &str, rule: &str) -> Result<Arc<Stored<Project>>> {
        let found = id.parse::<ProjectId>().ok().and_then(|id| self.get::<Project>(id));
        let realm = found.as_ref().map_or(Realm::Cloud, |p| Realm::Domain(p.record.domain));
        let own = asker.project().map(|p| p.record.meta.id);
        let is_own = found.as_ref().is_some_and(|p| Some(p.record.meta.id) == own);
        asker.allow(is_own || asker.looks(realm), rule)?;
        found.ok_or_else(|| missing("project", id))
    }

    /// Makes a project with nothing but its default security group: OpenStack's tools make their own networks.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `taken`.
    pub async fn create_tenant(
        &self,
        asker: &Session,
        domain: DomainId,
        wish: &ProjectChange,
    ) -> Result<Project> {
        asker.allow(asker.manages(Realm::Domain(domain)), "identity:create_project")?;
        let name = wish.name.as_deref().ok_or_else(|| Error::invalid("name", "a project needs a name"))?;
        let id = ProjectId::from_random(rand::random());
        let mut project = Project::new(id, parse_name(name)?, Labels::new(), self.now());
        project.domain = domain;
        wish.apply(&mut project)?;
        self.transact(|tx| {
            self.require_domain(domain)?;
            tx.create(&project);
            tx.raw().expect_exists::<Domain>(&domain.to_string());
            self.add_default_group(tx, id);
            Ok(project.clone())
        })
        .await
    }

    /// Changes a project.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid`, `taken`.
    pub async fn change_tenant(&self, asker: &Session, id: &str, wish: &ProjectChange) -> Result<Project> {
        let rule = "identity:update_project";
        self.transact(|tx| {
            let found = self.tenant_for(asker, id, rule)?;
            asker.allow(asker.manages(Realm::Domain(found.record.domain)), rule)?;
            let mut next = found.record.clone();
            wish.apply(&mut next)?;
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// Changes the tags of a project.
    ///
    /// # Errors
    /// As [`Self::change_tenant`].
    pub async fn change_tags(
        &self,
        asker: &Session,
        id: &str,
        change: impl Fn(&mut BTreeSet<String>),
    ) -> Result<Project> {
        let found = self.tenant_for(asker, id, "identity:update_project_tags")?;
        let mut tags = found.record.tags.clone();
        change(&mut tags);
        self.change_tenant(asker, id, &ProjectChange { tags: Some(tags), ..ProjectChange::default() }).await
    }

    /// Removes a project with its networks, roles and credentials.
    ///
    /// # Errors
    /// `in_use` while it has instances, volumes, floating IPs or images; `forbidden`, `not_found`.
    pub async fn delete_tenant(&self, asker: &Session, id: &str) -> Result<()> {
        let rule = "identity:delete_project";
        let found = self.tenant_for(asker, id, rule)?;
        asker.allow(asker.manages(Realm::Domain(found.record.domain)), rule)?;
        self.remove_project(asker, &found).await
    }

    /// Removes a project for somebody whose right to do so is known.
    pub(crate) async fn remove_project(&self, asker: &Session, project: &Stored<Project>) -> Result<()> {
        let id = project.record.meta.id;
        if asker.project().is_some_and(|own| own.record.meta.id == id) {
            return Err(Error::new(Code::Forbidden, "A project cannot be deleted from inside."));
        }
        self.delete_project(&system_caller(id), &id.to_string()).await
    }
}
