//! QEMU for a pod: its command line as a pure function of the machine, and its process.
//!
//! A pod's machine has less than a VM of a user's: no disk is plugged while it runs, no video, no firmware that looks for
//! disks. Network cards are on buses of their own, where they are plugged in and out by its monitor; all else lies on the root
//! bus, as functions of its slots, so that the largest pod has room. It is confined as those are: the instance's own user, a
//! seccomp filter of its own, namespaces of its own, every file handed over open. It ends with its relay, and by powering
//! itself off.

use super::{
    PORT, boot,
    order::{Machine, MachineDisk},
};
use crate::{
    container::{bundle::Pod, cgroup::PodGroup},
    driver::DriverError,
    vm::{
        accel::Accelerator,
        device::{self, DiskFile},
        launch::{failed, listen, open_card, open_disk, open_for_anyone, open_log, open_vhost},
    },
};
use model::instance::{CONTAINERS_MAX, PORTS_MAX, VOLUMES_MAX};
use nix::sys::resource::Resource;
use serde_json::{Value, json};
use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
};
use sys::{
    cgroup::Tree,
    spawn::{Child, Command, Stdio},
};

/// Slot of the root bus for the buses of network cards: the host bridge has the one before.
const NIC_SLOT: usize = 1;
/// First slot for other devices. The last of the bus is the chipset's.
const FIRST_SLOT: usize = 2;
const SLOTS: usize = 29;
const ROOT_BUS: &str = "pcie.0";
/// Functions of one slot.
const FUNCTIONS: usize = 8;
/// Devices that every machine has: serial ports, randomness, balloon.
const OWN_DEVICES: usize = 3;
// An image of its own for each container, what they write, volumes; and a place on their buses for each network card.
const _: () = assert!(OWN_DEVICES + CONTAINERS_MAX + 1 + VOLUMES_MAX <= SLOTS * FUNCTIONS);
const _: () = assert!(PORTS_MAX <= device::NIC_PORTS);
/// First descriptor that QEMU inherits beside the standard ones.
const FIRST_DESCRIPTOR: i32 = 3;
/// Most open files of QEMU.
const OPEN_FILES_MAX: u64 = 4096;
/// File of the guest's own words, below the pod's state directory.
pub const CONSOLE_LOG: &str = "console.log";
/// File of QEMU's words.
pub const QEMU_LOG: &str = "qemu.log";
/// Socket of its monitor, below the pod's run directory.
pub const MONITOR: &str = "qmp.sock";

/// A file that QEMU inherits.
#[derive(Debug, Clone, PartialEq)]
enum Purpose {
    Link,
    Monitor,
    ConsoleLog,
    Disk(DiskFile),
    Boot(PathBuf),
    Tap(usize),
    Vhost(usize),
}

/// How QEMU is started.
#[derive(Debug, Default)]
struct Launch {
    arguments: Vec<String>,
    /// The n-th gets the number [`FIRST_DESCRIPTOR`] + n.
    inherited: Vec<Purpose>,
    /// Devices on the root bus, but for the buses of network cards.
    devices: usize,
}

