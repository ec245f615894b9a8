//! The autoscaler's clock: looks at what copies use, and lets control work out how many there are to be.

use control::{Control, deployment::Pasts};
use model::{deployment::Deployment, id::InstanceId};
use node::instance::Instances;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often copies are looked at; what they use is told of the time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// When a copy was looked at, and the processor time that it had used by then, in microseconds.
type Looks = HashMap<InstanceId, (Instant, u64)>;

/// Runs until holm stops.
pub async fn run(control: Control, instances: Arc<Instances>, stopping: CancellationToken) {
    let (mut pasts, mut looks) = (Pasts::new(), Looks::new());
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let mut seen = Looks::new();
        for found in control.store().list::<Deployment>() {
            let used = look(&control, &instances, &found.record, &looks, &mut seen).await;
            let id = found.record.meta.id;
            if let Err(error) = control.autoscale_deployment(id, &used, &mut pasts).await {
                tracing::warn!(%id, %error, "a deployment could not be scaled by what it uses");
            }
        }
        // Those that were not looked at now are gone.
        looks = seen;
    }
}

/// What the copies of a deployment have used since the last look, in thousandths of a CPU.
async fn look(
    control: &Control,
    instances: &Instances,
    deployment: &Deployment,
    before: &Looks,
    seen: &mut Looks,
) -> HashMap<InstanceId, u64> {
    let mut used = HashMap::new();
    for (_, copy) in control.copies_measured(deployment) {
        let id = copy.record.meta.id;
        let Ok(driver) = instances.driver(copy.record.kind) else { continue };
        // One that does not run yet uses nothing that could be told.
        let Ok(usage) = driver.usage(id).await else { continue };
        let now = Instant::now();
        seen.insert(id, (now, usage.cpu_usage_us));
        if let Some((at, usage_us)) = before.get(&id)
            && let Some(more_us) = usage.cpu_usage_us.checked_sub(*usage_us)
        {
            let passed_ms = u64::try_from(now.duration_since(*at).as_millis()).unwrap_or(u64::MAX).max(1);
            used.insert(id, more_us / passed_ms);
        }
    }
    used
}
