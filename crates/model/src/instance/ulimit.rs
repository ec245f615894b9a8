//! Limits of a container's processes, each for itself (getrlimit(2)).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What can be limited, as docker names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Bytes of a core file.
    Core,
    /// Seconds of processor time.
    Cpu,
    /// Bytes of data segments.
    Data,
    /// Bytes of a written file.
    Fsize,
    /// Locks of files.
    Locks,
    /// Bytes held in memory.
    Memlock,
    /// Bytes in POSIX message queues.
    Msgqueue,
    /// How far the nice value can be lowered.
    Nice,
    /// Open files.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Resident bytes; the kernel takes it and does nothing.
    Rss,
    /// Real-time priority.
    Rtprio,
    /// Microseconds of real-time processor time without a wait.
    Rttime,
    /// Waiting signals.
    Sigpending,
    /// Bytes of the stack.
    Stack,
}

/// The limit that a process may move, and how far; `u64::MAX` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What holds.
    pub soft: u64,
    /// How far a process may raise it.
    pub hard: u64,
}

/// Limits by what they limit.
pub type Ulimits = BTreeMap<Resource, Ulimit>;

/// Every resource with its name and its number in the kernel's tables, which are the same on all machines that holm runs
/// on (asm-generic/resource.h).
pub const RESOURCES: [(Resource, &str, u32); 15] = [
    (Resource::Core, "core", 4),
    (Resource::Cpu, "cpu", 0),
    (Resource::Data, "data", 2),
    (Resource::Fsize, "fsize", 1),
    (Resource::Locks, "locks", 10),
    (Resource::Memlock, "memlock", 8),
    (Resource::Msgqueue, "msgqueue", 12),
    (Resource::Nice, "nice", 13),
    (Resource::Nofile, "nofile", 7),
    (Resource::Nproc, "nproc", 6),
    (Resource::Rss, "rss", 5),
    (Resource::Rtprio, "rtprio", 14),
    (Resource::Rttime, "rttime", 15),
    (Resource::Sigpending, "sigpending", 11),
    (Resource::Stack, "stack", 3),
];

impl Resource {
    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        RESOURCES.iter().find(|(_, known, _)| *known == name).map(|(resource, ..)| *resource)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        RESOURCES.iter().find(|(resource, ..)| *resource == self).map_or("", |(_, name, _)| *name)
    }

    /// Its number in the kernel's tables.
    pub fn number(self) -> u32 {
        RESOURCES.iter().find(|(resource, ..)| *resource == self).map_or(u32::MAX, |(.., number)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_has_a_name_and_a_number_of_its_own() {
        let numbers: std::collections::BTreeSet<u32> = RESOURCES.iter().map(|(.., n)| *n).collect();
        assert_eq!(numbers.len(), RESOURCES.len());
        for (resource, name, number) in RESOURCES {
            assert_eq!(
                (Resource::of_name(name), resource.name(), resource.number()),
                (Some(resource), name, number)
            );
            assert_eq!(serde_json::to_value(resource).unwrap(), name, "it is stored by its name");
        }
        assert_eq!(Resource::of_name("as"), None);
    }
}
