//! Control's loop over deployments: each is brought to the copies that are wanted of it, whenever anything changes that these
//! depend on.

use control::Control;
use model::{
    deployment::{Deployment, autoscale::DeploymentScale},
    health::status::ContainerHealth,
    id::{DeploymentId, InstanceId, ProjectId},
    instance::{Instance, InstanceStatus},
    project::Project,
    record::Record,
};
use reconcile::{Backoff, Outcome, Runner};
use std::time::Duration;
use store::Store;
use tokio_util::sync::CancellationToken;

/// How long a deployment waits whose copies are refused: what is missing is seldom there a moment later.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30) };

/// Runs until holm stops.
pub async fn run(control: Control, stopping: CancellationToken) {
    let store = control.store().clone();
    let changes = store.subscribe();
    let (lister, worker, waker) = (store.clone(), control.clone(), control.clone());
    let runner = Runner::builder("deployments", move || all(&lister))
        .backoff(BACKOFF)
        .wake_by(changes, move |table, key| concerned(&waker, table, key))
        .spawn(move |id| {
            let control = worker.clone();
            async move {
                let again = control.reconcile_deployment(id, &api::v1::copy_asked).await?;
                Ok::<_, control::Error>(match again {
                    None => Outcome::Done,
                    Some(wait) if wait.is_zero() => Outcome::Again,
                    Some(wait) => Outcome::After(wait),
                })
            }
        });
    stopping.cancelled().await;
    runner.drain(Duration::from_secs(5)).await;
}

fn all(store: &Store) -> Vec<DeploymentId> {
    store.list::<Deployment>().iter().map(|found| found.record.meta.id).collect()
}

/// Whether a deployment has another number of copies than it is to have, or waits for anything.
fn wants_more(control: &Control, id: DeploymentId) -> bool {
    let Some(found) = control.get::<Deployment>(id) else { return false };
    let waits = control.deployment_status(id).is_none_or(|status| {
        let status = &status.record;
        status.fault.is_some() || !status.leaving.is_empty()
    });
    waits || control.count_copies(&found.record).all != control.wanted_copies(&found.record) as usize
}

/// Deployments that a changed record concerns.
fn concerned(control: &Control, table: &str, key: &str) -> Vec<DeploymentId> {
    let store = control.store();
    match table {
        // Both have the deployment's own key.
        Deployment::TABLE | DeploymentScale::TABLE => key.parse::<DeploymentId>().into_iter().collect(),
        Instance::TABLE => match key.parse::<InstanceId>().ok().and_then(|id| control.get::<Instance>(id)) {
            Some(instance) => control.deployment_of(&instance.record).into_iter().collect(),
            // What it was of went with it, and what it had taken is free for those that want more.
            None => all(store).into_iter().filter(|id| wants_more(control, *id)).collect(),
        },
        InstanceStatus::TABLE | ContainerHealth::TABLE => {
            let id = key.split('.').next().and_then(|id| id.parse::<InstanceId>().ok());
            let instance = id.and_then(|id| control.get::<Instance>(id));
            instance.and_then(|instance| control.deployment_of(&instance.record)).into_iter().collect()
        }
        // Its quotas may be others.
        Project::TABLE => match key.parse::<ProjectId>() {
            Ok(project) => control.deployments_of(project),
            Err(_) => vec![],
        },
        _ => vec![],
    }
}
