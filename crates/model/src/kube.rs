//! Files of Kubernetes: from YAML that somebody wrote for a cluster to what holm is asked to make of it.
//!
//! ```text
//!   text ──document──► objects ──field──► typed, checked ──► Plan: claims, pods with the names of their services
//!                                    └──► warnings: what is asked for and not honoured, with its path
//! ```
//! Nothing is made here, and no field is lost: each is honoured, refused with its path and the reason, or told in a
//! warning. A ConfigMap or a Secret is no thing of its own here: it becomes part of the pods that name it.

mod autoscale;
pub mod config;
pub mod container;
pub mod document;
pub mod environment;
pub mod field;
mod lifecycle;
pub mod pod;
mod probe;
mod quantity;
mod security;
pub mod service;
mod stateful;
pub mod volume;
mod workload;

#[cfg(test)]
mod tests;

use crate::deployment::autoscale::Autoscale;
use config::{Claim, Config};
use field::{Fields, Warning, Warnings};
use pod::Pod;
use serde_json::{Map, Value};
use service::{Read, Service};
use std::{collections::BTreeMap, fmt};

/// Most copies of a Deployment's pod.
pub const REPLICAS_MAX: u64 = 100;

/// Most pods of a file.
pub const PODS_MAX: usize = 500;

/// Why a file cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// Kind and name of the object, like `pod/web`, or its place in the file.
    pub object: String,
    /// Path of the field in it; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// The way out, where there is one.
    pub hint: String,
}

impl Refusal {
    /// A refusal without a hint.
    pub fn new(object: &str, path: &str, message: impl Into<String>) -> Self {
        let (object, path) = (object.to_string(), path.to_string());
        Self { object, path, message: message.into(), hint: String::new() }
    }

    /// The same with a way out.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [self.object.as_str(), &self.path, &self.message];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        f.write_str(&parts.join(": "))
    }
}

/// What a file asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// ConfigMaps, Secrets and Services without an address, like `configmap/colours`: they are part of what follows.
    pub parts: Vec<String>,
    /// Addresses that lead to pods.
    pub services: Vec<Service>,
    /// Volumes that stay.
    pub claims: Vec<Claim>,
    /// Pods, and what makes several of one.
    pub workloads: Vec<Workload>,
    /// What is not honoured.
    pub warnings: Vec<Warning>,
}

/// Pods that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Kind.
    pub kind: Kind,
    /// Name in the file.
    pub name: String,
    /// Its pods.
    pub pods: Vec<Pod>,
    /// When it is changed, the old pods go before the new ones come.
    pub recreate: bool,
    /// Its pods follow each other, and keep their names.
    pub sequence: Option<Sequence>,
    /// Its pods are copies of this one, and are watched over.
    pub copies: Option<Copies>,
}

/// Copies of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// What they are made of. [`COPY`](crate::deployment::COPY) stands for their names.
    pub template: Pod,
    /// How many are wanted; as many as there are to be already, or one, where the file does not say.
    pub replicas: Option<u32>,
    /// The rule by which there are more or fewer, where the file has one.
    pub autoscale: Option<Autoscale>,
}

/// How pods follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// Those that are missing come all at once.
    pub parallel: bool,
    /// Changed pods are made anew from the last one down to this place; none where somebody deletes them.
    pub replaces_from: Option<usize>,
}

impl Workload {
    /// Kind and name, like `deployment/web`.
    pub fn reference(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.name)
    }
}

/// Kinds of workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One pod.
    Pod,
    /// Copies of a pod, replaced when it changes.
    Deployment,
    /// Pods with names and claims that stay.
    StatefulSet,
    /// One copy for each host.
    DaemonSet,
    /// A pod that runs to its end.
    Job,
    /// The same at certain times.
    CronJob,
}

impl Kind {
    /// As it is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::Job => "job",
            Self::CronJob => "cronjob",
        }
    }
}

/// What was read of a file so far.
#[derive(Debug, Default)]
struct Reading {
    config_maps: BTreeMap<String, Config>,
    secrets: BTreeMap<String, Config>,
    services: Vec<Read>,
    autoscalers: Vec<autoscale::Read>,
    parts: Vec<String>,
    claims: Vec<Claim>,
    workloads: Vec<Workload>,
}

/// Reads a file for a project, which is the namespace of all in it.
///
/// # Errors
/// The first thing that cannot be had, with its path.
pub fn plan(text: &str, project: &str) -> Result<Plan, Refusal> {
    let objects = document::read(text)?;
    if objects.is_empty() {
        return Err(Refusal::new("", "", "the file holds no object"));
    }
    let warnings = Warnings::default();
    let mut reading = Reading::default();
    // Pods name what may come after them.
    for is_config in [true, false] {
        for (number, map) in objects.iter().enumerate() {
            let kind = map.get("kind").and_then(Value::as_str).unwrap_or_default();
            if matches!(kind, "ConfigMap" | "Secret") == is_config {
                read_object(&mut reading, (number, kind, map), project, &warnings)?;
            }
        }
    }
    let services = reading.lead_services(&warnings)?;
    reading.autoscale()?;
    let Reading { parts, claims, workloads, .. } = reading;
    Ok(Plan { parts, services, claims, workloads, warnings: warnings.take() })
}

