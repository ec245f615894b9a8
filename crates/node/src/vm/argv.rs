//! QEMU's command line, as a pure function of the plan, the machine and the host.
//!
//! The result names every descriptor that QEMU must inherit and what it is for; the driver opens them. QEMU starts
//! frozen (`-S`), without any default device, confined by its own seccomp filter, and opens no path but its firmware.
//! Must never read anything: the golden files below are the whole truth about it.

use model::plan::{BootPlan, InstancePlan, VmPlan};
use serde_json::{Value, json};
use std::path::PathBuf;

use super::{
    accel::Accelerator,
    device::{self, DiskFile},
    machine::{HostFacts, Machine},
    sleep::Places,
};

/// Numbers of inherited descriptors start here.
const FIRST_DESCRIPTOR: i32 = 10;

/// What an inherited descriptor is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Listening socket of the monitor.
    Monitor,
    /// Listening socket of the serial console.
    Console,
    /// Listening socket of the guest agent's channel.
    Agent,
    /// File that the serial console is appended to.
    ConsoleLog,
    /// File of a disk.
    Disk(DiskFile),
    /// The config drive's image.
    ConfigDrive,
    /// Kernel or initial RAM disk, which QEMU opens again by its own number: its user must be able to read it.
    Boot(PathBuf),
    /// UEFI code.
    FirmwareCode(PathBuf),
    /// UEFI variables of this VM.
    FirmwareVariables,
    /// The tap of the n-th network card.
    Tap(usize),
    /// `/dev/vhost-net`, for the n-th network card.
    Vhost(usize),
}

/// A descriptor that QEMU inherits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// Its number in QEMU.
    pub number: i32,
    /// What it is.
    pub purpose: Purpose,
}

/// How QEMU is started.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Arguments after the program's name.
    pub arguments: Vec<String>,
    /// What QEMU inherits.
    pub inherited: Vec<Inherited>,
}

/// Compiles the command line of a cold start.
pub fn compile(plan: &InstancePlan, vm: &VmPlan, machine: &Machine, facts: &HostFacts) -> Launch {
    compile_at(plan, vm, machine, facts, &Places::default())
}

/// Compiles the command line of a guest that goes on with the memory that it had, on a machine whose devices are where
/// they were.
pub fn compile_waking(
    plan: &InstancePlan,
    vm: &VmPlan,
    machine: &Machine,
    facts: &HostFacts,
    places: &Places,
) -> Launch {
    let mut launch = compile_at(plan, vm, machine, facts, places);
    launch.option("-incoming", "defer");
    launch
}

fn compile_at(
    plan: &InstancePlan,
    vm: &VmPlan,
    machine: &Machine,
    facts: &HostFacts,
    places: &Places,
) -> Launch {
    let mut launch = Launch { arguments: Vec::new(), inherited: Vec::new() };
    launch.basics(plan);
    launch.hardware(plan, machine, facts);
    launch.channels();
    launch.option("-vnc", "none");
    for bus in machine.layout.buses() {
        launch.device(&bus);
    }
    launch.disks(plan, vm, machine, places);
    launch.cards(plan, machine, facts, places);
    launch.fixed_devices(vm);
    launch.boot(vm);
    launch
}

