//! Pods, and what makes pods: Deployments, StatefulSets, DaemonSets, Jobs and CronJobs.

use super::{
    Copies, Kind, PODS_MAX, REPLICAS_MAX, Reading, Refusal, Workload,
    config::Claim,
    field::Fields,
    pod::{self, Pod, Scene, Times},
    stateful,
};
use crate::{deployment::COPY, plan::RestartPolicy, schedule::Cron};
use std::collections::BTreeMap;

/// What pods that serve are restarted by.
pub(super) const ALWAYS: (&str, RestartPolicy) = ("Always", RestartPolicy::Always);
const ON_FAILURE: (&str, RestartPolicy) = ("OnFailure", RestartPolicy::OnFailure { retries_max: 0 });
const NEVER: (&str, RestartPolicy) = ("Never", RestartPolicy::No);

/// Reads a workload and adds it.
pub(super) fn add(
    reading: &mut Reading,
    kind: &str,
    name: &str,
    fields: &Fields<'_>,
    metadata: &Fields<'_>,
) -> Result<(), Refusal> {
    let spec = fields.child("spec")?.ok_or_else(|| fields.wrong("spec", "is missing"))?;
    let (mut recreate, mut sequence, mut copied) = (false, None, None);
    let (kind, pods) = match kind {
        "Pod" => {
            let labels = pod::labels(Some(metadata))?;
            let pod = one(reading, name, &labels, &spec, &[ALWAYS, ON_FAILURE, NEVER])?;
            (Kind::Pod, vec![pod])
        }
        "StatefulSet" => {
            let read = stateful::read(reading, name, &spec)?;
            sequence = Some(read.sequence);
            let is_known = |claim: &&Claim| reading.claims.iter().any(|known| known.name == claim.name);
            if let Some(claim) = read.claims.iter().find(is_known) {
                let message = format!("the claim {} is asked for by another object of this file", claim.name);
                return Err(spec.wrong("volumeClaimTemplates", message));
            }
            reading.claims.extend(read.claims);
            (Kind::StatefulSet, read.pods)
        }
        "Job" => (Kind::Job, vec![job(reading, name, &spec)?]),
        "CronJob" => (Kind::CronJob, vec![cron_job(reading, name, &spec)?]),
        "DaemonSet" => {
            spec.pass_over(&["revisionHistoryLimit"]);
            let (pods, template) = copies(reading, name, &spec, 1)?;
            copied = Some(Copies { template, replicas: Some(1), autoscale: None });
            (Kind::DaemonSet, pods)
        }
        _ => {
            spec.pass_over(&["revisionHistoryLimit"]);
            let replicas = spec.number("replicas", 0..=REPLICAS_MAX)?;
            if let Some(strategy) = spec.child("strategy")? {
                recreate = strategy.word("type", &[("RollingUpdate", false), ("Recreate", true)])?;
            }
            let (pods, template) = copies(reading, name, &spec, replicas.unwrap_or(1))?;
            let replicas = replicas.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
            copied = Some(Copies { template, replicas, autoscale: None });
            (Kind::Deployment, pods)
        }
    };
    let taken = |pod: &Pod| reading.workloads.iter().flat_map(|it| &it.pods).any(|it| it.name == pod.name);
    if let Some(pod) = pods.iter().find(|pod| taken(pod)) {
        let message = format!("an instance called {} is made by another object of this file", pod.name);
        return Err(fields.wrong("metadata.name", message));
    }
    let count = pods.len() + reading.workloads.iter().map(|it| it.pods.len()).sum::<usize>();
    if count > PODS_MAX {
        let message = format!("more than {PODS_MAX} pods are asked for");
        return Err(fields.wrong("spec", message).hint("make several files of it"));
    }
    // What one pod alone can have cannot be the next one's as well while that gets ready.
    let is_held = |pod: &Pod| !pod.publish.is_empty() || !pod::claims(pod).is_empty();
    let recreate = recreate || pods.iter().chain(copied.iter().map(|it| &it.template)).any(is_held);
    let name = name.to_string();
    reading.workloads.push(Workload { kind, name, pods, recreate, sequence, copies: copied });
    Ok(())
}

fn one(
    reading: &Reading,
    name: &str,
    labels: &BTreeMap<String, String>,
    spec: &Fields<'_>,
    restarts: &[(&str, RestartPolicy)],
) -> Result<Pod, Refusal> {
    let pod = pod::read(spec, &reading.scene(name, labels), restarts)?;
    Ok(Pod { digest: pod.fingerprint(), ..pod })
}

impl Reading {
    /// What a pod of this name refers to.
    pub(super) fn scene<'a>(&'a self, name: &'a str, labels: &'a BTreeMap<String, String>) -> Scene<'a> {
        Scene {
            name,
            labels,
            namespace: "default",
            config_maps: &self.config_maps,
            secrets: &self.secrets,
            claims: &[],
        }
    }
}

