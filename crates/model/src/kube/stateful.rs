//! StatefulSets: pods with names that stay, each with claims of its own, made and changed one after the other.

use super::{
    REPLICAS_MAX, Reading, Refusal, Sequence,
    config::{self, Claim},
    field::Fields,
    pod::{self, Pod, Scene},
    service,
    workload::{ALWAYS, selects, template},
};

/// What is read of one.
pub(super) struct Read {
    /// Its pods, in their order.
    pub pods: Vec<Pod>,
    /// The claims of these pods.
    pub claims: Vec<Claim>,
    /// How they follow each other.
    pub sequence: Sequence,
}

/// Reads one.
pub(super) fn read(reading: &Reading, name: &str, spec: &Fields<'_>) -> Result<Read, Refusal> {
    spec.pass_over(&["revisionHistoryLimit"]);
    let count = spec.number("replicas", 0..=REPLICAS_MAX)?.unwrap_or(1);
    let first = match spec.child("ordinals")? {
        Some(ordinals) => ordinals.number("start", 0..=1_000_000)?.unwrap_or(0),
        None => 0,
    };
    let sequence = sequence(spec, first)?;
    keeps_claims(spec)?;
    let service = spec.text("serviceName")?.filter(|name| !name.is_empty());
    let (labels, inner) = template(spec)?;
    selects(spec, &labels)?;
    let templates = claim_templates(spec)?;
    let pod = |number: u64| {
        let pod_name = format!("{name}-{number}");
        let mut labels = labels.clone();
        labels.insert("apps.kubernetes.io/pod-index".into(), number.to_string());
        labels.insert("statefulset.kubernetes.io/pod-name".into(), pod_name.clone());
        let claims: Vec<(String, String)> =
            templates.iter().map(|it| (it.name.clone(), format!("{}-{pod_name}", it.name))).collect();
        let scene = Scene { claims: &claims, ..reading.scene(&pod_name, &labels) };
        let mut pod = pod::read(&inner, &scene, &[ALWAYS])?;
        pod.hostname = pod.hostname.or_else(|| Some(pod_name.clone()));
        if let Some(service) = &service {
            pod.aliases = service::names(&format!("{pod_name}.{service}")).to_vec();
        }
        let claims = templates.iter().zip(claims).map(|(it, (_, name))| Claim { name, ..it.clone() });
        Ok::<_, Refusal>((Pod { digest: pod.fingerprint(), ..pod }, claims.collect::<Vec<Claim>>()))
    };
    // Read once even where no pod is wanted, so that what is wrong is told.
    let (one, _) = pod(first)?;
    if count > 1 {
        if !one.publish.is_empty() {
            let message = "one port of the host leads to one pod: with several replicas leave hostPort out";
            return Err(inner.wrong("containers", message));
        }
        let own = |claim: &&str| !templates.iter().any(|it| **claim == format!("{}-{name}-{first}", it.name));
        if let Some(claim) = pod::claims(&one).into_iter().find(own) {
            let message = format!("the claim {claim} is one pod's at a time, and there are {count} replicas");
            return Err(inner.wrong("volumes", message).hint("ask for it in volumeClaimTemplates"));
        }
    }
    let (mut pods, mut claims) = (vec![], vec![]);
    for number in first..first + count {
        let (one, own) = pod(number)?;
        pods.push(one);
        claims.extend(own);
    }
    Ok(Read { pods, claims, sequence })
}

fn sequence(spec: &Fields<'_>, first: u64) -> Result<Sequence, Refusal> {
    let parallel = spec.word("podManagementPolicy", &[("OrderedReady", false), ("Parallel", true)])?;
    let mut replaces_from = Some(0);
    if let Some(strategy) = spec.child("updateStrategy")? {
        let rolls = strategy.word("type", &[("RollingUpdate", true), ("OnDelete", false)])?;
        let rolling = strategy.child("rollingUpdate")?;
        let partition = match &rolling {
            Some(rolling) => rolling.number("partition", 0..=2_000_000)?.unwrap_or(0),
            None => 0,
        };
        let from = usize::try_from(partition.saturating_sub(first)).unwrap_or(usize::MAX);
        replaces_from = rolls.then_some(from);
    }
    Ok(Sequence { parallel, replaces_from })
}

/// Claims stay when their pods go, as is usual.
fn keeps_claims(spec: &Fields<'_>) -> Result<(), Refusal> {
    let Some(policy) = spec.child("persistentVolumeClaimRetentionPolicy")? else { return Ok(()) };
    for when in ["whenDeleted", "whenScaled"] {
        if policy.word(when, &[("Retain", false), ("Delete", true)])? {
            policy.warn(when, "not honoured: claims stay until `holm kube down --force`");
        }
    }
    Ok(())
}

/// The claims of each pod, by the names of their templates.
fn claim_templates(spec: &Fields<'_>) -> Result<Vec<Claim>, Refusal> {
    let mut all: Vec<Claim> = vec![];
    for fields in spec.children("volumeClaimTemplates")? {
        fields.pass_over(&["apiVersion", "kind", "status"]);
        let metadata = fields.child("metadata")?.ok_or_else(|| fields.wrong("metadata", "is missing"))?;
        metadata.pass_over(&["creationTimestamp", "labels"]);
        let name = metadata.needed("name")?;
        if crate::name::dns_label(&name, "") != name {
            return Err(metadata.wrong("name", "has at most 63 lower case letters, digits and dashes"));
        }
        if all.iter().any(|known| known.name == name) {
            return Err(metadata.wrong("name", format!("two templates are called {name}")));
        }
        all.push(config::claim(&name, &fields)?);
    }
    Ok(all)
}
