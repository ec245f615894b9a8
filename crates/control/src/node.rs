//! Nodes: hosts of the cloud, and whether they take new instances.

use crate::{Caller, Control, Error, Result, Role};
use model::{
    error::Code,
    id::NodeId,
    node::{Node, NodeStatus},
};
use std::sync::Arc;
use store::{Stored, Tx};

impl Control {
    /// All hosts with what they tell of themselves.
    pub fn nodes(&self) -> Vec<(Arc<Stored<Node>>, Option<Arc<Stored<NodeStatus>>>)> {
        let mut all = self.store.list::<Node>();
        all.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        all.into_iter()
            .map(|node| {
                let status = self.store.get::<NodeStatus>(&node.record.id.to_string());
                (node, status)
            })
            .collect()
    }

    /// A host by name or id.
    ///
    /// # Errors
    /// `not_found`.
    pub fn find_node(&self, reference: &str) -> Result<Arc<Stored<Node>>> {
        let all = self.store.list::<Node>();
        all.into_iter()
            .find(|n| n.record.name.as_str() == reference || n.record.id.to_string() == reference)
            .ok_or_else(|| {
                Error::new(Code::NotFound, format!("no node {reference:?}"))
                    .hint("`holm node list` shows them")
            })
    }

    /// Adds this host to the cloud, or finds it there.
    ///
    /// # Errors
    /// `unavailable` when the store does not answer.
    pub async fn join_node(&self, id: NodeId, name: &str) -> Result<()> {
        if self.store.get::<Node>(&id.to_string()).is_some() {
            return Ok(());
        }
        let name = name.parse().map_err(|e| Error::invalid("name", e))?;
        let mut tx = Tx::new();
        tx.put(&Node { id, name, schedulable: true, created_at: self.now() });
        self.store.commit(tx).await.map(|_| ()).map_err(|e| Error::new(Code::Unavailable, e))
    }

    /// Lets a host take new instances or not.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn set_node_schedulable(
        &self,
        caller: &Caller,
        reference: &str,
        schedulable: bool,
    ) -> Result<Node> {
        caller.require(Role::Admin, "changing a node")?;
        let found = self.find_node(reference)?;
        let key = found.record.id.to_string();
        let changed = self.store.modify::<Node>(&key, |node| node.schedulable = schedulable).await;
        let stored = changed.map_err(|e| Error::new(Code::Unavailable, e))?;
        stored.map(|s| s.record.clone()).ok_or_else(|| Error::new(Code::NotFound, "the node is gone"))
    }
}