impl Launch {
    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.arguments.push(name.to_owned());
        self.arguments.push(value.into());
    }

    fn device(&mut self, device: &Value) {
        self.option("-device", device.to_string());
    }

    fn inherit(&mut self, purpose: Purpose) -> i32 {
        let number = FIRST_DESCRIPTOR + self.inherited.len() as i32;
        self.inherited.push(Inherited { number, purpose });
        number
    }

    /// Hands a file over in a descriptor set, which has the number of its only descriptor and remembers its owner.
    fn set(&mut self, purpose: Purpose, owner: &str) -> u64 {
        let number = self.inherit(purpose);
        self.option("-add-fd", format!("fd={number},set={number},opaque={owner}"));
        number as u64
    }

    fn basics(&mut self, plan: &InstancePlan) {
        self.arguments.extend(["-S", "-nodefaults", "-no-user-config"].map(str::to_owned));
        self.option("-name", format!("guest={},debug-threads=on", comma_safe(&plan.name)));
        self.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        self.option("-msg", "timestamp=on");
        // A guest that powered off or panicked stays visible as such until the driver has seen it.
        self.option("-action", "reboot=reset,shutdown=pause,panic=pause,watchdog=reset");
    }

    fn hardware(&mut self, plan: &InstancePlan, machine: &Machine, facts: &HostFacts) {
        let mut kind = format!("{},usb=off,vmport=off,dump-guest-core=off", machine.machine_type);
        if let (true, Some(uefi)) = (machine.uefi, &facts.uefi) {
            let code = self.set(Purpose::FirmwareCode(uefi.code.clone()), "uefi");
            let variables = self.set(Purpose::FirmwareVariables, "uefi");
            for (name, set, read_only) in [("uefi-code", code, true), ("uefi-vars", variables, false)] {
                let node = json!({
                    "driver": "raw",
                    "node-name": name,
                    "read-only": read_only,
                    "file": device::file_node(&format!("{name}-f"), set, read_only),
                });
                self.option("-blockdev", node.to_string());
            }
            kind.push_str(",pflash0=uefi-code,pflash1=uefi-vars");
        }
        self.option("-machine", kind);
        match machine.accelerator {
            Accelerator::Kvm => self.option("-accel", "kvm"),
            Accelerator::Tcg => {
                self.option(
                    "-accel",
                    format!("tcg,thread=multi,tb-size={}", machine.translation_cache_mib()),
                );
            }
        }
        self.option("-cpu", machine.cpu_model.as_str());
        let Machine { sockets, cores, threads, .. } = machine;
        self.option("-smp", format!("{},sockets={sockets},cores={cores},threads={threads}", machine.vcpus()));
        self.option("-m", format!("size={}M", machine.memory_mib));
        self.option("-uuid", plan.id.to_string());
        // The product's name makes cloud-init look for the metadata service.
        let product = format!(
            "type=1,manufacturer=holm,product=OpenStack Compute,uuid={},family=Virtual Machine",
            plan.id
        );
        self.option("-smbios", product);
        self.option("-rtc", "base=utc,driftfix=slew");
    }

    fn channels(&mut self) {
        let monitor = self.inherit(Purpose::Monitor);
        self.option("-chardev", format!("socket,id=monitor,fd={monitor},server=on,wait=off"));
        self.option("-mon", "chardev=monitor,mode=control");
        let log = self.set(Purpose::ConsoleLog, "console");
        let console = self.inherit(Purpose::Console);
        let chardev = format!(
            "socket,id=console,fd={console},server=on,wait=off,logfile=/dev/fdset/{log},logappend=on"
        );
        self.option("-chardev", chardev);
        self.device(&json!({"driver": "isa-serial", "id": "serial", "chardev": "console"}));
        let agent = self.inherit(Purpose::Agent);
        self.option("-chardev", format!("socket,id=agent,fd={agent},server=on,wait=off"));
    }

    fn disks(&mut self, plan: &InstancePlan, vm: &VmPlan, machine: &Machine, places: &Places) {
        for (index, disk) in plan.disks.iter().enumerate() {
            let files = device::disk_files(disk).into_iter();
            let owner = device::disk_id(disk.volume);
            let sets: Vec<u64> = files.map(|file| self.set(Purpose::Disk(file), &owner)).collect();
            for node in device::disk_nodes(disk, &sets) {
                self.option("-blockdev", node.to_string());
            }
            let place = places.of(&owner).unwrap_or_else(|| machine.layout.disk_place(index));
            self.device(&device::disk_device(disk, &place));
        }
        if vm.config_drive {
            let set = self.set(Purpose::ConfigDrive, "config-drive");
            let file = device::file_node("config-drive-f", set, true);
            let node = json!({"driver": "raw", "node-name": "config-drive", "read-only": true, "file": file});
            self.option("-blockdev", node.to_string());
            let mut drive = json!({
                "driver": "virtio-blk-pci",
                "id": "config-drive",
                "drive": "config-drive",
                "serial": device::CONFIG_DRIVE_SERIAL,
            });
            device::put(&mut drive, &machine.layout.config_drive_place());
            self.device(&drive);
        }
    }

    fn cards(&mut self, plan: &InstancePlan, machine: &Machine, facts: &HostFacts, places: &Places) {
        for (index, nic) in plan.nics.iter().enumerate() {
            let tap = self.inherit(Purpose::Tap(index)).to_string();
            let vhost = facts.vhost_net.then(|| self.inherit(Purpose::Vhost(index)));
            let vhost = vhost.map_or(String::new(), |number| format!(",vhost=on,vhostfd={number}"));
            self.option("-netdev", format!("tap,id={},fd={tap}{vhost}", device::netdev_id(nic.port)));
            let place =
                places.of(&device::nic_id(nic.port)).unwrap_or_else(|| machine.layout.nic_place(index));
            self.device(&device::nic_device(nic, &place));
        }
    }

    fn fixed_devices(&mut self, vm: &VmPlan) {
        self.device(&json!({"driver": "VGA", "id": "video", "bus": "pcie.0", "addr": "0x1"}));
        self.device(&json!({"driver": "virtio-serial-pci", "id": "ports", "bus": "pcie.0", "addr": "0x6"}));
        self.device(&json!({
            "driver": "virtserialport",
            "id": "agent-port",
            "bus": "ports.0",
            "chardev": "agent",
            "name": "org.qemu.guest_agent.0",
        }));
        self.option("-object", json!({"qom-type": "rng-builtin", "id": "random"}).to_string());
        self.device(&json!({"driver": "virtio-rng-pci", "rng": "random", "bus": "pcie.0", "addr": "0x7"}));
        self.device(&json!({
            "driver": "virtio-balloon-pci",
            "id": "balloon",
            "bus": "pcie.0",
            "addr": "0x8",
            "deflate-on-oom": true,
            "free-page-reporting": true,
        }));
        self.device(&json!({"driver": "pvpanic"}));
        if let BootPlan::Firmware { .. } = vm.boot {
            // A pointer that knows where it is, for consoles; micro guests with a direct kernel start faster without.
            self.device(&json!({"driver": "qemu-xhci", "id": "usb", "bus": "pcie.0", "addr": "0x9"}));
            self.device(&json!({"driver": "usb-tablet", "id": "tablet", "bus": "usb.0"}));
        }
    }

    fn boot(&mut self, vm: &VmPlan) {
        match &vm.boot {
            BootPlan::Firmware { .. } => self.option("-boot", "strict=on"),
            BootPlan::Kernel { kernel, initrd, cmdline } => {
                let kernel = self.inherit(Purpose::Boot(kernel.clone()));
                self.option("-kernel", device::inherited_path(kernel).to_string_lossy());
                if let Some(initrd) = initrd {
                    let initrd = self.inherit(Purpose::Boot(initrd.clone()));
                    self.option("-initrd", device::inherited_path(initrd).to_string_lossy());
                }
                self.option("-append", cmdline.as_str());
            }
        }
    }
}

