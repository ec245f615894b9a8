//! HorizontalPodAutoscalers: how many copies a Deployment of the same file has, by the CPU time that they use.

use super::{Copies, Kind, REPLICAS_MAX, Reading, Refusal, field::Fields, pod::Pod};
use crate::{
    deployment::autoscale::{
        Autoscale, CPU_PERCENT, CPU_PERCENT_USUAL, DOWN_WINDOW_S_MAX, DOWN_WINDOW_S_USUAL,
    },
    instance::content::Role,
};

/// One as its file has it.
#[derive(Debug)]
pub(super) struct Read {
    object: String,
    target: String,
    replicas: (u32, u32),
    cpu_percent: u32,
    down_window_s: u32,
}

/// Reads one.
pub(super) fn read(fields: &Fields<'_>) -> Result<Read, Refusal> {
    let spec = fields.child("spec")?.ok_or_else(|| fields.wrong("spec", "is missing"))?;
    let target = spec.child("scaleTargetRef")?.ok_or_else(|| spec.wrong("scaleTargetRef", "is missing"))?;
    target.pass_over(&["apiVersion"]);
    if target.needed("kind")? != "Deployment" {
        return Err(target.wrong("kind", "only a Deployment is scaled by its use"));
    }
    let most = spec.number("maxReplicas", 1..=REPLICAS_MAX)?;
    let most = most.ok_or_else(|| spec.wrong("maxReplicas", "is missing"))?;
    let least = spec.number("minReplicas", 1..=most)?.unwrap_or(1);
    let mut down_window_s = u64::from(DOWN_WINDOW_S_USUAL);
    if let Some(behavior) = spec.child("behavior")?
        && let Some(down) = behavior.child("scaleDown")?
    {
        let bounds = 0..=u64::from(DOWN_WINDOW_S_MAX);
        down_window_s = down.number("stabilizationWindowSeconds", bounds)?.unwrap_or(down_window_s);
    }
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Read {
        object: fields.object().to_string(),
        target: target.needed("name")?,
        replicas: (small(least), small(most)),
        cpu_percent: cpu_percent(&spec)?,
        down_window_s: small(down_window_s),
    })
}

/// The use that is wanted. What cannot be measured is refused: the number of copies would be another than the file counts on.
fn cpu_percent(spec: &Fields<'_>) -> Result<u32, Refusal> {
    let metrics = spec.children("metrics")?;
    let metric = match metrics.as_slice() {
        [] => return Ok(CPU_PERCENT_USUAL),
        [one] => one,
        _ => return Err(spec.wrong("metrics", "one metric is honoured: the CPU's averageUtilization")),
    };
    if metric.needed("type")? != "Resource" {
        return Err(metric.wrong("type", "only Resource is measured here"));
    }
    let resource = metric.child("resource")?.ok_or_else(|| metric.wrong("resource", "is missing"))?;
    if resource.needed("name")? != "cpu" {
        return Err(resource.wrong("name", "only cpu is measured here"));
    }
    let target = resource.child("target")?.ok_or_else(|| resource.wrong("target", "is missing"))?;
    if target.needed("type")? != "Utilization" {
        return Err(
            target.wrong("type", "only Utilization is worked out here: averageUtilization in percent")
        );
    }
    let bounds = u64::from(*CPU_PERCENT.start())..=u64::from(*CPU_PERCENT.end());
    let percent = target.number("averageUtilization", bounds)?;
    let percent = percent.ok_or_else(|| target.wrong("averageUtilization", "is missing"))?;
    Ok(u32::try_from(percent).unwrap_or(u32::MAX))
}

impl Reading {
    /// Gives the Deployments the rules that name them.
    pub(super) fn autoscale(&mut self) -> Result<(), Refusal> {
        for read in std::mem::take(&mut self.autoscalers) {
            let wrong = |path: &str, message: String| Err(Refusal::new(&read.object, path, message));
            let of_it = |workload: &&mut super::Workload| {
                workload.kind == Kind::Deployment && workload.name == read.target
            };
            let workload = self.workloads.iter_mut().find(of_it);
            let Some((object, Some(copies))) = workload.map(|it| (it.reference(), it.copies.as_mut())) else {
                let message = format!("there is no Deployment {:.80} in this file", read.target);
                return wrong("spec.scaleTargetRef.name", message);
            };
            if copies.autoscale.is_some() {
                return wrong(
                    "spec.scaleTargetRef.name",
                    format!("{object} is scaled by another one already"),
                );
            }
            if read.replicas.1 > 1 && copies.is_single() {
                let message =
                    format!("{object} holds a claim or a port of the host, which one copy alone can have");
                return wrong("spec.maxReplicas", message);
            }
            let Some(cpu_asked_millis) = cpu_asked_millis(&copies.template) else {
                let message = format!("a container of {object} does not say how much CPU it asks for");
                let refusal = wrong("spec.metrics", message);
                return refusal.map_err(|it| it.hint("give each container resources.requests.cpu"));
            };
            let (replicas_min, replicas_max) = read.replicas;
            copies.autoscale = Some(Autoscale {
                replicas_min,
                replicas_max,
                cpu_percent: read.cpu_percent,
                cpu_asked_millis,
                down_window_s: read.down_window_s,
            });
            self.parts.push(read.object);
        }
        Ok(())
    }
}

impl Copies {
    /// It holds what one pod alone can have.
    fn is_single(&self) -> bool {
        !self.template.publish.is_empty() || !super::pod::claims(&self.template).is_empty()
    }
}

/// CPU time that a pod asks for. A container that says only its limit asks for that.
fn cpu_asked_millis(pod: &Pod) -> Option<u32> {
    let at_work = pod.containers.iter().filter(|it| it.role != Role::Init);
    let asked: Option<Vec<u32>> = at_work.map(|it| it.cpu_asked_millis.or(it.cpu_millis)).collect();
    asked.map(|all| all.iter().fold(0, |sum: u32, one| sum.saturating_add(*one))).filter(|sum| *sum > 0)
}
