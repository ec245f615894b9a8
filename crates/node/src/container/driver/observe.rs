//! Finds out what a pod does, and ends it, whether its shim lives, has ended or was killed.

use super::{PodDriver, blocking, describe, io_error, machine, network, read_json};
use crate::{
    container::{
        bundle::{Places, Pod},
        cgroup::PodGroup,
        client::Client,
        machine::order::Machine,
        protocol::{ContainerState, LOCK, POD, PodState, Reply, Request, SOCKET, STATE, Status},
    },
    driver::{DriverError, Exit, Running, Seen},
};
use model::{
    id::{InstanceId, VolumeId},
    instance::content::Role,
    plan::NicPlan,
};
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};
use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};
use sys::{file::Lock, netlink::Netlink, netns::NetNs};
use tokio::io::AsyncBufReadExt;

/// Name of the file that tells which volumes a pod has, below its run directory.
pub(super) const VOLUMES: &str = "volumes.json";
/// How long a shim may take to end after everything was killed.
const END_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for a pod with a kernel of its own, which brings to its disks what is in its memory.
const MACHINE_END_TIMEOUT: Duration = Duration::from_secs(50);
/// How long a look waits for a machine whose containers have ended.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at a shim that is ending.
const END_POLL: Duration = Duration::from_millis(5);

/// What is there.
pub(super) fn observe(places: &Places) -> Result<Seen, DriverError> {
    match ask_state(places)? {
        Some(state) if state.alive() => return Ok(alive(&state, machine::of(places).as_ref())),
        Some(state) => match machine::of(places) {
            // Its disks are open until its relay has let go, which is a matter of a moment.
            Some(machine) if !lets_go(places) => return Ok(alive(&state, Some(&machine))),
            _ => return Ok(Seen::Stopped(exit(&state))),
        },
        None => {}
    }
    let pod: Option<Pod> = read_json(&places.state.join(POD));
    let state: Option<PodState> = read_json(&places.run.join(STATE));
    match state {
        Some(state) if state.alive() => {
            let left = kill_orphans(places)?;
            Ok(Seen::Stopped(lost(&state, left)))
        }
        Some(state) if pod.as_ref().is_none_or(|pod| pod.boot == state.boot) => {
            Ok(Seen::Stopped(exit(&state)))
        }
        // Written and never started: this boot has not happened, so the start is done again. Stopped at the boot before.
        _ if places.run.is_dir() => {
            kill_orphans(places)?;
            Ok(pod.map_or(Seen::Absent, |pod| {
                Seen::Stopped(Exit {
                    code: None,
                    cause: "its start was cut short".into(),
                    failed: true,
                    boot: pod.boot.saturating_sub(1),
                    started_ms: None,
                    facts: Map::new(),
                })
            }))
        }
        // The host was restarted, which empties the run directory: nothing that ran since is here.
        _ => {
            kill_orphans(places)?;
            Ok(Seen::Absent)
        }
    }
}

/// Waits for a moment until nobody holds the pod. Tells whether that is so.
fn lets_go(places: &Places) -> bool {
    let deadline = Instant::now() + LET_GO_TIMEOUT;
    while shim_starts(places) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(END_POLL);
    }
    true
}

