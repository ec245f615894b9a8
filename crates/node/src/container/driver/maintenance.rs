//! The machine of a pod that does not run, started for work on its files alone.
//!
//! The host reads no file system that a guest wrote, so what is asked of the files of a stopped pod with a kernel of its own is
//! done by such a machine: the pod's disks and volumes, little memory, no network, and nothing of the pod started. All of it has
//! places of its own, so the pod stays what it is to everybody who looks.
//!
//! ```text
//!   <state>/pods/<id>/maintenance/   pod.json  shim.log  console.log  base-0.ext4
//!   <run>/maintenance/<id>/          shim.sock  shim.lock  volumes.json           <root>/m-<id>   its cgroup
//! ```
//!
//! Nothing is remembered here either: the lock says whether there is one, and a connection to its socket keeps it. It ends by
//! itself a moment after the last of them (`relay::maintenance`), whoever began it. A start or a removal of the pod ends it
//! first, in order; both take the pod's turn alone, and who looks has a turn, too. One that hangs is killed by whoever needs it
//! or needs it gone, whichever daemon began it: whom the kernel names as the holder of its lock.

pub(super) mod place;

use super::{
    PodDriver, answer, blocking, describe, io_error, observe, prepare_directories, remove_directory,
    write_json,
};
use crate::{
    container::{
        bundle::{self, Places, Pod},
        client::Client,
        files::{FilesError, Kept, turn::Turn},
        machine::order::Machine,
        protocol::{POD, Reply, Request},
        root_disk,
    },
    driver::DriverError,
};
use model::{
    id::{InstanceId, VolumeId},
    plan::InstancePlan,
};
use place::Place;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Memory in MiB that such a machine has beside what its kernel takes: for files on their way.
const MEMORY_MIB: u64 = 96;
/// Name of its directory below the pod's.
const DIRECTORY: &str = "maintenance";
/// How long it is waited for one that boots for somebody else, or is on its way out.
const MOVING_TIMEOUT: Duration = Duration::from_secs(175);
/// Between two looks at it.
const MOVING_POLL: Duration = Duration::from_millis(20);

/// A pod with a machine of its own that does not run.
#[derive(Debug)]
pub(in crate::container) struct Resting {
    driver: PodDriver,
    /// What its next start would run.
    plan: InstancePlan,
}

/// A machine that is up and stays so while this lives.
#[derive(Debug)]
pub(in crate::container) struct Roused {
    /// Where its socket is.
    pub run: PathBuf,
    _connection: Client,
    _place: Place,
}

impl Resting {
    pub(super) fn new(driver: PodDriver, plan: InstancePlan) -> Self {
        Self { driver, plan }
    }

    /// Has the machine up, by starting it if it is not. Given up when somebody waits for the end of this turn. A start that was
    /// begun goes on all the same, and nobody else begins anything before it is over: none is half done. `kept` is held until
    /// then.
    ///
    /// # Errors
    /// `Moving` then; else why it cannot be started.
    pub(in crate::container) async fn rouse(
        &self,
        turn: &Turn,
        kept: Option<Kept>,
    ) -> Result<Roused, FilesError> {
        let (driver, plan) = (self.driver.clone(), self.plan.clone());
        let (hurry, rousing) = (turn.hurry.clone(), Arc::clone(&turn.rousing));
        let gone = CancellationToken::new();
        let _asks = gone.clone().drop_guard();
        let work = async {
            let place = driver.allotment.take(plan.project).await?;
            let started = tokio::spawn(async move {
                let _one_at_a_time = rousing.lock_owned().await;
                // Whoever it was that waited may have started the pod since.
                if hurry.is_cancelled() || gone.is_cancelled() {
                    return Err(DriverError::Files(FilesError::Moving));
                }
                let (run, connection) = driver.rouse(&plan).await?;
                drop(kept);
                Ok(Roused { run, _connection: connection, _place: place })
            });
            let lost = |error| Err(io_error("start its machine")(std::io::Error::other(error)));
            started.await.unwrap_or_else(lost)
        };
        tokio::select! {
            biased;
            () = turn.hurry.cancelled() => Err(FilesError::Moving),
            roused = work => roused.map_err(|error| match error {
                DriverError::Files(error) => error,
                error => FilesError::Machine(Box::new(error)),
            }),
        }
    }
}

impl PodDriver {
    /// Where things of a pod's machine for maintenance are.
    pub(super) fn maintenance_places(&self, id: InstanceId) -> Places {
        let pods = self.places(id);
        Places {
            state: pods.state.join(DIRECTORY),
            run: self.maintenance_runs().join(id.hex()),
            // There never is one.
            netns: pods.netns.with_file_name(format!("m-{}", id.hex())),
            cgroup_root: pods.cgroup_root,
            cgroup: format!("m-{}", id.hex()),
        }
    }

