//! Interfaces of instances, plugged and unplugged while they run.

use super::action::refuse_asleep;
use crate::{Caller, Control, Error, Result, instance::NicAsked};
use model::{
    error::Code,
    id::PortId,
    instance::{Instance, PORTS_MAX},
    port::{Device, Port},
};

impl Control {
    /// Plugs an interface into an instance, while it runs too.
    ///
    /// # Errors
    /// `too_large`, `in_use`, `not_found`, `forbidden`, and what making a port may refuse.
    pub async fn attach_port(&self, caller: &Caller, reference: &str, nic: &NicAsked) -> Result<Port> {
        let port_id = PortId::from_random(rand::random());
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, "attaching an interface")?;
            let id = found.record.meta.id;
            refuse_asleep(&found.record)?;
            if found.record.ports.len() >= PORTS_MAX {
                let message = format!("an instance has at most {PORTS_MAX} network interfaces");
                return Err(Error::new(Code::TooLarge, message));
            }
            let owner = Caller { project: found.record.meta.project, ..caller.clone() };
            let port = match nic {
                NicAsked::New(new) => {
                    self.add_asked_port(tx, &owner, port_id, new, Device::Instance(id), true)?
                }
                NicAsked::Port { port, tag } => self.take_port(tx, &owner, id, port, tag.as_ref())?,
            };
            let mut next = found.record.clone();
            let mut ports = self.ports_of(&next.ports);
            ports.push(port.clone());
            self.settle_outside(tx, &next, &ports, &[], &[], false)?;
            next.ports.push(port.meta.id);
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(port)
        })
        .await
    }

    /// Unplugs an interface; done when the guest let go of it.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn detach_port(&self, caller: &Caller, reference: &str, port: &str) -> Result<Instance> {
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, "detaching an interface")?;
            let port = self.find_for::<Port>(caller, "port", port)?;
            let id = port.record.meta.id;
            refuse_asleep(&found.record)?;
            if !found.record.ports.contains(&id) {
                let message = format!("{} has no port {}", found.record.meta.name, port.record.meta.name);
                return Err(Error::new(Code::NotFound, message).field("port"));
            }
            let mut next = found.record.clone();
            next.ports.retain(|p| *p != id);
            // What was published over this port goes over another one from now on, if one leads outside.
            self.settle_outside(tx, &next, &self.ports_of(&next.ports), &[], &[], false)?;
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }
}