/// The state as the shim tells it. `None` if no shim lives.
pub(super) fn ask_state(places: &Places) -> Result<Option<PodState>, DriverError> {
    let client = Client::connect(&places.run).map_err(io_error("connect to the shim"))?;
    let Some(mut client) = client else { return Ok(None) };
    match super::answer(client.ask(&Request::State, &[])) {
        Ok(Reply::State(state)) => Ok(Some(state)),
        Ok(_) | Err(DriverError::NotRunning) => Ok(None),
        // Killed while it was asked.
        Err(DriverError::Io { source, .. }) if is_hangup(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn alive(state: &PodState, machine: Option<&Machine>) -> Seen {
    let running = Running {
        pid: state.shim.pid as u32,
        since_ms: state.since_ms,
        boot: state.boot,
        facts: facts(state, machine),
    };
    if state.paused { Seen::Paused(running) } else { Seen::Running(running) }
}

/// Containers with their states and restarts.
fn containers(state: &PodState) -> Map<String, Value> {
    let containers: Vec<Value> = state
        .containers
        .iter()
        .map(|it| {
            let (status, pid, since_ms) = match it.status {
                Status::Created => ("created", None, None),
                Status::Running { process, .. } if it.starting => ("starting", Some(process.pid), None),
                Status::Running { process, since_ms } => ("running", Some(process.pid), Some(since_ms)),
                Status::Waiting { .. } => ("restarting", None, None),
                Status::Exited => ("exited", None, None),
            };
            json!({
                "name": it.name,
                "status": status,
                "role": (!it.role.is_main()).then(|| it.role.as_str()),
                "pid": pid,
                "since_ms": since_ms,
                "restarts": it.restarts,
                "exit_code": it.exit.as_ref().map(|exit| exit.code),
                "cause": it.exit.as_ref().map(|exit| exit.cause()),
                "started_ms": it.exit.as_ref().and_then(|exit| exit.started_ms),
            })
        })
        .collect();
    Map::from_iter([("containers".to_string(), Value::from(containers))])
}

/// The same, what keeps them in, and the machine around them.
fn facts(state: &PodState, machine: Option<&Machine>) -> Map<String, Value> {
    let mut facts = containers(state);
    if let Some(cpus) = crate::host::cpus_of(state.shim.pid) {
        facts.insert("host_cpus".into(), cpus.into());
    }
    if let Some(machine) = machine {
        facts.insert("accelerator".into(), machine.accelerator.as_str().into());
        facts.insert("acceleration".into(), machine.acceleration.as_str().into());
        facts.insert("machine_type".into(), machine.machine_type.as_str().into());
    }
    if !state.confinement.is_empty() {
        facts.insert("confinement".into(), state.confinement.as_str().into());
    }
    facts
}

/// How a pod ended: as its first container that failed, else as its first container.
fn exit(state: &PodState) -> Exit {
    // How those end that serve others says nothing of the pod.
    let counts = |it: &&ContainerState| it.role != Role::Sidecar;
    let exits =
        || state.containers.iter().filter(counts).filter_map(|it| Some((&it.name, it.exit.as_ref()?)));
    let told = exits().find(|(_, exit)| exit.code != 0).or_else(|| exits().next());
    match told {
        None => Exit {
            code: None,
            cause: "it was not started".into(),
            failed: false,
            boot: state.boot,
            started_ms: None,
            facts: containers(state),
        },
        Some((name, exit)) => {
            let cause = if state.containers.len() > 1 {
                format!("container {name}: {}", exit.cause())
            } else {
                exit.cause()
            };
            Exit {
                code: Some(exit.code),
                cause,
                failed: exit.code != 0 && !exit.requested,
                boot: state.boot,
                started_ms: exit.started_ms,
                facts: containers(state),
            }
        }
    }
}

fn lost(state: &PodState, orphans: usize) -> Exit {
    let cause = match orphans {
        0 => "its shim ended unexpectedly, and its processes with it".to_string(),
        count => format!("its shim ended unexpectedly; {count} processes without one were killed"),
    };
    Exit { code: None, cause, failed: true, boot: state.boot, started_ms: None, facts: Map::new() }
}

/// Kills processes that have no shim any more. Tells how many there were.
fn kill_orphans(places: &Places) -> Result<usize, DriverError> {
    if shim_starts(places) {
        return Ok(0);
    }
    let group = PodGroup::open(places).map_err(io_error("look at the cgroups"))?;
    let left = group.processes().map_err(io_error("look at the pod's processes"))?.len();
    if left > 0 {
        group.kill().map_err(io_error("kill the pod's processes"))?;
    }
    group.delete().map_err(io_error("remove the pod's cgroup"))?;
    Ok(left)
}

/// Whether a shim holds the pod's lock: it is being set up and does not listen yet, or is leaving.
pub(super) fn shim_starts(places: &Places) -> bool {
    let lock = places.run.join(LOCK);
    lock.exists() && matches!(Lock::try_create(&lock), Ok(None))
}

/// Ends all processes of the pod and its shim. Nothing there is no error.
pub(super) fn end(places: &Places) -> Result<(), DriverError> {
    let is_machine = machine::of(places).is_some();
    end_shim(places, is_machine, if is_machine { MACHINE_END_TIMEOUT } else { END_TIMEOUT })?;
    kill_orphans(places).map(|_| ())
}

/// Ends a shim, or the relay that stands for it: by a word as soon as it listens, and in the end by force. A machine that still
/// boots has its plug pulled, and its relay ends with it. It has let go of its disks then.
fn end_shim(places: &Places, is_machine: bool, patience: Duration) -> Result<(), DriverError> {
    let deadline = Instant::now() + patience;
    let mut is_asked = false;
    while shim_starts(places) {
        if !is_asked
            && let Some(mut client) = Client::connect(&places.run).map_err(io_error("connect to the shim"))?
        {
            // Whether it answers or not, what matters is that it ends.
            let _ = client.ask(&Request::Shutdown, &[]);
            is_asked = true;
        }
        if is_machine && !is_asked {
            let group = PodGroup::open(places).map_err(io_error("look at the cgroups"))?;
            group.kill().map_err(io_error("kill the pod's machine"))?;
        }
        if Instant::now() >= deadline {
            return kill_shim(places, patience);
        }
        std::thread::sleep(END_POLL);
    }
    Ok(())
}

/// Kills whoever holds the pod's lock: one that hangs may have written and said nothing yet, and no daemon remembers it.
fn kill_shim(places: &Places, waited: Duration) -> Result<(), DriverError> {
    let kill = || {
        for holder in Lock::holders(&places.run.join(LOCK))? {
            tracing::warn!(pid = holder.pid(), run = %places.run.display(), "a shim that does not end is killed");
            holder.send_signal(Signal::SIGKILL)?;
            holder.wait_exit(END_TIMEOUT)?;
        }
        Ok(())
    };
    kill().map_err(|error: sys::error::Error| io_error("kill the shim")(error.into()))?;
    if shim_starts(places) {
        let after_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        return Err(DriverError::Timeout { what: "the end of the pod's shim".into(), after_ms });
    }
    Ok(())
}

/// Volumes that the running pod has.
pub(super) fn volumes(places: &Places) -> Vec<VolumeId> {
    read_json(&places.run.join(VOLUMES)).unwrap_or_default()
}

impl PodDriver {
    /// Waits for changes of a running pod and tells them, until its shim ends. Once per pod.
    pub(super) async fn watch(&self, id: InstanceId) {
        if !self.watched.lock().await.insert(id) {
            return;
        }
        let (driver, run) = (self.clone(), self.places(id).run);
        // Ends with the shim, whose socket closes.
        tokio::spawn(async move {
            if let Err(error) = driver.follow(id, &run).await {
                tracing::debug!(%id, error = describe(&error), "watching a pod ended");
            }
            driver.watched.lock().await.remove(&id);
            let _ = driver.changes.send(id);
        });
    }

    async fn follow(&self, id: InstanceId, run: &Path) -> io::Result<()> {
        let stream = tokio::net::UnixStream::connect(run.join(SOCKET)).await?;
        let (reading, mut writing) = stream.into_split();
        let mut line = serde_json::to_vec(&Request::Watch)?;
        line.push(b'\n');
        tokio::io::AsyncWriteExt::write_all(&mut writing, &line).await?;
        let mut lines = tokio::io::BufReader::new(reading).lines();
        let mut boots = None;
        // The first is the answer, not a change; but a change may have been before it.
        while let Some(line) = lines.next_line().await? {
            let restarts = restarts_in(&line);
            if std::mem::replace(&mut boots, restarts) != restarts {
                self.plug_again(id).await;
            }
            let _ = self.changes.send(id);
        }
        Ok(())
    }

    /// A system that went down may have taken its addresses away; it finds them again when it comes up. Its shim does that before
    /// it boots again, unless it is one that an older daemon started.
    async fn plug_again(&self, id: InstanceId) {
        let places = self.places(id);
        let plugged = blocking(move || {
            let pod: Option<Pod> = read_json(&places.state.join(POD));
            if !pod.is_some_and(|pod| pod.is_system()) {
                return Ok(());
            }
            let nics: Vec<NicPlan> = read_json(&places.run.join(super::NICS)).unwrap_or_default();
            let inside = NetNs::open(&places.netns).and_then(|namespace| Netlink::open(&namespace));
            let inside = inside.map_err(|error| io_error("open the pod's network")(error.into()))?;
            network::plug_again(&inside, &nics).map_err(io_error("give it its addresses again"))
        });
        if let Err(error) = plugged.await {
            tracing::warn!(%id, error = describe(&error), "the network of a system could not be set again");
        }
    }
}

/// How often a container was started again, by what the shim tells.
fn restarts_in(line: &str) -> Option<u32> {
    match serde_json::from_str(line) {
        Ok(Reply::State(state)) => state.containers.first().map(|it| it.restarts),
        _ => None,
    }
}

/// Forgets what a former run of the pod wrote, so that it is not taken for the new one's.
pub(super) fn forget_last_run(places: &Places) -> io::Result<()> {
    match fs::remove_file(places.run.join(STATE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{bundle::tests::example, machine};
    use std::process::Command;

    /// What hangs, whether in the middle of its boot or before it has written a line, is known by its lock alone.
    #[test]
    fn a_shim_that_hangs_is_killed_by_its_lock() {
        for is_machine in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let mut pod = example();
            pod.places.state = directory.path().join("state");
            pod.places.run = directory.path().join("run");
            pod.places.netns = directory.path().join("netns");
            pod.places.cgroup_root = format!("holm-observe-test-{}", std::process::id());
            pod.machine = is_machine.then(machine::example);
            super::super::prepare_directories(&pod.places).unwrap();
            super::super::write_json(&pod.places.state.join(POD), &pod).unwrap();
            let lock = pod.places.run.join(LOCK);
            let mut hung = Command::new("flock").arg(lock).args(["sleep", "600"]).spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(30);
            while !shim_starts(&pod.places) {
                assert!(Instant::now() < deadline, "it has no lock");
                std::thread::sleep(END_POLL);
            }
            end_shim(&pod.places, is_machine, Duration::from_millis(50)).unwrap();
            assert!(!shim_starts(&pod.places));
            let ended = hung.try_wait();
            assert!(!matches!(ended, Ok(None)), "{ended:?}");
            // Nothing there is no error.
            end(&pod.places).unwrap();
        }
    }
}