impl Launch {
    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.arguments.extend([name.to_owned(), value.into()]);
    }

    fn inherit(&mut self, purpose: Purpose) -> i32 {
        self.inherited.push(purpose);
        FIRST_DESCRIPTOR + self.inherited.len() as i32 - 1
    }

    fn set(&mut self, purpose: Purpose) -> u64 {
        let number = self.inherit(purpose);
        self.option("-add-fd", format!("fd={number},set={number}"));
        number as u64
    }

    /// A device on the root bus, as the next function of a slot.
    fn device(&mut self, mut device: Value) {
        let (slot, function) = (FIRST_SLOT + self.devices / FUNCTIONS, self.devices % FUNCTIONS);
        device["bus"] = json!(ROOT_BUS);
        device["addr"] = json!(format!("{slot:#x}.{function:#x}"));
        // Who scans the bus looks at the others only where the first says so.
        if function == 0 {
            device["multifunction"] = json!(true);
        }
        self.devices += 1;
        self.option("-device", device.to_string());
    }

    fn disk(&mut self, disk: &MachineDisk) {
        let files = device::disk_files(&disk.disk).into_iter();
        let sets: Vec<u64> = files.map(|file| self.set(Purpose::Disk(file))).collect();
        for node in device::disk_nodes(&disk.disk, &sets) {
            self.option("-blockdev", node.to_string());
        }
        self.device(device::disk_device(&disk.disk, ROOT_BUS));
    }

    fn card(&mut self, index: usize, machine: &Machine) {
        let nic = &machine.nics[index];
        let tap = self.inherit(Purpose::Tap(index)).to_string();
        let vhost = machine.vhost_net.then(|| self.inherit(Purpose::Vhost(index)));
        let vhost = vhost.map_or(String::new(), |number| format!(",vhost=on,vhostfd={number}"));
        self.option("-netdev", format!("tap,id={},fd={tap}{vhost}", device::netdev_id(nic.port)));
        self.option("-device", device::nic_device(nic, &device::Layout::Bridge.nic_place(index)).to_string());
    }
}

/// The kernel's command line. The first root has no limit of its own, which would be half of what is free at that moment. An
/// emulated timer is late on a busy host, which the kernel would take for broken; what an
/// emulated processor cannot leak needs no protection.
fn kernel_arguments(accelerator: Accelerator) -> String {
    let emulated = match accelerator {
        Accelerator::Tcg => " no_timer_check mitigations=off",
        Accelerator::Kvm => "",
    };
    format!("console=ttyS0 quiet panic=-1 random.trust_cpu=on{emulated} {}", boot::ARGUMENTS)
}

fn compile(pod: &Pod, machine: &Machine) -> Launch {
    let mut launch = Launch::default();
    launch.arguments.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
    launch.option("-name", format!("guest=pod-{},debug-threads=on", pod.id));
    launch.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    launch.option("-msg", "timestamp=on");
    launch.option("-display", "none");
    launch.option(
        "-machine",
        format!("{},usb=off,vmport=off,smbus=off,sata=off,dump-guest-core=off", machine.machine_type),
    );
    match machine.accelerator {
        Accelerator::Kvm => launch.option("-accel", "kvm"),
        Accelerator::Tcg => {
            let cache = machine.hardware().translation_cache_mib();
            launch.option("-accel", format!("tcg,thread=multi,tb-size={cache}"));
        }
    }
    launch.option("-cpu", machine.cpu_model.as_str());
    launch.option("-smp", machine.vcpus.to_string());
    launch.option("-m", format!("size={}M", machine.memory_mib));
    launch.option("-uuid", pod.id.to_string());
    launch.option("-rtc", "base=utc,driftfix=slew");
    let log = launch.set(Purpose::ConsoleLog);
    launch.option("-chardev", format!("file,id=console,path=/dev/fdset/{log},append=on"));
    launch.option("-device", json!({"driver": "isa-serial", "chardev": "console"}).to_string());
    let monitor = launch.inherit(Purpose::Monitor);
    launch.option("-chardev", format!("socket,id=monitor,fd={monitor},server=on,wait=off"));
    launch.option("-mon", "chardev=monitor,mode=control");
    let link = launch.inherit(Purpose::Link);
    launch.option("-chardev", format!("socket,id=link,fd={link}"));
    launch.device(json!({"driver": "virtio-serial-pci", "id": "ports"}));
    let port = json!({"driver": "virtserialport", "bus": "ports.0", "chardev": "link", "name": PORT});
    launch.option("-device", port.to_string());
    launch.option("-object", json!({"qom-type": "rng-builtin", "id": "random"}).to_string());
    launch.device(json!({"driver": "virtio-rng-pci", "rng": "random"}));
    // What the guest frees comes back to the host. It is never made larger, so the guest keeps what it was promised.
    launch.device(json!({"driver": "virtio-balloon-pci", "id": "balloon", "free-page-reporting": true}));
    machine.disks.iter().for_each(|disk| launch.disk(disk));
    for bus in device::nic_buses(NIC_SLOT) {
        launch.option("-device", bus.to_string());
    }
    (0..machine.nics.len()).for_each(|index| launch.card(index, machine));
    let kernel = launch.inherit(Purpose::Boot(machine.kernel.clone()));
    launch.option("-kernel", device::inherited_path(kernel).to_string_lossy());
    let initramfs = launch.inherit(Purpose::Boot(machine.initramfs.clone()));
    launch.option("-initrd", device::inherited_path(initramfs).to_string_lossy());
    launch.option("-append", kernel_arguments(machine.accelerator));
    launch
}

