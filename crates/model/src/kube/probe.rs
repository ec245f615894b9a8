//! Probes of containers: times in seconds become milliseconds, names of ports their numbers.

use super::{Refusal, field::Fields};
use crate::health::probe::{Action, LINES_RULE, Probe, Probes};
use serde_json::Value;
use std::collections::BTreeMap;

/// Reads the probes of a container whose ports have these names.
pub(super) fn read(container: &Fields<'_>, ports: &BTreeMap<String, u16>) -> Result<Probes, Refusal> {
    Ok(Probes {
        startup: probe(container, "startupProbe", ports)?,
        readiness: probe(container, "readinessProbe", ports)?,
        liveness: probe(container, "livenessProbe", ports)?,
    })
}

fn probe(
    container: &Fields<'_>,
    name: &str,
    ports: &BTreeMap<String, u16>,
) -> Result<Option<Probe>, Refusal> {
    let Some(fields) = container.child(name)? else { return Ok(None) };
    let seconds = |field: &str, usual: u64, least: u64| {
        Ok::<u64, Refusal>(fields.number(field, least..=86_400)?.unwrap_or(usual) * 1_000)
    };
    let count = |field: &str, usual: u64| {
        let number = fields.number(field, 1..=1_000)?.unwrap_or(usual);
        Ok::<u32, Refusal>(u32::try_from(number).unwrap_or(1))
    };
    let probe = Probe {
        action: match grpc(&fields, ports)? {
            Some(action) => action,
            None => action(&fields, ports, "exec, tcpSocket, httpGet and grpc")?,
        },
        delay_ms: seconds("initialDelaySeconds", 0, 0)?,
        interval_ms: seconds("periodSeconds", 10, 1)?,
        timeout_ms: seconds("timeoutSeconds", 1, 1)?,
        successes: count("successThreshold", 1)?,
        failures: count("failureThreshold", 3)?,
    };
    if name != "readinessProbe" && probe.successes != 1 {
        return Err(fields.wrong("successThreshold", "is to be 1 but for readiness"));
    }
    probe.check_bounds().map_err(|wrong| container.wrong(name, wrong.to_string()))?;
    if probe.breaks_lines() {
        return Err(container.wrong(name, LINES_RULE));
    }
    Ok(Some(probe))
}

/// A question by gRPC, which is asked alone and at a port that has a number.
fn grpc(fields: &Fields<'_>, ports: &BTreeMap<String, u16>) -> Result<Option<Action>, Refusal> {
    let Some(grpc) = fields.child("grpc")? else { return Ok(None) };
    for other in ["exec", "tcpSocket", "httpGet"] {
        fields.refuse(other, "is one question too many beside grpc")?;
    }
    let service = grpc.text("service")?.unwrap_or_default();
    Ok(Some(Action::Grpc { port: port(&grpc, ports)?, service }))
}

/// What is asked: one of these `kinds`, gRPC left out.
pub(super) fn action(
    fields: &Fields<'_>,
    ports: &BTreeMap<String, u16>,
    kinds: &str,
) -> Result<Action, Refusal> {
    let exec = fields.child("exec")?;
    let tcp = fields.child("tcpSocket")?;
    let http = fields.child("httpGet")?;
    match (exec, tcp, http) {
        (Some(exec), None, None) => {
            let argv = exec.texts("command")?.filter(|argv| !argv.is_empty());
            argv.map(|argv| Action::Exec { argv }).ok_or_else(|| exec.wrong("command", "is missing"))
        }
        (None, Some(tcp), None) => {
            tcp.refuse("host", "only the pod itself is asked")?;
            Ok(Action::Tcp { port: port(&tcp, ports)? })
        }
        (None, None, Some(http)) => {
            http.refuse("host", "only the pod itself is asked; the header Host can be set in httpHeaders")?;
            let tls = http.word("scheme", &[("HTTP", false), ("HTTPS", true)])?;
            let header =
                |header: &Fields<'_>| Ok((header.needed("name")?, header.text("value")?.unwrap_or_default()));
            let headers = http.children("httpHeaders")?;
            Ok(Action::Http {
                port: port(&http, ports)?,
                path: http.text("path")?.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".into()),
                headers: headers.iter().map(header).collect::<Result<_, Refusal>>()?,
                tls,
            })
        }
        _ => Err(Refusal::new(fields.object(), fields.path(), format!("has one of {kinds}"))),
    }
}

/// A port by number or by its name in the container.
fn port(fields: &Fields<'_>, ports: &BTreeMap<String, u16>) -> Result<u16, Refusal> {
    match fields.raw("port") {
        Some(Value::String(name)) => ports
            .get(name)
            .copied()
            .or_else(|| name.parse().ok().filter(|port| *port > 0))
            .ok_or_else(|| fields.wrong("port", format!("the container has no port called {name:.40}"))),
        _ => {
            let number = fields.number("port", 1..=65_535)?;
            let number = number.ok_or_else(|| fields.wrong("port", "is missing"))?;
            Ok(u16::try_from(number).unwrap_or(0))
        }
    }
}
