//! Opening the files of a pod's first container, whether it runs or not.

use super::{PodDriver, blocking, describe, io_error, maintenance::Resting, observe, read_json};
use crate::{
    container::{
        bundle::{self, Pod},
        files::{
            ContainerFiles, FilesError, OpenFiles,
            inside::{InsideFiles, Machine},
        },
        protocol::POD,
        root_disk,
    },
    driver::DriverError,
};
use model::plan::InstancePlan;
use std::time::{Duration, Instant};

/// How long it is waited for a shim that starts or ends its pod at this moment.
const MOVING_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at it.
const MOVING_POLL: Duration = Duration::from_millis(10);

impl PodDriver {
    pub(super) async fn open_files(&self, plan: &InstancePlan) -> Result<OpenFiles, DriverError> {
        let turn = self.turns.look(plan.id).await;
        let places = self.places(plan.id);
        let next = bundle::bundle(plan, places.clone())
            .map_err(|error| DriverError::Unsupported { what: describe(&error), hint: String::new() })?;
        let scratch = self.config.run.join("files");
        let (ids, resting) = (plan.id_range.count, Resting::new(self.clone(), plan.clone()));
        let is_in_machine = plan.is_pod_in_machine();
        blocking(move || {
            let deadline = Instant::now() + MOVING_TIMEOUT;
            loop {
                if let Some(state) = observe::ask_state(&places)?.filter(|state| state.alive()) {
                    if is_in_machine {
                        let machine = Machine::Runs(places.run);
                        return Ok(OpenFiles::Inside(InsideFiles::new(machine, ids, turn)));
                    }
                    let pod: Pod = read_json(&places.state.join(POD)).ok_or_else(|| {
                        io_error("read what the pod runs")(std::io::ErrorKind::InvalidData.into())
                    })?;
                    let shim = (state.shim.pid, state.shim.start_time);
                    let files = ContainerFiles::of_running(pod, shim, turn).map_err(DriverError::Files);
                    return files.map(OpenFiles::Here);
                }
                if !observe::shim_starts(&places) {
                    if is_in_machine {
                        // It is not started before it is known what is asked.
                        let machine = Machine::Rests(Box::new(resting));
                        return Ok(OpenFiles::Inside(InsideFiles::new(machine, ids, turn)));
                    }
                    let files = ContainerFiles::of_stopped(next, scratch, turn, root_disk::make);
                    return files.map(OpenFiles::Here);
                }
                if Instant::now() >= deadline {
                    return Err(DriverError::Files(FilesError::Moving));
                }
                std::thread::sleep(MOVING_POLL);
            }
        })
        .await
    }
}