/// The template of a workload: its labels and its spec.
pub(super) fn template<'a>(spec: &Fields<'a>) -> Result<(BTreeMap<String, String>, Fields<'a>), Refusal> {
    let template = spec.child("template")?.ok_or_else(|| spec.wrong("template", "is missing"))?;
    let metadata = template.child("metadata")?;
    if let Some(metadata) = &metadata {
        metadata.pass_over(&["creationTimestamp", "name"]);
    }
    let labels = pod::labels(metadata.as_ref())?;
    let inner = template.child("spec")?.ok_or_else(|| template.wrong("spec", "is missing"))?;
    Ok((labels, inner))
}

/// So many copies of a pod, each with a name of its own, and what all are made of.
fn copies(reading: &Reading, name: &str, spec: &Fields<'_>, count: u64) -> Result<(Vec<Pod>, Pod), Refusal> {
    let (labels, inner) = template(spec)?;
    selects(spec, &labels)?;
    // Read once even where no copy is wanted, so that what is wrong is told.
    let first = one(reading, name, &labels, &inner, &[ALWAYS])?;
    if count > 1 {
        if !first.publish.is_empty() {
            let message = "one port of the host leads to one pod: with several replicas leave hostPort out";
            return Err(inner.wrong("containers", message).hint("a Service's name leads to all of them"));
        }
        if let Some(claim) = pod::claims(&first).first() {
            let message = format!("the claim {claim} is one pod's at a time, and there are {count} replicas");
            return Err(inner.wrong("volumes", message));
        }
    }
    // Another template makes pods of other names, so that both are there while one takes over from the other.
    let revision = &first.digest[..5];
    let copy = |number: u64| {
        let pod = one(reading, &format!("{name}-{revision}-{number}"), &labels, &inner, &[ALWAYS])?;
        Ok(Pod { digest: first.digest.clone(), ..pod })
    };
    let template = one(reading, COPY, &labels, &inner, &[ALWAYS])?;
    let template = Pod { digest: first.digest.clone(), ..template };
    Ok(((1..=count).map(copy).collect::<Result<_, Refusal>>()?, template))
}

/// A selector that does not fit its own template would select nothing.
pub(super) fn selects(spec: &Fields<'_>, labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let selector = spec.child("selector")?.ok_or_else(|| spec.wrong("selector", "is missing"))?;
    selector.refuse("matchExpressions", "is not worked out here: use matchLabels")?;
    let wanted = selector.pairs("matchLabels")?;
    match wanted.iter().find(|(key, value)| labels.get(*key) != Some(value)) {
        None if !wanted.is_empty() => Ok(()),
        None => Err(selector.wrong("matchLabels", "is missing")),
        Some((key, value)) => {
            Err(selector.wrong("matchLabels", format!("the template has no label {key:.80}={value:.80}")))
        }
    }
}

/// A pod that runs to its end, and is tried so often.
fn job(reading: &Reading, name: &str, spec: &Fields<'_>) -> Result<Pod, Refusal> {
    for field in ["completions", "parallelism"] {
        if spec.number(field, 0..=1_000_000)?.is_some_and(|number| number != 1) {
            return Err(spec.wrong(field, "a Job runs one pod once: make several"));
        }
    }
    let retries = spec.number("backoffLimit", 0..=1_000)?.unwrap_or(6);
    let (labels, inner) = template(spec)?;
    let mut pod = one(reading, name, &labels, &inner, &[NEVER, ON_FAILURE])?;
    let retries_max = u32::try_from(retries).unwrap_or(0);
    for container in pod.containers.iter_mut().filter(|it| it.role != crate::instance::content::Role::Sidecar)
    {
        container.restart = match retries_max {
            0 => RestartPolicy::No,
            retries_max => RestartPolicy::OnFailure { retries_max },
        };
    }
    Ok(pod)
}

/// A job that is done at certain times: its pod is started again for each.
fn cron_job(reading: &Reading, name: &str, spec: &Fields<'_>) -> Result<Pod, Refusal> {
    let at = spec.needed("schedule")?.parse::<Cron>();
    let at = at.map_err(|wrong| spec.wrong("schedule", wrong.to_string()))?;
    if let Some(zone) = spec.text("timeZone")?
        && !matches!(zone.as_str(), "UTC" | "Etc/UTC")
    {
        return Err(spec.wrong("timeZone", "times are told in UTC here: write them so, with Etc/UTC"));
    }
    if spec.text("concurrencyPolicy")?.is_some_and(|policy| policy != "Forbid") {
        spec.warn("concurrencyPolicy", "not honoured: while it still runs its time passes, as with Forbid");
    }
    // One pod is all the history, with the logs of every run.
    spec.pass_over(&["successfulJobsHistoryLimit", "failedJobsHistoryLimit"]);
    let template = spec.child("jobTemplate")?.ok_or_else(|| spec.wrong("jobTemplate", "is missing"))?;
    if let Some(metadata) = template.child("metadata")? {
        metadata.pass_over(&["creationTimestamp", "name", "labels"]);
    }
    let inner = template.child("spec")?.ok_or_else(|| template.wrong("spec", "is missing"))?;
    let pod = job(reading, name, &inner)?;
    let schedule = match spec.flag("suspend")?.unwrap_or(false) {
        true => Times::Never,
        false => Times::At(at),
    };
    let pod = Pod { schedule: Some(schedule), ..pod };
    Ok(Pod { digest: pod.fingerprint(), ..pod })
}
