//! Deployments that are scaled by what their copies use: what is wanted of them is worked out here, and brought about by the
//! reconcile like any other number.

use crate::{Control, Result};
use model::{
    deployment::{
        Deployment, Stand,
        autoscale::{DeploymentScale, Past},
    },
    id::{DeploymentId, InstanceId},
    instance::Instance,
    operation::Subject,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use store::Stored;

/// What was recommended for each deployment, kept in memory: after a start of holm there are not fewer copies before the window
/// has passed anew.
pub type Pasts = HashMap<DeploymentId, Past>;

impl Control {
    /// Copies whose use counts for a deployment's rule: those of the current revision that stay. Each with whether it is
    /// ready; empty where there is no rule.
    pub fn copies_measured(&self, deployment: &Deployment) -> Vec<(bool, Arc<Stored<Instance>>)> {
        if deployment.autoscale.is_none() {
            return vec![];
        }
        let status = self.deployment_status(deployment.meta.id);
        let none = BTreeMap::new();
        let all = self.copies(deployment, status.as_ref().map_or(&none, |status| &status.record.leaving));
        let stays = all.into_iter().filter(|(copy, _)| copy.is_current && copy.stand == Stand::There);
        stays.map(|(copy, instance)| (copy.is_ready, instance)).collect()
    }

    /// Works out how many copies of a deployment there are to be, given what each of them uses in thousandths of a CPU.
    ///
    /// # Errors
    /// The store's. Called again it goes on.
    pub async fn autoscale_deployment(
        &self,
        id: DeploymentId,
        used: &HashMap<InstanceId, u64>,
        pasts: &mut Pasts,
    ) -> Result<()> {
        let Some(found) = self.get::<Deployment>(id) else {
            pasts.remove(&id);
            return Ok(());
        };
        let deployment = &found.record;
        let Some(rule) = deployment.autoscale else {
            pasts.remove(&id);
            return self.write_scale(id, None).await;
        };
        let copies = self.copies_measured(deployment);
        let used: Vec<Option<u64>> = copies
            .iter()
            .map(|(is_ready, copy)| used.get(&copy.record.meta.id).copied().filter(|_| *is_ready))
            .collect();
        let current = self.wanted_copies(deployment);
        let (Some(recommended), Some(used_percent)) =
            (rule.recommend(current, &used), rule.used_percent(&used))
        else {
            return Ok(());
        };
        let replicas = rule.decide(pasts.entry(id).or_default(), current, recommended, self.now());
        self.write_scale(id, Some(DeploymentScale { id, replicas, used_percent })).await?;
        if replicas != current {
            let message = format!(
                "{}: {replicas} copies instead of {current}, which use {used_percent} % of the CPU that they ask for; {} % is wanted",
                deployment.reference(),
                rule.cpu_percent
            );
            let subject = Subject { noun: "deployment".into(), id: id.to_string() };
            self.note_event(Some(deployment.meta.project), subject, "autoscaled", &message, false).await;
        }
        Ok(())
    }

    /// Writes what a rule has come to where it differs, as long as its deployment is there; nothing stays where there is no
    /// rule.
    async fn write_scale(&self, id: DeploymentId, scale: Option<DeploymentScale>) -> Result<()> {
        if self.deployment_scale(id).map(|before| before.record.clone()) == scale {
            return Ok(());
        }
        self.transact(|tx| {
            let Some(found) = self.get::<Deployment>(id) else { return Ok(()) };
            tx.expect(&found);
            match (&scale, &found.record.autoscale) {
                (Some(scale), Some(_)) => tx.raw().put(scale),
                _ => tx.raw().remove::<DeploymentScale>(&id.to_string()),
            };
            Ok(())
        })
        .await
    }
}
