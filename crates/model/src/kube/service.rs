//! Services: names and addresses that lead to pods of the same file.
//!
//! One with an address of its own has its names there, and what comes to it is spread over the pods; these are found by a
//! name that no Service can have. One without (`clusterIP: None`) gives its names to the pods themselves.

use super::{
    Reading, Refusal, Workload,
    field::{Fields, Warnings},
    pod::Pod,
};
use crate::port::alias::ALIASES_MAX;
use serde_json::Value;
use std::collections::BTreeMap;

/// A Service with an address of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// What is led on.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePort {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Asked for.
    pub port: u16,
    /// Where the pods answer.
    pub to: u16,
}

/// A Service as its file has it.
#[derive(Debug)]
pub(super) struct Read {
    /// Its name.
    pub name: String,
    selector: BTreeMap<String, String>,
    has_address: bool,
    ports: Vec<ReadPort>,
}

#[derive(Debug)]
struct ReadPort {
    protocol: &'static str,
    port: u16,
    to: Target,
    path: String,
}

#[derive(Debug)]
enum Target {
    Number(u16),
    Name(String),
}

/// The names of a Service, as it is called in its own namespace and in others.
pub fn names(service: &str) -> [String; 4] {
    ["", ".default", ".default.svc", ".default.svc.cluster.local"].map(|form| format!("{service}{form}"))
}

/// End of the names of pods behind a Service with an address.
pub const PODS: &str = ".pods";

/// The name of the pods behind a Service with an address.
pub fn pods_name(service: &str) -> String {
    format!("{service}{PODS}")
}

/// Reads one.
pub(super) fn read(fields: &Fields<'_>, name: &str) -> Result<Read, Refusal> {
    if name.contains('.') {
        return Err(fields.wrong("metadata.name", "a Service's name has no dots"));
    }
    let spec = fields.child("spec")?.ok_or_else(|| fields.wrong("spec", "is missing"))?;
    spec.refuse("externalName", "a name of the outside is asked for as it is")?;
    match spec.text("type")?.as_deref() {
        None | Some("ClusterIP") => {}
        Some(other @ ("NodePort" | "LoadBalancer")) => {
            spec.warn(
                "type",
                format!("{other} is not honoured: publish with hostPort, or lead a floating IP to it"),
            );
        }
        Some(other) => return Err(spec.wrong("type", format!("{other:.40} is not known"))),
    }
    let address = spec.text("clusterIP")?.unwrap_or_default();
    if !matches!(address.as_str(), "" | "None") {
        spec.warn("clusterIP", "not honoured: its address is chosen here, ask for its name");
    }
    if spec.text("sessionAffinity")?.is_some_and(|affinity| affinity != "None") {
        spec.warn("sessionAffinity", "not honoured: each connection goes to the next pod");
    }
    spec.pass_over(&["internalTrafficPolicy"]);
    let mut ports = vec![];
    for port in spec.children("ports")? {
        port.pass_over(&["name"]);
        let number = port.number("port", 1..=65_535)?;
        let number = number.ok_or_else(|| port.wrong("port", "is missing"))?;
        let number = u16::try_from(number).unwrap_or(0);
        let protocol = port.word("protocol", &[("TCP", "tcp"), ("UDP", "udp"), ("SCTP", "sctp")])?;
        if ports.iter().any(|known: &ReadPort| (known.protocol, known.port) == (protocol, number)) {
            return Err(port.wrong("port", format!("{number} is there twice")));
        }
        let to = match port.raw("targetPort") {
            Some(Value::String(name)) => Target::Name(name.clone()),
            None => Target::Number(number),
            Some(_) => {
                let to = port.number("targetPort", 1..=65_535)?.unwrap_or(0);
                Target::Number(u16::try_from(to).unwrap_or(0))
            }
        };
        ports.push(ReadPort { protocol, port: number, to, path: port.at("targetPort") });
    }
    let has_address = address != "None";
    if has_address && ports.is_empty() {
        return Err(spec.wrong("ports", "are missing"));
    }
    let selector = spec.pairs("selector")?;
    if selector.is_empty() {
        return Err(spec.wrong("selector", "is missing: a Service leads to pods of the same file"));
    }
    Ok(Read { name: name.to_string(), selector, has_address, ports })
}

impl Reading {
    /// Gives the pods the names by which the Services that select them find them. Gives those that have an address.
    pub(super) fn lead_services(&mut self, warnings: &Warnings) -> Result<Vec<Service>, Refusal> {
        let mut all = vec![];
        for service in std::mem::take(&mut self.services) {
            let object = format!("service/{}", service.name);
            let names = match service.has_address {
                true => vec![pods_name(&service.name)],
                false => names(&service.name).to_vec(),
            };
            let mut numbers: BTreeMap<String, u16> = BTreeMap::new();
            let mut is_any = false;
            for pod in self.workloads.iter_mut().flat_map(pods) {
                let fits = |(key, value): (&String, &String)| pod.labels.get(key) == Some(value);
                if !service.selector.iter().all(fits) {
                    continue;
                }
                is_any = true;
                pod.aliases.extend(names.iter().cloned());
                if pod.aliases.len() > ALIASES_MAX {
                    let message = format!(
                        "pod {} would have more than {ALIASES_MAX} names: 1 by each Service, 4 by one without address",
                        pod.name
                    );
                    return Err(Refusal::new(&object, "spec.selector", message));
                }
                for (name, number) in &pod.port_names {
                    if *numbers.entry(name.clone()).or_insert(*number) != *number {
                        let message = format!("the port {name:.63} has several numbers among its pods");
                        return Err(Refusal::new(&object, "spec.ports", message));
                    }
                }
            }
            if !is_any {
                warnings.add(&object, "spec.selector", "no pod of this file fits: the name leads nowhere");
            }
            match service.has_address && is_any {
                true => all.push(service.resolved(&object, &numbers)?),
                false => self.parts.push(object),
            }
        }
        Ok(all)
    }
}

/// The pods of a workload, and what further copies of them are made of.
fn pods(workload: &mut Workload) -> impl Iterator<Item = &mut Pod> {
    workload.pods.iter_mut().chain(workload.copies.iter_mut().map(|copies| &mut copies.template))
}

impl Read {
    fn resolved(self, object: &str, numbers: &BTreeMap<String, u16>) -> Result<Service, Refusal> {
        let port = |port: &ReadPort| {
            let to = match &port.to {
                Target::Number(number) => Some(*number),
                Target::Name(name) => {
                    numbers.get(name).copied().or_else(|| name.parse().ok().filter(|port| *port > 0))
                }
            };
            let missing = || Refusal::new(object, &port.path, "its pods have no port of this name");
            Ok(ServicePort { protocol: port.protocol, port: port.port, to: to.ok_or_else(missing)? })
        };
        Ok(Service { ports: self.ports.iter().map(port).collect::<Result<_, _>>()?, name: self.name })
    }
}
