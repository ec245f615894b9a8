//! Network cards of a pod that runs: plugged in and out under its programs.
//!
//! On the host's kernel a card is one end of a veth pair, and all is done in the pod's namespace. A machine is given it by
//! QEMU's monitor first, as a VM is, and then whoever is the first process inside makes of it what it would be here; on the way
//! out in the other order. Each step looks first and does what is missing: after a crash between two of them all is done
//! again, and what a machine has that is in nobody's list is asked for by the loop that had it plugged in.

use super::{NICS, PodDriver, blocking, io_error, machine, read_json, write_json};
use crate::{
    container::{
        bundle::Places,
        files::work::readable,
        machine::{order::Machine, qemu::MONITOR},
        network,
        protocol::Request,
    },
    driver::DriverError,
    vm::{
        hotplug, launch,
        qmp::{DEADLINE, Qmp},
    },
};
use model::{
    id::{InstanceId, PortId},
    plan::NicPlan,
};
use std::path::Path;
use sys::netns::NetNs;

impl PodDriver {
    pub(super) async fn plug_in(&self, id: InstanceId, nic: &NicPlan) -> Result<(), DriverError> {
        let (places, nic) = (self.places(id), nic.clone());
        match self.machine_of(&places).await? {
            None => blocking(move || plug_here(&places, nic)).await,
            Some(machine) => {
                let monitor = monitor(&places.run, nic.port).await?;
                self.give_card(id, &monitor, &machine, &nic).await?;
                blocking(move || note(&places.run, nic)).await
            }
        }
    }

    pub(super) async fn plug_out(&self, id: InstanceId, port: PortId) -> Result<(), DriverError> {
        let places = self.places(id);
        if self.machine_of(&places).await?.is_none() {
            return blocking(move || plug_out_here(&places, port)).await;
        }
        let monitor = monitor(&places.run, port).await?;
        self.ask_about_card(id, port, Request::Unplug { port }).await?;
        hotplug::detach_nic(&monitor, port).await?;
        blocking(move || forget(&places.run, port)).await
    }

    async fn machine_of(&self, places: &Places) -> Result<Option<Machine>, DriverError> {
        let places = places.clone();
        blocking(move || Ok(machine::of(&places))).await
    }

    /// Plugs a card into a machine, and has it set up there.
    async fn give_card(
        &self,
        id: InstanceId,
        monitor: &Qmp,
        machine: &Machine,
        nic: &NicPlan,
    ) -> Result<(), DriverError> {
        if !hotplug::attached(monitor).await?.0.contains(&nic.port) {
            let (plan, vhost) = (nic.clone(), machine.vhost_net);
            let files = blocking(move || launch::open_card(&plan, vhost)).await?;
            hotplug::attach_nic(monitor, nic, files).await?;
        }
        self.ask_about_card(id, nic.port, Request::Plug { nic: Box::new(nic.clone()) }).await
    }

    /// Asks the machine's first process, whose words are a guest's.
    async fn ask_about_card(
        &self,
        id: InstanceId,
        port: PortId,
        request: Request,
    ) -> Result<(), DriverError> {
        match self.ask(id, request).await {
            Ok(_) => Ok(()),
            Err(DriverError::Refused { answer, .. }) => Err(DriverError::Refused {
                operation: format!("have the pod's machine take the card of port {port}"),
                answer: readable(&answer),
            }),
            Err(error) => Err(error),
        }
    }
}

/// The monitor of a pod's machine. One that an older holm has started has none.
async fn monitor(run: &Path, port: PortId) -> Result<Qmp, DriverError> {
    let path = run.join(MONITOR);
    if !path.exists() {
        return Err(machine::unsupported_nic(port));
    }
    Ok(Qmp::connect(&path, DEADLINE).await?)
}

/// Plugs a card into a pod on the host's kernel.
fn plug_here(places: &Places, nic: NicPlan) -> Result<(), DriverError> {
    let namespace =
        NetNs::open(&places.netns).map_err(|error| io_error("open the pod's network")(error.into()))?;
    let at = || format!("plug in port {}", nic.port);
    let number = match network::plugged(&namespace, &nic).map_err(io_error(at()))? {
        Some(number) => number,
        None => network::free_number(&namespace).map_err(io_error(at()))?,
    };
    network::plug(&namespace, &nic, number).map_err(io_error(at()))?;
    note(&places.run, nic)
}

fn plug_out_here(places: &Places, port: PortId) -> Result<(), DriverError> {
    let Some(nic) = noted(&places.run).into_iter().find(|nic| nic.port == port) else {
        return Ok(());
    };
    if let Ok(namespace) = NetNs::open(&places.netns) {
        network::unplug(&namespace, &nic).map_err(io_error(format!("unplug port {port}")))?;
    }
    forget(&places.run, port)
}

fn noted(run: &Path) -> Vec<NicPlan> {
    read_json(&run.join(NICS)).unwrap_or_default()
}

/// Notes that the pod has a card.
fn note(run: &Path, nic: NicPlan) -> Result<(), DriverError> {
    let mut nics = noted(run);
    nics.retain(|known| known.port != nic.port);
    nics.push(nic);
    write_json(&run.join(NICS), &nics)
}

fn forget(run: &Path, port: PortId) -> Result<(), DriverError> {
    let mut nics = noted(run);
    nics.retain(|known| known.port != port);
    write_json(&run.join(NICS), &nics)
}