    pub(super) fn maintenance_runs(&self) -> PathBuf {
        self.config.run.join(DIRECTORY)
    }

    /// The run directory of the machine, and what keeps it up.
    async fn rouse(&self, plan: &InstancePlan) -> Result<(PathBuf, Client), DriverError> {
        let places = self.maintenance_places(plan.id);
        let hold = async |places: Places| blocking(move || hold(&places)).await;
        match hold(places.clone()).await {
            Ok(Some(connection)) => return Ok((places.run, connection)),
            Ok(None) => {}
            // Nobody else has anything of it either: another one takes its place.
            Err(DriverError::Timeout { .. }) => {
                tracing::warn!(id = %plan.id, "the machine for work on its files hangs, and is ended");
            }
            Err(error) => return Err(error),
        }
        self.start_for_maintenance(plan, &places).await?;
        let connection = hold(places.clone()).await?;
        // It has ended at once.
        let connection = connection.ok_or(DriverError::Files(FilesError::Moving))?;
        Ok((places.run, connection))
    }

    async fn start_for_maintenance(&self, plan: &InstancePlan, places: &Places) -> Result<(), DriverError> {
        let plan = InstancePlan { vcpus: 1, memory_mib: MEMORY_MIB, nics: vec![], ..plan.clone() };
        let pod = bundle::bundle(&plan, places.clone())
            .map_err(|error| DriverError::Unsupported { what: describe(&error), hint: String::new() })?;
        let offer = self.offer(&plan).await?;
        let (driver, at) = (self.clone(), places.clone());
        blocking(move || {
            end(&at)?;
            let offer = offer.ok_or(DriverError::NotRunning)?;
            let furnished = |pod: &Pod| driver.furnish(&plan, pod, offer);
            write(&plan, pod, furnished)
        })
        .await?;
        let started = self.nursery.start_shim(places.state.clone(), None).await;
        if matches!(started, Err(DriverError::Timeout { .. })) {
            // It has the pod's disks open, and would keep them.
            let at = places.clone();
            blocking(move || end(&at)).await?;
        }
        started
    }

    /// The volumes that the machine for maintenance of a pod has open.
    pub(super) async fn lent_volumes(&self, id: InstanceId) -> Result<Vec<VolumeId>, DriverError> {
        let places = self.maintenance_places(id);
        blocking(move || {
            let is_there = observe::shim_starts(&places);
            Ok(if is_there { observe::volumes(&places) } else { vec![] })
        })
        .await
    }
}

/// Writes down what the machine is.
fn write(
    plan: &InstancePlan,
    mut pod: Pod,
    furnish: impl FnOnce(&Pod) -> Result<Machine, DriverError>,
) -> Result<(), DriverError> {
    root_disk::make_for_machine(&pod)?;
    prepare_directories(&pod.places)?;
    // Nothing of it is run: nobody in there is told what only its programs are.
    for container in &mut pod.containers {
        container.process.env.clear();
        container.process.secret_env = Default::default();
    }
    pod.machine = Some(Machine { maintenance: true, ..furnish(&pod)? });
    let volumes: Vec<VolumeId> = plan.disks.iter().map(|disk| disk.volume).collect();
    write_json(&pod.places.run.join(observe::VOLUMES), &volumes)?;
    write_json(&pod.places.state.join(POD), &pod)
}

/// Connects to the machine and has its word that it stays; waits while it boots or ends. `None` where there is none. Blocking.
fn hold(places: &Places) -> Result<Option<Client>, DriverError> {
    let deadline = Instant::now() + MOVING_TIMEOUT;
    loop {
        let client = Client::connect(&places.run).map_err(io_error("connect to its machine"))?;
        if let Some(mut client) = client {
            match answer(client.ask(&Request::State, &[])) {
                Ok(Reply::Done) => return Ok(Some(client)),
                // It is on its way out.
                Ok(_) | Err(DriverError::NotRunning | DriverError::Io { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if !observe::shim_starts(places) {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            let after_ms = MOVING_TIMEOUT.as_millis() as u64;
            return Err(DriverError::Timeout { what: "the machine for work on its files".into(), after_ms });
        }
        std::thread::sleep(MOVING_POLL);
    }
}

/// Ends the machine in order, if there is one, and removes what was made for it. Blocking.
///
/// # Errors
/// It does not end; what cannot be removed.
pub(super) fn end(places: &Places) -> Result<(), DriverError> {
    if places.run.exists() || places.state.exists() {
        observe::end(places)?;
        remove_directory(&places.run)?;
        remove_directory(&places.state)?;
    }
    Ok(())
}
