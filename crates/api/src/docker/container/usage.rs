//! What containers use, and their processes.

use super::found::{self, Found};
use crate::{
    app::Asker,
    docker::{door::Door, id, query::Query, refusal::not_honoured, watch},
    error::{Failure, Result},
    streams::{DiskTraffic, Process, Traffic, Usage},
};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::StreamExt;
use jiff::{Timestamp, tz::TimeZone};
use model::{error::Code, id::InstanceId, instance::Instance};
use serde_json::{Map, Value, json};
use std::{convert::Infallible, time::Duration};
use tokio::time::sleep;

/// Between two looks at what a container uses.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was measured at a time.
#[derive(Debug, Clone)]
struct Sample {
    usage: Usage,
    traffic: Vec<Traffic>,
    disks: Option<DiskTraffic>,
    at: Timestamp,
}

/// GET of what one uses: once, or again and again.
pub async fn stats(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let found = found::find(&door, &caller, &name)?;
    let instance = found.instance().clone();
    if !query.flag_or_on("stream") {
        let first = if query.flag("one-shot") { None } else { sample(&door, &instance).await };
        if first.is_some() {
            sleep(INTERVAL).await;
        }
        let now = sample(&door, &instance).await;
        return Ok(Json(told(&door, &instance, now.as_ref(), first.as_ref())).into_response());
    }
    let slot = door.app().stream_slot(&caller)?;
    let ended = slot.ended();
    let samples =
        futures::stream::unfold((door, instance, None, slot), |(door, instance, before, slot)| async move {
            if before.is_some() {
                sleep(INTERVAL).await;
            }
            let now = sample(&door, &instance).await;
            let is_there = watch::look(&door, instance.meta.id).instance.is_some();
            let line = is_there
                .then(|| told(&door, &instance, now.as_ref(), before.flatten().as_ref()))
                .map(|told| Bytes::from(format!("{told}\n")))?;
            Some((Ok::<_, Infallible>(line), (door, instance, Some(now), slot)))
        });
    let body = Body::from_stream(samples.take_until(ended.cancelled_owned()));
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

/// What it uses now; `None` where it does not run.
async fn sample(door: &Door, instance: &Instance) -> Option<Sample> {
    let usage = door.app().streams().usage(instance).await.ok()?;
    let traffic = door.app().streams().traffic(instance).await;
    let disks = door.app().streams().disk_traffic(instance).await;
    Some(Sample { usage, traffic, disks, at: door.control().now() })
}

fn told(door: &Door, instance: &Instance, now: Option<&Sample>, before: Option<&Sample>) -> Value {
    let cpus = cpus(door, instance.meta.id);
    let memory = now.map_or_else(|| json!({}), |sample| memory(instance, sample.usage));
    json!({
        "name": format!("/{}", instance.meta.name),
        "id": id::of(instance.meta.id),
        "read": now.map_or(super::state::NEVER.to_string(), |sample| sample.at.to_string()),
        "preread": before.map_or(super::state::NEVER.to_string(), |sample| sample.at.to_string()),
        "num_procs": 0,
        "pids_stats": now.map_or_else(|| json!({}), |sample| json!({"current": sample.usage.pids})),
        "blkio_stats": {"io_service_bytes_recursive": now.and_then(|sample| sample.disks).map(disks)},
        "storage_stats": {},
        "cpu_stats": cpu(now, cpus),
        "precpu_stats": cpu(before, cpus),
        "memory_stats": memory,
        "networks": networks(now.map_or(&[], |sample| &sample.traffic)),
    })
}

/// Counters by the interfaces' names.
fn networks(traffic: &[Traffic]) -> Map<String, Value> {
    let told = |it: &Traffic| {
        let Traffic { interface, received, sent } = it;
        let counters = json!({
            "rx_bytes": received.bytes,
            "rx_packets": received.packets,
            "rx_errors": received.errors,
            "rx_dropped": received.dropped,
            "tx_bytes": sent.bytes,
            "tx_packets": sent.packets,
            "tx_errors": sent.errors,
            "tx_dropped": sent.dropped,
        });
        (format!("eth{interface}"), counters)
    };
    traffic.iter().map(told).collect()
}

/// All disks are told as one, since those of a VM have no numbers on the host.
fn disks(traffic: DiskTraffic) -> Value {
    let one = |operation: &str, bytes: u64| json!({"major": 0, "minor": 0, "op": operation, "value": bytes});
    json!([one("read", traffic.read_bytes), one("write", traffic.written_bytes)])
}

/// CPUs of the host.
fn cpus(door: &Door, id: InstanceId) -> u64 {
    let instance = watch::look(door, id).instance;
    let node = instance.and_then(|stored| stored.record.node);
    let status =
        node.and_then(|node| door.control().store().get::<model::node::NodeStatus>(&node.to_string()));
    status.map_or(1, |status| u64::from(status.record.cpus.max(1)))
}

/// Docker's clients divide what a container used by what the whole host could have used meanwhile.
fn cpu(sample: Option<&Sample>, cpus: u64) -> Value {
    let Some(Sample { usage, at, .. }) = sample else {
        return json!({"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}});
    };
    let host_ns = u64::try_from(at.as_nanosecond()).unwrap_or(0).wrapping_mul(cpus);
    json!({
        "cpu_usage": {"total_usage": nanoseconds(usage.cpu_usage_us), "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "system_cpu_usage": host_ns,
        "online_cpus": cpus,
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": nanoseconds(usage.cpu_throttled_us)},
    })
}

/// What is told comes from guests, too: it is no reason to stop.
fn nanoseconds(microseconds: u64) -> u64 {
    microseconds.saturating_mul(1000)
}

fn memory(instance: &Instance, usage: Usage) -> Value {
    json!({
        "usage": usage.memory_bytes,
        "stats": {"inactive_file": usage.memory_inactive_file_bytes},
        "limit": instance.size.memory_mib.saturating_mul(1 << 20),
    })
}

/// GET of its processes.
pub async fn top(
    State(door): State<Door>,
    Asker(caller): Asker,
    Path(name): Path<String>,
    query: Query,
) -> Result<Json<Value>> {
    let found: Found = found::find(&door, &caller, &name)?;
    found.require_running()?;
    if let Some(other) = query.text("ps_args").filter(|text| !matches!(*text, "-ef" | "-e -f")) {
        return Err(not_honoured("ps_args", format!("{other:?}: processes are told as by `ps -ef`")));
    }
    let processes = door.app().streams().processes(found.instance()).await.map_err(|error| {
        if error.code == Code::Conflict {
            Failure::new(Code::Conflict, format!("container {} is not running", id::of(found.id())))
        } else {
            error.into()
        }
    })?;
    let now = door.control().now();
    let rows: Vec<Vec<String>> = processes.iter().map(|process| row(process, now)).collect();
    Ok(Json(json!({
        "Titles": ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"],
        "Processes": rows,
    })))
}

fn row(process: &Process, now: Timestamp) -> Vec<String> {
    let started = Timestamp::from_second(process.started_s).unwrap_or(now);
    let age_s = now.as_second().saturating_sub(process.started_s).max(1);
    let share = process.cpu_s.saturating_mul(100) / age_s.unsigned_abs();
    let started = started.to_zoned(TimeZone::UTC);
    let shape = if age_s < 24 * 3600 { "%H:%M" } else { "%b%d" };
    let seconds = process.cpu_s;
    vec![
        process.uid.to_string(),
        process.pid.to_string(),
        process.parent.to_string(),
        share.min(99).to_string(),
        started.strftime(shape).to_string(),
        if process.has_terminal { "pts/0".into() } else { "?".into() },
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        process.argv.join(" "),
    ]
}

/// Bytes that it has written, and these with its image's.
pub async fn sizes(door: &Door, found: &Found) -> (u64, u64) {
    // One that never ran has written nothing, and nothing is made for it only to be weighed.
    let has_run = found.status().is_some_and(|status| status.boot > 0);
    let written = match has_run {
        // One that is being started or ended at this moment cannot be weighed.
        true => door.app().streams().written_bytes(found.instance()).await.unwrap_or(0),
        false => 0,
    };
    let image_bytes = found.content(door).map_or(0, |content| content.virtual_bytes);
    (written, image_bytes.saturating_add(written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_boasts_of_is_told_and_stops_nobody() {
        let usage = Usage {
            cpu_usage_us: u64::MAX,
            cpu_throttled_us: u64::MAX,
            memory_bytes: u64::MAX,
            memory_inactive_file_bytes: u64::MAX,
            pids: u64::MAX,
        };
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let told = cpu(Some(&Sample { usage, traffic: vec![], disks: None, at: now }), 2);
        assert_eq!(told["cpu_usage"]["total_usage"], u64::MAX);
        assert_eq!(told["throttling_data"]["throttled_time"], u64::MAX);
        for started_s in [i64::MIN, i64::MAX, 0] {
            let process = Process { started_s, cpu_s: u64::MAX, ..Process::default() };
            let row = row(&process, now);
            assert_eq!(row.len(), 8);
            assert!(row[3].parse::<u64>().expect("a share in percent") <= 99);
        }
    }
}
