//! Logs as they come from a guest, on their way to the files of their containers.

use super::super::far_log::{take_name, write_records};
use crate::container::{bundle::Pod, log::LogWriter};
use std::collections::BTreeMap;

/// The log of a container, as it comes over a channel.
#[derive(Default)]
pub(super) struct Coming {
    pub(super) bytes: Vec<u8>,
    container: Option<String>,
}

impl Coming {
    /// Writes what is whole.
    ///
    /// # Errors
    /// What came is no log of the pod's.
    pub(super) fn write(
        &mut self,
        pod: &Pod,
        writers: &mut BTreeMap<String, LogWriter>,
    ) -> Result<(), &'static str> {
        if self.container.is_none() {
            self.container = take_name(&mut self.bytes)?;
        }
        let Some(name) = &self.container else { return Ok(()) };
        if !writers.contains_key(name) {
            let container = pod.containers.iter().find(|it| it.name == *name);
            let container = container.ok_or("the guest has a log of a container that the pod has not")?;
            writers.insert(name.clone(), LogWriter::new(&container.log, container.log_limits));
        }
        match writers.get_mut(name) {
            Some(log) => write_records(&mut self.bytes, log),
            None => Ok(()),
        }
    }
}
