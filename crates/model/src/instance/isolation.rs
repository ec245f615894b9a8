//! What stands between a pod's programs and its host: the host's kernel, or one of their own.

use serde::{Deserialize, Serialize};

/// Memory that a pod's machine has beside what the pod was given, in MiB: its kernel, and the shim in it. What that boots from
/// comes on top, and differs from host to host (`NodeStatus::guest_overhead_mib`).
pub const GUEST_OVERHEAD_MIB: u64 = 96;
/// Disk in GiB of a pod with a machine of its own that asks for none: what its containers write must go somewhere.
pub const OWN_DISK_GIB: u64 = 10;

/// How a pod is kept from its host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Namespaces and a filter of system calls on the host's kernel.
    #[default]
    Shared,
    /// The same, inside of a small virtual machine with a kernel of its own.
    Vm,
}

impl Isolation {
    /// Name on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Vm => "vm",
        }
    }

    /// Whether it is the usual one, which nothing is said of.
    pub fn is_shared(&self) -> bool {
        *self == Self::Shared
    }
}

impl std::str::FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "shared" => Ok(Self::Shared),
            "vm" => Ok(Self::Vm),
            _ => Err(format!(
                "{text:.32?} is no isolation: shared (the host's kernel) and vm (one of its own) are"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for isolation in [Isolation::Shared, Isolation::Vm] {
            assert_eq!(isolation.as_str().parse(), Ok(isolation));
            assert_eq!(serde_json::to_value(isolation).unwrap(), isolation.as_str());
        }
        assert!("hyperv".parse::<Isolation>().unwrap_err().contains("shared"));
    }
}