/// Kinds and the versions of the API that they are read in.
const KINDS: [(&str, &str); 12] = [
    ("ConfigMap", "v1"),
    ("Secret", "v1"),
    ("PersistentVolumeClaim", "v1"),
    ("Service", "v1"),
    ("Pod", "v1"),
    ("Deployment", "apps/v1"),
    ("StatefulSet", "apps/v1"),
    ("DaemonSet", "apps/v1"),
    ("Job", "batch/v1"),
    ("CronJob", "batch/v1"),
    ("HorizontalPodAutoscaler", "autoscaling/v2"),
    ("Namespace", "v1"),
];

fn read_object(
    reading: &mut Reading,
    (number, kind, map): (usize, &str, &Map<String, Value>),
    project: &str,
    warnings: &Warnings,
) -> Result<(), Refusal> {
    let place = format!("object {}", number + 1);
    let Some((_, version)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        let known: Vec<&str> = KINDS.iter().map(|(known, _)| *known).collect();
        let message = match kind {
            "" => "is missing".to_string(),
            kind => format!("{kind:.63} is no kind that is known here"),
        };
        return Err(Refusal::new(&place, "kind", message).hint(format!("known are {}", known.join(", "))));
    };
    if map.get("apiVersion").and_then(Value::as_str) != Some(version) {
        return Err(Refusal::new(&place, "apiVersion", format!("a {kind} is read in {version}")));
    }
    let name = name_of(&place, map, warnings)?;
    let object = format!("{}/{name}", kind.to_ascii_lowercase());
    let fields = Fields::new(map, &object, "", warnings);
    fields.pass_over(&["apiVersion", "kind", "status"]);
    let metadata = fields.child("metadata")?.ok_or_else(|| fields.wrong("metadata", "is missing"))?;
    metadata.pass_over(&[
        "name",
        "labels",
        "creationTimestamp",
        "resourceVersion",
        "uid",
        "generation",
        "managedFields",
    ]);
    if let Some(namespace) = metadata.text("namespace")?
        && namespace != project
        && namespace != "default"
    {
        let message = format!("{namespace:.63} is not honoured: it belongs to the project {project}");
        metadata.warn("namespace", message);
    }
    match kind {
        "ConfigMap" => reading.add_config(&fields, &name, false)?,
        "Secret" => reading.add_config(&fields, &name, true)?,
        "Service" => reading.services.push(service::read(&fields, &name)?),
        "HorizontalPodAutoscaler" => reading.autoscalers.push(autoscale::read(&fields)?),
        "PersistentVolumeClaim" => reading.claims.push(config::claim(&name, &fields)?),
        "Namespace" => fields.warn("kind", "not honoured: a project is made with `holm project create`"),
        _ => workload::add(reading, kind, &name, &fields, &metadata)?,
    }
    let all = reading.workloads.iter().map(Workload::reference).chain(reading.parts.iter().cloned());
    let all = all.chain(reading.claims.iter().map(|claim| format!("persistentvolumeclaim/{}", claim.name)));
    let all = all.chain(reading.services.iter().map(|service| format!("service/{}", service.name)));
    match all.filter(|known| *known == object).count() {
        0 | 1 => Ok(()),
        _ => Err(Refusal::new(&object, "metadata.name", "is there twice")),
    }
}

fn name_of(place: &str, map: &Map<String, Value>, warnings: &Warnings) -> Result<String, Refusal> {
    let fields = Fields::new(map, place, "", warnings);
    // The others are read when the object has its name.
    fields.names().for_each(|name| fields.pass_over(&[name]));
    let metadata = fields.child("metadata")?.ok_or_else(|| fields.wrong("metadata", "is missing"))?;
    metadata.names().for_each(|name| metadata.pass_over(&[name]));
    metadata.refuse("generateName", "names are not made up here: say name")?;
    let name = metadata.needed("name")?;
    let fits = name.len() <= 253
        && name.split('.').all(|part| crate::name::dns_label(part, "") == part && !part.is_empty());
    match fits {
        true => Ok(name),
        false => Err(metadata.wrong("name", "has lower case letters, digits, dashes and dots, 253 at most")),
    }
}

impl Reading {
    fn add_config(&mut self, fields: &Fields<'_>, name: &str, is_secret: bool) -> Result<(), Refusal> {
        self.parts.push(fields.object().to_string());
        let (all, config) = match is_secret {
            true => (&mut self.secrets, config::secret(fields)?),
            false => (&mut self.config_maps, config::config_map(fields)?),
        };
        all.insert(name.to_string(), config);
        Ok(())
    }
}
