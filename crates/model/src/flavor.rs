//! Flavors: named sizes.

use crate::{
    id::{FlavorId, ProjectId},
    meta::Meta,
    name::Name,
    record::Record,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most virtual CPUs of an instance.
pub const VCPUS_MAX: u32 = 512;
/// Least and most memory of an instance in MiB.
pub const MEMORY_MIB: std::ops::RangeInclusive<u64> = 4..=16 * 1024 * 1024;
/// Largest disk in GiB.
pub const DISK_GIB_MAX: u64 = 64 * 1024;
/// Most projects that one flavor is opened to while it is not public.
pub const PROJECTS_MAX: usize = 1_000;
/// Longest id of a flavor that who makes it chooses, in characters.
pub const FLAVORID_CHARS_MAX: usize = 255;

/// A named size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flavor {
    /// Head.
    pub meta: Meta<FlavorId>,
    /// What it gives.
    pub size: Size,
    /// Every project may use it.
    pub public: bool,
    /// Projects that may use it while it is not public.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub projects: BTreeSet<ProjectId>,
    /// Id that OpenStack's clients know it by, where who made it chose one that is no UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavorid: Option<String>,
    /// Extra specs as OpenStack knows them.
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
}

impl Flavor {
    /// The id that OpenStack's clients know it by.
    pub fn openstack_id(&self) -> String {
        self.flavorid.clone().unwrap_or_else(|| self.meta.id.to_string())
    }

    /// Whether `project` may use it.
    pub fn is_open_to(&self, project: ProjectId) -> bool {
        self.public || self.projects.contains(&project)
    }
}

/// CPU, memory and disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Root disk in GiB; 0: as large as the image.
    pub disk_gib: u64,
}

/// Why a text names no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no flavor name with a size in it, like g1.c1m512, g2.c2m4g or g4.r8c4d20")]
pub struct SizeNameError(pub String);

/// Reads a size out of a name: a family, a dot, then `cN` CPUs, `rN` GiB or `mN` MiB (`mNg` GiB) memory and `dN` GiB
/// disk in any order, like `g1.c1m512` or `g4.r8c4`.
///
/// # Errors
/// The name does not have this form.
pub fn size_from_name(name: &Name) -> Result<Size, SizeNameError> {
    let wrong = || SizeNameError(name.to_string());
    let (_, letters) = name.as_str().split_once('.').ok_or_else(wrong)?;
    let mut size = Size { vcpus: 0, memory_mib: 0, disk_gib: 0 };
    let mut rest = letters;
    while let Some(unit) = rest.chars().next() {
        let digits: String = rest[1..].chars().take_while(char::is_ascii_digit).collect();
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        rest = &rest[1 + digits.len()..];
        match unit {
            'c' => size.vcpus = u32::try_from(number).map_err(|_| wrong())?,
            'r' => size.memory_mib = number.checked_mul(1024).ok_or_else(wrong)?,
            'm' if rest.starts_with('g') => {
                rest = &rest[1..];
                size.memory_mib = number.checked_mul(1024).ok_or_else(wrong)?;
            }
            'm' => size.memory_mib = number,
            'd' => size.disk_gib = number,
            _ => return Err(wrong()),
        }
    }
    if size.vcpus == 0 || size.memory_mib == 0 { Err(wrong()) } else { Ok(size) }
}

/// The sizes that a new cloud starts with.
pub fn defaults() -> Vec<(&'static str, Size)> {
    let size = |vcpus, memory_mib, disk_gib| Size { vcpus, memory_mib, disk_gib };
    vec![
        ("g1.c1m128", size(1, 128, 1)),
        ("g1.c1m256", size(1, 256, 4)),
        ("g1.c1m512", size(1, 512, 8)),
        ("g2.c1m1g", size(1, 1024, 10)),
        ("g2.c1m2g", size(1, 2048, 20)),
        ("g2.c2m4g", size(2, 4096, 40)),
        ("g4.r8c4", size(4, 8192, 80)),
        ("g8.r16c8", size(8, 16384, 160)),
    ]
}

impl Record for Flavor {
    const TABLE: &'static str = "flavor";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_sizes() {
        for (name, vcpus, memory_mib, disk_gib) in
            [("g1.c1m512", 1, 512, 0), ("g4.r8c4", 4, 8192, 0), ("x.c2m4gd30", 2, 4096, 30)]
        {
            let size = size_from_name(&name.parse().unwrap()).unwrap();
            assert_eq!((size.vcpus, size.memory_mib, size.disk_gib), (vcpus, memory_mib, disk_gib), "{name}");
        }
        for bad in ["small", "g1.", "g1.c1", "g1.cm", "g1.c1m512x", "g1.c1m999999999999999999999"] {
            assert!(size_from_name(&bad.parse().unwrap()).is_err(), "{bad}");
        }
        for (name, size) in defaults() {
            let read = size_from_name(&name.parse().unwrap()).unwrap();
            assert_eq!((read.vcpus, read.memory_mib), (size.vcpus, size.memory_mib), "{name}");
        }
    }
}
