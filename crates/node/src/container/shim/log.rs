//! Where the output of a container goes: to files here, or to whoever holds them where its path is a socket.

use crate::container::{bundle::Container, log::LogWriter, machine::far_log::FarLog};
use jiff::Timestamp;
use std::{fs, os::unix::fs::FileTypeExt};

/// A container's log, as its shim writes it.
#[derive(Debug)]
pub enum TaskLog {
    /// Files, rotated here.
    Here(LogWriter),
    /// Elsewhere.
    Far(FarLog),
}

impl TaskLog {
    /// The log of a container that is to run.
    pub fn new(container: &Container) -> Self {
        let is_socket = fs::metadata(&container.log).is_ok_and(|meta| meta.file_type().is_socket());
        if is_socket {
            return Self::Far(FarLog::connect(&container.log, &container.name));
        }
        Self::Here(LogWriter::new(&container.log, container.log_limits))
    }

    /// Takes output of stream 1 or 2.
    pub fn write(&mut self, now: Timestamp, stream: u8, bytes: &[u8]) {
        match self {
            Self::Here(log) => log.write(now, stream, bytes),
            Self::Far(log) => log.write(stream, bytes),
        }
    }

    /// Lines that were begun will not be ended.
    pub fn flush(&mut self, now: Timestamp) {
        match self {
            Self::Here(log) => log.flush(now),
            Self::Far(log) => log.flush(),
        }
    }
}