/// QEMU's key-value options end at a comma unless it is doubled.
fn comma_safe(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::machine::UefiFirmware;
    use super::*;
    use model::{
        metadata::GuestData,
        plan::{Accelerator as Wanted, BackingFile, Body, DiskFormat, DiskPlan, IdRange, NicPlan},
    };

    fn facts() -> HostFacts {
        HostFacts {
            program: "/usr/bin/qemu-system-x86_64".into(),
            qemu_version: "7.2.22".into(),
            q35: "pc-q35-7.2".into(),
            machine_types: vec!["pc-q35-7.2".into(), "pc-q35-6.0".into()],
            vhost_net: false,
            uefi: Some(UefiFirmware { code: "/fw/CODE.fd".into(), variables: "/fw/VARS.fd".into() }),
        }
    }

    fn id(number: u32) -> String {
        format!("00000000-0000-4000-8000-{number:012x}")
    }

    pub(crate) fn disk(number: u32) -> DiskPlan {
        DiskPlan {
            volume: id(number).parse().unwrap(),
            path: format!("/volumes/{number}.qcow2").into(),
            format: DiskFormat::Qcow2,
            backing: vec![BackingFile { path: "/images/base.raw".into(), format: DiskFormat::Raw }],
            read_only: false,
            serial: id(number)[..20].to_owned(),
            boot_index: Some(number),
            mount_path: None,
        }
    }

    pub(crate) fn nic(number: u32) -> NicPlan {
        NicPlan {
            port: id(number).parse().unwrap(),
            device: format!("t{number}"),
            netns: "/run/netns".into(),
            mac: "fa:16:3e:00:00:01".parse().unwrap(),
            mtu: 1450,
            addresses: vec![],
            ranges_v6: vec![],
            gateway_v4: None,
            gateway_v6: None,
            dns: vec![],
            search: vec![],
        }
    }

    fn plan(boot: BootPlan) -> InstancePlan {
        let guest = GuestData {
            id: id(1).parse().unwrap(),
            project: id(2).parse().unwrap(),
            name: "web".into(),
            hostname: "web".into(),
            flavor: "small".into(),
            keys: vec![],
            metadata: Default::default(),
            user_data_base64: None,
            nics: vec![],
            public_ipv4: None,
            devices: vec![],
            on_host_kernel: false,
        };
        let vm = VmPlan { boot, guest, config_drive: true, accelerator: Wanted::Auto };
        InstancePlan {
            id: id(1).parse().unwrap(),
            project: id(2).parse().unwrap(),
            boot: 1,
            name: "web, the first".into(),
            hostname: "web".into(),
            id_range: IdRange { base: 100_000, count: 65_536 },
            vcpus: 2,
            memory_mib: 1024,
            cpu_weight: 100,
            pids_max: 1024,
            nics: vec![nic(3)],
            disks: vec![disk(1), disk(2)],
            body: Body::Vm(vm),
        }
    }

    fn text(plan: &InstancePlan, facts: &HostFacts, accelerator: Accelerator) -> String {
        let Body::Vm(vm) = &plan.body else { panic!("the plans here are of VMs") };
        let machine = Machine::for_boot(plan, vm, facts, accelerator, None);
        let launch = compile(plan, vm, &machine, facts);
        let mut text = String::new();
        for argument in &launch.arguments {
            let separator = if argument.starts_with('-') { "\n" } else { " " };
            text.push_str(separator);
            text.push_str(argument);
        }
        text.push_str("\n\ninherited:");
        for file in &launch.inherited {
            text.push_str(&format!("\n{} {:?}", file.number, file.purpose));
        }
        text
    }

    #[test]
    fn firmware_boot_from_disk_emulated() {
        insta::assert_snapshot!(text(&plan(BootPlan::Firmware { uefi: false }), &facts(), Accelerator::Tcg));
    }

    #[test]
    fn uefi_boot_with_kvm_and_vhost() {
        let facts = HostFacts { vhost_net: true, ..facts() };
        insta::assert_snapshot!(text(&plan(BootPlan::Firmware { uefi: true }), &facts, Accelerator::Kvm));
    }

    #[test]
    fn direct_kernel_without_disk_and_card() {
        let boot = BootPlan::Kernel {
            kernel: "/images/vmlinuz".into(),
            initrd: Some("/images/initrd".into()),
            cmdline: "console=ttyS0 quiet".into(),
        };
        let mut plan = plan(boot);
        plan.disks.clear();
        plan.nics.clear();
        if let Body::Vm(vm) = &mut plan.body {
            vm.config_drive = false;
        }
        insta::assert_snapshot!(text(&plan, &facts(), Accelerator::Tcg));
    }

    #[test]
    fn a_recorded_machine_type_is_kept_while_qemu_has_it() {
        let plan = plan(BootPlan::Firmware { uefi: false });
        let Body::Vm(vm) = &plan.body else { panic!("a VM") };
        let make =
            |recorded: Option<&Machine>| Machine::for_boot(&plan, vm, &facts(), Accelerator::Tcg, recorded);
        let fresh = make(None);
        assert_eq!(fresh.machine_type, "pc-q35-7.2");
        let older = Machine { machine_type: "pc-q35-6.0".into(), ..fresh.clone() };
        assert_eq!(make(Some(&older)).machine_type, "pc-q35-6.0");
        let gone = Machine { machine_type: "pc-q35-2.4".into(), ..fresh };
        assert_eq!(make(Some(&gone)).machine_type, "pc-q35-7.2");
    }
}
