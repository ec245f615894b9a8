//! The capabilities of a container: docker's default list, plus and minus what the user asked for.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sys::jail::privilege::CAPABILITIES;

/// A set of capabilities, as the bits of the kernel's numbers. Written as a list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(u64);

/// A name that is no capability of Linux.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a capability")]
pub struct CapabilityError(pub String);

/// What a container has when nothing is asked for.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What a system container has: what an init and its services use, over its own namespaces alone. Left out is what the
/// kernel gives nobody but the host's root (clock, modules, devices' registers, the kernel's log), so that services which
/// ask for it know beforehand that they are not to run.
const SYSTEM: [&str; 28] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TTY_CONFIG",
];

impl Default for Capabilities {
    fn default() -> Self {
        DEFAULT
            .iter()
            .fold(Self::none(), |set, name| set.with(bit(name).expect("the default list is of known names")))
    }
}

impl Capabilities {
    /// No capability.
    pub fn none() -> Self {
        Self(0)
    }
    /// Every capability of Linux.
    pub fn all() -> Self {
        Self((1 << CAPABILITIES.len()) - 1)
    }
    /// The default set without `drop` and with `add`. `ALL` names every capability, and `CAP_` may be left out.
    ///
    /// Dropping happens first, so that "drop ALL, add NET_BIND_SERVICE" gives one.
    pub fn chosen(add: &[String], drop: &[String]) -> Result<Self, CapabilityError> {
        Self::default().changed(add, drop)
    }
    /// As [`Self::chosen`], from the set of a system container.
    pub fn chosen_for_system(add: &[String], drop: &[String]) -> Result<Self, CapabilityError> {
        let known = |name| bit(name).expect("the list is of known names");
        SYSTEM.iter().fold(Self::none(), |set, name| set.with(known(name))).changed(add, drop)
    }
    fn changed(self, add: &[String], drop: &[String]) -> Result<Self, CapabilityError> {
        let mut set = self;
        for name in drop {
            set.0 &= !Self::named(name)?.0;
        }
        for name in add {
            set.0 |= Self::named(name)?.0;
        }
        Ok(set)
    }
    fn named(name: &str) -> Result<Self, CapabilityError> {
        if name.eq_ignore_ascii_case("ALL") {
            return Ok(Self::all());
        }
        bit(name).map(|bit| Self(1 << bit)).ok_or_else(|| CapabilityError(name.to_string()))
    }
    fn with(self, bit: usize) -> Self {
        Self(self.0 | 1 << bit)
    }
    /// Whether the set holds a capability.
    pub fn contains(self, name: &str) -> bool {
        bit(name).is_some_and(|bit| self.0 & 1 << bit != 0)
    }
    /// The bits as the kernel numbers them.
    pub fn mask(self) -> u64 {
        self.0
    }
    /// The names, in the kernel's order.
    pub fn names(self) -> Vec<&'static str> {
        CAPABILITIES
            .into_iter()
            .enumerate()
            .filter(|(bit, _)| self.0 & 1 << bit != 0)
            .map(|(_, name)| name)
            .collect()
    }
}

fn bit(name: &str) -> Option<usize> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    CAPABILITIES.iter().position(|known| known.strip_prefix("CAP_") == Some(name))
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.names().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Capabilities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let mut set = Self::none();
        for name in names {
            set.0 |= Self::named(&name).map_err(de::Error::custom)?.0;
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_dockers() {
        assert_eq!(Capabilities::default().mask(), 0xa804_25fb);
    }

    #[test]
    fn what_is_dropped_and_added() {
        let chosen = |add: &[&str], drop: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
            Capabilities::chosen(&owned(add), &owned(drop)).map(Capabilities::names)
        };
        assert_eq!(chosen(&["net_admin"], &["ALL"]), Ok(vec!["CAP_NET_ADMIN"]));
        assert_eq!(chosen(&[], &["all"]), Ok(vec![]));
        assert_eq!(chosen(&["ALL"], &[]).map(|names| names.len()), Ok(41));
        assert_eq!(chosen(&["CAP_FLY"], &[]), Err(CapabilityError("CAP_FLY".into())));
        let system = Capabilities::chosen_for_system(&[], &[]).expect("known names");
        assert!(system.contains("SYS_ADMIN") && system.contains("SYS_BOOT"), "what an init needs");
        for name in ["SYS_MODULE", "SYS_RAWIO", "SYS_TIME", "SYSLOG", "BPF", "PERFMON", "MAC_ADMIN"] {
            assert!(!system.contains(name), "{name}");
        }
    }
}