fn open(pod: &Pod, machine: &Machine, purpose: &Purpose, link: &UnixStream) -> Result<OwnedFd, DriverError> {
    let at = |path: &Path| failed(format!("opening {}", path.display()));
    match purpose {
        Purpose::Link => link.try_clone().map(OwnedFd::from).map_err(failed("duplicating the guest's port")),
        Purpose::Monitor => listen(&pod.places.run.join(MONITOR)),
        Purpose::ConsoleLog => {
            let path = pod.places.state.join(CONSOLE_LOG);
            open_log(&path, true).map(OwnedFd::from).map_err(at(&path))
        }
        Purpose::Disk(file) => open_disk(file),
        Purpose::Boot(path) => open_for_anyone(path).map_err(at(path)),
        Purpose::Tap(index) => Ok(open_card(&machine.nics[*index], false)?.tap),
        Purpose::Vhost(_) => open_vhost(),
    }
}

/// Starts QEMU in the pod's control group. `link` is the far end of the guest's port.
///
/// # Errors
/// A file cannot be opened, or the program not be started.
pub fn start(pod: &Pod, machine: &Machine, cgroups: &Tree, link: &UnixStream) -> Result<Child, DriverError> {
    let launch = compile(pod, machine);
    let group = &pod.places.cgroup;
    let failed_sys = |what: &'static str| {
        move |error: sys::Error| DriverError::Io { operation: what.into(), source: error.into() }
    };
    PodGroup::create(&pod.places, &machine.limits).map_err(failed("making the machine's control group"))?;
    let entrance = cgroups.entrance(group).map_err(failed_sys("opening the machine's control group"))?;
    let log = pod.places.state.join(QEMU_LOG);
    let messages = open_log(&log, true).map_err(failed(format!("opening {}", log.display())))?;
    let user = pod.ids.base;
    let groups: Vec<u32> = match machine.accelerator {
        Accelerator::Kvm => machine.kvm_group.into_iter().collect(),
        Accelerator::Tcg => Vec::new(),
    };
    let mut command = Command::new(&machine.program)
        .args(&launch.arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdout(Stdio::Fd(messages.try_clone().map_err(failed("duplicating the log"))?.into()))
        .stderr(Stdio::Fd(messages.into()))
        .credentials(user, user, groups)
        .no_new_privs()
        .setsid()
        .private_mounts()
        .private_ipc()
        .private_network()
        .die_with_parent()
        .umask(0o077)
        .current_dir("/")
        .rlimit(Resource::RLIMIT_CORE, 0)
        .rlimit(Resource::RLIMIT_NOFILE, OPEN_FILES_MAX);
    for (number, purpose) in launch.inherited.iter().enumerate() {
        command = command.fd(FIRST_DESCRIPTOR + number as i32, open(pod, machine, purpose, link)?);
    }
    command.cgroup(entrance).spawn().map_err(|error| DriverError::Refused {
        operation: "starting QEMU".into(),
        answer: error.to_string(),
    })
}

#[cfg(test)]
pub(super) mod tests;
