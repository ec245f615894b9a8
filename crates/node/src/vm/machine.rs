//! The virtual hardware of one boot, and the record of it.
//!
//! What a guest sees of its machine must not change under it: a restore or a migration replays the record, and a cold
//! start keeps the machine type for as long as this QEMU still has it. Pure, but for reading and writing the record.

use model::{
    id::InstanceId,
    plan::{BootPlan, InstancePlan, VmPlan},
};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{accel::Accelerator, device::Layout};

/// What QEMU and its surroundings on this host offer.
#[derive(Debug, Clone, PartialEq)]
pub struct HostFacts {
    /// The program.
    pub program: PathBuf,
    /// `7.2.22`.
    pub qemu_version: String,
    /// The versioned name that `q35` stands for: `pc-q35-7.2`.
    pub q35: String,
    /// Every machine type that this QEMU has.
    pub machine_types: Vec<String>,
    /// `/dev/vhost-net` can be opened.
    pub vhost_net: bool,
    /// UEFI firmware, if it is installed.
    pub uefi: Option<UefiFirmware>,
}

/// UEFI firmware: code that all VMs share and a template of the variables that each gets a copy of.
#[derive(Debug, Clone, PartialEq)]
pub struct UefiFirmware {
    /// `OVMF_CODE_4M.fd`.
    pub code: PathBuf,
    /// `OVMF_VARS_4M.fd`.
    pub variables: PathBuf,
}

/// The virtual hardware of one boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Versioned machine type.
    pub machine_type: String,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// CPU model with its flags, as QEMU's `-cpu` takes it.
    pub cpu_model: String,
    /// Sockets.
    pub sockets: u32,
    /// Cores of a socket.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// UEFI rather than BIOS (meaningless with a direct kernel).
    pub uefi: bool,
    /// Version of the QEMU that made it.
    pub qemu_version: String,
    /// Where its cards and disks are.
    #[serde(default)]
    pub layout: Layout,
}

/// The record of a boot, kept beside the instance's sockets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootRecord {
    /// The instance.
    pub instance: InstanceId,
    /// Which boot, `InstancePlan::boot`.
    pub boot: u64,
    /// The hardware.
    pub machine: Machine,
}

impl Machine {
    /// The hardware of a cold start. `recorded` is the machine of the boot before, if there was one.
    pub fn for_boot(
        plan: &InstancePlan,
        vm: &VmPlan,
        facts: &HostFacts,
        accelerator: Accelerator,
        recorded: Option<&Machine>,
    ) -> Machine {
        let still_there = |machine: &&Machine| facts.machine_types.contains(&machine.machine_type);
        let machine_type = recorded.filter(still_there).map_or(&facts.q35, |machine| &machine.machine_type);
        Machine {
            machine_type: machine_type.clone(),
            accelerator,
            cpu_model: cpu_model(accelerator).to_owned(),
            sockets: 1,
            cores: plan.vcpus,
            threads: 1,
            memory_mib: plan.memory_mib,
            uefi: matches!(vm.boot, BootPlan::Firmware { uefi: true }),
            qemu_version: facts.qemu_version.clone(),
            // Guests name cards by their place.
            layout: recorded.map_or(Layout::Bridge, |machine| machine.layout),
        }
    }

    /// Virtual CPUs.
    pub fn vcpus(&self) -> u32 {
        self.sockets * self.cores * self.threads
    }

    /// Memory that the emulated instructions of a guest may take in QEMU, in MiB: large guests run more code.
    pub fn translation_cache_mib(&self) -> u64 {
        match self.accelerator {
            Accelerator::Kvm => 0,
            Accelerator::Tcg => (self.memory_mib / 4).clamp(64, 512),
        }
    }

    /// Limit of QEMU's control group in MiB: the guest's memory and what QEMU itself needs at most: 192 MiB for the
    /// program, video memory, queues and block caches, 8 MiB for each vCPU, 1 % for page tables and bitmaps, and the
    /// translation cache.
    pub fn memory_limit_mib(&self) -> u64 {
        let own = 192 + 8 * u64::from(self.vcpus()) + self.memory_mib / 100;
        self.memory_mib + own + self.translation_cache_mib()
    }
}

/// The processor that a guest finds, as QEMU spells it.
pub fn cpu_model(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "host",
        // Five-level page tables cost an emulated guest much and give it nothing.
        Accelerator::Tcg => "max,la57=off",
    }
}

impl BootRecord {
    /// Reads a record; `None` if there is none or it is of no use.
    pub fn read(path: &Path) -> io::Result<Option<BootRecord>> {
        match fs::read(path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("plain data becomes JSON");
        Ok(sys::file::write_atomic(path, &text, 0o600)?)
    }
}
