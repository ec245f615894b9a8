//! Server groups: made and deleted here, kept where instances are placed.

use crate::{Caller, Control, Error, Result, Role, schema::INSTANCE_BY_SERVER_GROUP, transact::Transaction};
use model::{
    error::Code,
    id::{NodeId, ServerGroupId, UserId},
    instance::Instance,
    meta::{Labels, Meta},
    server_group::{GROUPS_MAX, MEMBERS_MAX, Policy, ServerGroup},
};
use std::sync::Arc;
use store::Stored;

/// A server group to be made.
#[derive(Debug, Clone)]
pub struct NewServerGroup {
    /// Name; made from the id when empty, where names may be shared.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// How its members are placed.
    pub policy: Policy,
    /// Most members on one host, for anti-affinity alone; 1 when `None`.
    pub per_host_max: Option<u32>,
    /// User who makes it, where one is known.
    pub user: Option<UserId>,
}

impl Control {
    /// Makes a server group.
    ///
    /// # Errors
    /// `invalid`, `taken`, `quota_exceeded`, `forbidden`.
    pub async fn create_server_group(&self, caller: &Caller, new: NewServerGroup) -> Result<ServerGroup> {
        caller.require(Role::Member, "creating a server group")?;
        if let Some(most) = new.per_host_max {
            if new.policy != Policy::AntiAffinity {
                let message =
                    format!("a most per host is for anti-affinity, not for {}", new.policy.as_str());
                return Err(Error::invalid("per_host_max", message));
            }
            if most == 0 {
                return Err(Error::invalid("per_host_max", "at least one member has to fit on a host"));
            }
        }
        let id = ServerGroupId::from_random(rand::random());
        let name = self.name_asked(&new.name, "group", &id.short())?;
        let mut meta = Meta::new(id, caller.project, name, self.now());
        meta.description.clone_from(&new.description);
        meta.labels.clone_from(&new.labels);
        let group = ServerGroup { meta, user: new.user, policy: new.policy, per_host_max: new.per_host_max };
        self.transact(|tx| {
            self.count_one_more::<ServerGroup>(tx, caller, GROUPS_MAX)?;
            tx.create(&group);
            Ok(group.clone())
        })
        .await
    }

    /// Removes a server group. Its members stay where they are.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn delete_server_group(
        &self,
        caller: &Caller,
        reference: &str,
    ) -> Result<Arc<Stored<ServerGroup>>> {
        self.transact(|tx| {
            let found = self.find_own::<ServerGroup>(caller, reference, "deleting a server group")?;
            self.count_one_less::<ServerGroup>(tx, found.record.meta.project);
            tx.delete(&found);
            Ok(found)
        })
        .await
    }

    /// Instances of a server group, oldest first.
    pub fn members_of_server_group(&self, id: ServerGroupId) -> Vec<Arc<Stored<Instance>>> {
        let mut all = self.store.by_index(&INSTANCE_BY_SERVER_GROUP, &id.to_string());
        all.retain(|i| !i.record.meta.is_deleting());
        all.sort_by_key(|i| i.record.meta.created_at);
        all
    }

    /// The group that a new instance is to be in. Whoever joins changes the group's record, so that of two who join at
    /// once the second is decided on where the first one went.
    pub(crate) fn join_server_group(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        reference: &str,
    ) -> Result<Arc<Stored<ServerGroup>>> {
        let found = self
            .find_own::<ServerGroup>(caller, reference, "using a server group")
            .map_err(|e| e.field("server_group"))?;
        if self.members_of_server_group(found.record.meta.id).len() >= MEMBERS_MAX {
            let message =
                format!("server group {} has {MEMBERS_MAX} instances, no more fit", found.record.meta.name);
            return Err(Error::new(Code::QuotaExceeded, message).hint("make another group"));
        }
        let mut next = found.record.clone();
        next.meta.generation += 1;
        tx.update(&found, &next);
        Ok(found)
    }

    /// Hosts of a group's members, one for each.
    pub(crate) fn hosts_of_server_group(&self, group: &ServerGroup) -> Vec<NodeId> {
        let members = self.members_of_server_group(group.meta.id);
        members.iter().filter_map(|member| member.record.node).collect()
    }
}
