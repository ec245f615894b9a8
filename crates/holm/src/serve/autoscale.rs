//! The autoscaler's clock: looks at what copies use, and lets control work out how many there are to be.

use control::{Control, deployment::Pasts};
use futures::StreamExt;
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

/// How long a copy may take to tell: some are told by their guest, which may not want to.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many are asked at a time.
const AT_A_TIME: usize = 8;

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
        tokio::select! {
            () = stopping.cancelled() => return,
            // Those that were not looked at now are gone.
            seen = pass(&control, &instances, &looks, &mut pasts) => looks = seen,
        }
    }
}

/// Looks at the copies of all deployments, and has these scaled. Gives what was seen.
async fn pass(control: &Control, instances: &Instances, looks: &Looks, pasts: &mut Pasts) -> Looks {
    let mut seen = Looks::new();
    for found in control.store().list::<Deployment>() {
        let used = look(control, instances, &found.record, looks, &mut seen).await;
        let id = found.record.meta.id;
        if let Err(error) = control.autoscale_deployment(id, &used, pasts).await {
            tracing::warn!(%id, %error, "a deployment could not be scaled by what it uses");
        }
    }
    seen
}

/// What the copies of a deployment have used since the last look, in thousandths of a CPU.
async fn look(
    control: &Control,
    instances: &Instances,
    deployment: &Deployment,
    before: &Looks,
    seen: &mut Looks,
) -> HashMap<InstanceId, u64> {
    let asked = control.copies_measured(deployment).into_iter().map(|(_, copy)| async move {
        let id = copy.record.meta.id;
        let driver = instances.driver(copy.record.kind).ok()?;
        // One that does not run yet uses nothing that could be told.
        let usage = tokio::time::timeout(PATIENCE, driver.usage(id)).await.ok()?.ok()?;
        Some((id, Instant::now(), usage.cpu_usage_us))
    });
    let told: Vec<_> = futures::stream::iter(asked).buffer_unordered(AT_A_TIME).collect().await;
    let mut used = HashMap::new();
    for (id, now, now_us) in told.into_iter().flatten() {
        seen.insert(id, (now, now_us));
        if let Some((at, usage_us)) = before.get(&id)
            && let Some(more_us) = now_us.checked_sub(*usage_us)
        {
            let passed_ms = u64::try_from(now.duration_since(*at).as_millis()).unwrap_or(u64::MAX).max(1);
            used.insert(id, more_us / passed_ms);
        }
    }
    used
}
