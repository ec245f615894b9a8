//! What a node writes of an instance: what was seen, in the words of the model.

use crate::driver::Seen;
use jiff::Timestamp;
use model::{
    error::Fault,
    id::{InstanceId, NodeId},
    instance::{InstanceStatus, State},
};
use serde_json::Value;

/// Fact of an instance that ended: the start of its last run, in milliseconds since 1970.
const STARTED_MS: &str = "started_ms";
/// Fact of an instance that runs, and of each of its containers: the number of its process on the host.
const PID: &str = "pid";

/// The status of an instance of which nothing was seen yet.
pub fn fresh(id: InstanceId, node: NodeId) -> InstanceStatus {
    InstanceStatus {
        id,
        node,
        state: State::Absent,
        boot: 0,
        progress: String::new(),
        fault: None,
        fault_generation: 0,
        failures: 0,
        restarts: 0,
        restarted_at: None,
        stop_asked_at: None,
        ports: vec![],
        volumes: vec![],
        grant: None,
        disk_waits: false,
        layers: Default::default(),
        keys: None,
        keys_refused: String::new(),
        asleep: false,
        gone: false,
        host_boot: String::new(),
        facts: serde_json::Map::new(),
        at: Timestamp::UNIX_EPOCH,
    }
}

/// Writes that a guest was started. One that ends at once is never seen running.
pub fn write_start(status: &mut InstanceStatus, host_boot: &str) {
    status.host_boot = host_boot.to_string();
    status.progress.clear();
    status.fault = None;
    status.stop_asked_at = None;
}

/// Writes what was seen into a status. Leaves what no sight tells: progress, fault, what was asked.
pub fn write_seen(status: &mut InstanceStatus, seen: &Seen, host_boot: &str, now: Timestamp) {
    super::restart::forgive(status, now);
    let ran_since = ran_since(status);
    let slept = std::mem::replace(&mut status.asleep, matches!(seen, Seen::Asleep { .. }));
    match seen {
        Seen::Asleep { boot } => {
            if !slept {
                let cause = "its memory is on disk".to_string();
                status.state = State::Stopped { code: None, cause, failed: false, at: now };
            }
            status.boot = *boot;
            status.host_boot = host_boot.to_string();
            status.stop_asked_at = None;
        }
        // The host was restarted while it slept.
        Seen::Absent if slept => {
            let cause = "its memory was thrown away".to_string();
            status.state = State::Stopped { code: None, cause, failed: false, at: now };
        }
        // What ran and vanished without a trace ended with the host or was removed by hand.
        Seen::Absent if status.boot > 0 => {
            status.stop_asked_at = None;
            if !matches!(status.state, State::Stopped { .. }) {
                let cause = if status.host_boot == host_boot {
                    "it vanished from the host"
                } else {
                    "the host was restarted"
                };
                status.state = State::Stopped { code: None, cause: cause.into(), failed: true, at: now };
            }
        }
        Seen::Absent => status.state = State::Absent,
        Seen::Stopped(exit) => {
            let same = matches!(&status.state, State::Stopped { code, cause, .. }
                if *code == exit.code && *cause == exit.cause && status.boot == exit.boot);
            if !same {
                let (code, cause, failed) = (exit.code, exit.cause.clone(), exit.failed);
                status.state = State::Stopped { code, cause, failed, at: now };
            }
            if !same {
                status.facts.extend(exit.facts.clone());
                tell_start(status, exit.started_ms.or(ran_since.filter(|_| status.boot == exit.boot)));
            }
            status.boot = exit.boot;
            // It may have come and gone without ever being seen to run.
            status.host_boot = host_boot.to_string();
            status.stop_asked_at = None;
        }
        Seen::Running(running) | Seen::Paused(running) | Seen::Stalled(running) => {
            let since = Timestamp::from_millisecond(running.since_ms).unwrap_or(Timestamp::UNIX_EPOCH);
            status.state = match seen {
                Seen::Running(_) => State::Running { since },
                _ => State::Paused { since },
            };
            if status.boot != running.boot {
                // Another boot was asked; this one was not.
                status.stop_asked_at = None;
            }
            status.boot = running.boot;
            status.facts.clone_from(&running.facts);
            status.facts.insert(PID.into(), running.pid.into());
            status.host_boot = host_boot.to_string();
            status.progress.clear();
        }
    }
    if !matches!(seen, Seen::Running(_) | Seen::Paused(_) | Seen::Stalled(_)) {
        forget_processes(status);
    }
}

/// Nothing of it runs: the numbers of its processes may be others' by now.
fn forget_processes(status: &mut InstanceStatus) {
    status.facts.remove(PID);
    let containers = status.facts.get_mut("containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten().filter(|it| !it[PID].is_null()) {
        container[PID] = Value::Null;
        container["status"] = "exited".into();
    }
}

/// Start of the run that was last seen, in milliseconds since 1970.
fn ran_since(status: &InstanceStatus) -> Option<i64> {
    match &status.state {
        State::Running { since } | State::Paused { since } => Some(since.as_millisecond()),
        State::Absent | State::Stopped { .. } => None,
    }
}

/// Who was seen to run has its start from that, who came and went meanwhile from what is told of the end.
fn tell_start(status: &mut InstanceStatus, started_ms: Option<i64>) {
    match started_ms {
        Some(ms) => drop(status.facts.insert(STARTED_MS.into(), ms.into())),
        None => drop(status.facts.remove(STARTED_MS)),
    }
}

/// Writes what went wrong with a generation of the wish, and counts it.
pub fn write_fault(status: &mut InstanceStatus, fault: Fault, generation: u64) {
    tell(status, fault, generation);
    status.failures = status.failures.saturating_add(1);
}

/// Writes what stands in the way of a generation of the wish. The same again has been there since it was first seen.
pub fn tell(status: &mut InstanceStatus, mut fault: Fault, generation: u64) {
    if let Some(old) = &status.fault
        && (old.code, &old.message) == (fault.code, &fault.message)
    {
        fault.since = old.since;
    }
    status.fault = Some(fault);
    status.fault_generation = generation;
    status.progress.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Exit, Running};
    use serde_json::json;

    #[test]
    fn what_does_not_run_has_no_process() {
        let facts = json!({ "containers": [{ "name": "main", "status": "running", "pid": 4712 }], "cpu_model": "host" });
        let facts = facts.as_object().unwrap().clone();
        let running = Running { pid: 4711, since_ms: 1, boot: 1, facts };
        let ended = |facts| Seen::Stopped(Exit { boot: 1, facts, ..Exit::default() });
        for after in [Seen::Absent, Seen::Asleep { boot: 1 }, ended(Default::default())] {
            let mut status = fresh(InstanceId::from_random([1; 16]), NodeId::from_random([2; 16]));
            write_seen(&mut status, &Seen::Running(running.clone()), "boot", Timestamp::UNIX_EPOCH);
            assert_eq!(
                (&status.facts["pid"], &status.facts["containers"][0]["pid"]),
                (&json!(4711), &json!(4712))
            );
            write_seen(&mut status, &after, "boot", Timestamp::UNIX_EPOCH);
            let left = json!({ "containers": [{ "name": "main", "status": "exited", "pid": null }], "cpu_model": "host" });
            status.facts.remove(STARTED_MS);
            assert_eq!(Value::from(status.facts), left, "{after:?}");
        }
    }
}
