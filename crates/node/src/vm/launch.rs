//! Starting QEMU: every file opened by us and handed over, and QEMU confined before its first instruction.
//!
//! QEMU runs as the instance's own user without any capability, in control groups, mount, network and IPC namespaces of its
//! own, in a session of its own so that it outlives the daemon. Everything here blocks, and is called on a blocking thread
//! as one piece, so that a caller who gives up leaves no step half done.

use model::plan::InstancePlan;
use nix::sys::resource::Resource;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::FileTypeExt as _, fs::MetadataExt as _, fs::OpenOptionsExt as _, net::UnixListener},
    },
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};
use sys::{
    cgroup::{CPU_PERIOD_US, Limits, Tree},
    netns::NetNs,
    pidfd::PidFd,
    spawn::{Command, Stdio},
};

use super::{
    accel::Accelerator,
    argv::{Launch, Purpose},
    device::DiskFile,
    files::{self, Files, ProcessRecord},
    hotplug::CardFiles,
    machine::{BootRecord, HostFacts, Machine},
};
use crate::driver::DriverError;

/// Threads that QEMU has beside one for each vCPU: its loop, its workers for disks, its migration.
const THREADS_OF_QEMU: u64 = 128;
/// Open files: each disk, card and queue takes a few.
const OPEN_FILES_MAX: u64 = 16_384;
const VHOST_NET: &str = "/dev/vhost-net";

/// All that a start needs.
#[derive(Debug)]
pub struct Order {
    /// The instance.
    pub plan: InstancePlan,
    /// The hardware, to be recorded.
    pub record: BootRecord,
    /// The command line.
    pub launch: Launch,
    /// The host.
    pub facts: HostFacts,
    /// Group that may open `/dev/kvm`.
    pub kvm_group: Option<u32>,
    /// Where its files stand.
    pub files: Files,
    /// Control groups of all instances.
    pub cgroups: Tree,
    /// The config drive's image, if one is wanted and is not there yet.
    pub config_drive: Option<Vec<u8>>,
    /// The guest goes on with the memory that it left on disk.
    pub wakes: bool,
}

/// Names the step of a start that failed.
pub fn failed(operation: impl Into<String>) -> impl FnOnce(io::Error) -> DriverError {
    let operation = operation.into();
    move |source| DriverError::Io { operation, source }
}

fn failed_sys(operation: impl Into<String>) -> impl FnOnce(sys::Error) -> DriverError {
    let operation = operation.into();
    move |error| DriverError::Io { operation, source: error.into() }
}

impl Order {
    /// Starts QEMU, frozen. When this returns, the process is on record and its sockets take connections.
    pub fn carry_out(self) -> Result<(PidFd, ProcessRecord), DriverError> {
        let group = self.plan.id.to_string();
        // A start that was cut short before its process was recorded left one that nobody knows by pid.
        self.cgroups.kill(&group).map_err(failed_sys("ending what an earlier start left"))?;
        self.files.make_directories().map_err(failed("making the VM's directories"))?;
        files::remove(&self.files.process_record()).map_err(failed("removing the old process record"))?;
        if !self.wakes {
            // Before another boot is on record, to which it does not belong.
            self.files.forget_memory().map_err(failed("removing the memory of an earlier boot"))?;
        }
        self.files.forget_exit().map_err(failed("removing the old exit record"))?;
        self.record.write(&self.files.boot_record()).map_err(failed("recording the VM's hardware"))?;
        self.write_own_disks()?;
        let limits = limits(&self.record.machine, &self.plan);
        self.cgroups.create(&group, &limits).map_err(failed_sys("making the VM's control group"))?;
        let entrance = self.cgroups.entrance(&group).map_err(failed_sys("opening the VM's control group"))?;
        let child = self.command()?.cgroup(entrance).spawn().map_err(|error| DriverError::Io {
            operation: error.to_string(),
            source: io::Error::other(
                std::error::Error::source(&error).map_or(String::new(), |source| source.to_string()),
            ),
        })?;
        let record = ProcessRecord {
            pid: child.pid(),
            start_time: child.start_time,
            boot_id: sys::pidfd::boot_id().map_err(failed_sys("reading the host's boot id"))?,
            boot: self.plan.boot,
            since_ms: now_ms(),
        };
        files::write_json(&self.files.process_record(), &record)
            .map_err(failed("recording QEMU's process"))?;
        Ok((child.process, record))
    }

    fn write_own_disks(&self) -> Result<(), DriverError> {
        if let Some(image) = &self.config_drive {
            let path = self.files.config_drive();
            sys::file::write_atomic(&path, image, 0o600).map_err(failed_sys("writing the config drive"))?;
        }
        let variables = self.files.firmware_variables();
        if let (true, Some(uefi)) = (self.record.machine.uefi, &self.facts.uefi)
            && !variables.exists()
        {
            let template =
                fs::read(&uefi.variables).map_err(failed("reading the UEFI variables' template"))?;
            sys::file::write_atomic(&variables, &template, 0o600)
                .map_err(failed_sys("writing the UEFI variables"))?;
        }
        Ok(())
    }

    fn command(&self) -> Result<Command, DriverError> {
        let log = self.files.qemu_log();
        let messages = open_log(&log, true).map_err(failed(format!("opening {}", log.display())))?;
        let id = self.plan.id_range.base;
        let groups: Vec<u32> = match self.record.machine.accelerator {
            Accelerator::Kvm => self.kvm_group.into_iter().collect(),
            Accelerator::Tcg => Vec::new(),
        };
        let mut command = Command::new(&self.facts.program)
            .args(&self.launch.arguments)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdout(Stdio::Fd(messages.try_clone().map_err(failed("duplicating the log"))?.into()))
            .stderr(Stdio::Fd(messages.into()))
            .credentials(id, id, groups)
            .no_new_privs()
            .setsid()
            .private_mounts()
            .private_ipc()
            .private_network()
            .umask(0o077)
            .current_dir("/")
            .rlimit(Resource::RLIMIT_CORE, 0)
            .rlimit(Resource::RLIMIT_NOFILE, OPEN_FILES_MAX);
        for inherited in &self.launch.inherited {
            let file = self.open(&inherited.purpose)?;
            command = command.fd(inherited.number, file);
        }
        Ok(command)
    }

    fn open(&self, purpose: &Purpose) -> Result<OwnedFd, DriverError> {
        match purpose {
            Purpose::Monitor => listen(&self.files.monitor()),
            Purpose::Console => listen(&self.files.console()),
            Purpose::Agent => listen(&self.files.agent()),
            Purpose::ConsoleLog => {
                let path = self.files.console_log();
                open_log(&path, false)
                    .map(OwnedFd::from)
                    .map_err(failed(format!("opening {}", path.display())))
            }
            Purpose::Disk(file) => open_disk(file),
            Purpose::ConfigDrive => open_disk(&DiskFile { path: self.files.config_drive(), writable: false }),
            Purpose::Boot(path) => {
                open_for_anyone(path).map_err(failed(format!("opening {}", path.display())))
            }
            Purpose::FirmwareCode(path) => open_disk(&DiskFile { path: path.clone(), writable: false }),
            Purpose::FirmwareVariables => {
                open_disk(&DiskFile { path: self.files.firmware_variables(), writable: true })
            }
            Purpose::Tap(index) => Ok(open_tap(&self.plan.nics[*index])?),
            Purpose::Vhost(_) => open_vhost(),
        }
    }
}

/// Limits of the control group of a QEMU that runs this machine.
pub fn limits(machine: &Machine, plan: &InstancePlan) -> Limits {
    let threads = THREADS_OF_QEMU + u64::from(machine.vcpus());
    Limits {
        cpu_quota_us: Some(u64::from(machine.vcpus()) * CPU_PERIOD_US),
        cpu_weight: Some(plan.cpu_weight),
        memory_max_bytes: Some(machine.memory_limit_mib() << 20),
        swap_max_bytes: None,
        pids_max: Some(plan.pids_max.max(threads)),
    }
}

/// The tap of a card and, if wanted, vhost: for a card that is plugged into a running VM.
pub fn open_card(nic: &model::plan::NicPlan, vhost: bool) -> Result<CardFiles, DriverError> {
    Ok(CardFiles { tap: open_tap(nic)?, vhost: vhost.then(open_vhost).transpose()? })
}

/// Opens a disk's file, which must be a regular file or a block device.
pub fn open_disk(file: &DiskFile) -> Result<OwnedFd, DriverError> {
    let operation = || format!("opening the disk {}", file.path.display());
    let open = OpenOptions::new().read(true).write(file.writable).open(&file.path);
    let opened = open.map_err(failed(operation()))?;
    let kind = opened.metadata().map_err(failed(operation()))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "neither a regular file nor a block device");
        return Err(DriverError::Io { operation: operation(), source });
    }
    Ok(opened.into())
}

fn open_tap(nic: &model::plan::NicPlan) -> Result<OwnedFd, DriverError> {
    let operation = format!("opening the tap {}", nic.device);
    let namespace = NetNs::open(&nic.netns).map_err(failed_sys(operation.clone()))?;
    sys::tap::open(&namespace, &nic.device).map_err(failed_sys(operation))
}

pub(crate) fn open_vhost() -> Result<OwnedFd, DriverError> {
    let opened = OpenOptions::new().read(true).write(true).open(VHOST_NET);
    opened.map(OwnedFd::from).map_err(failed(format!("opening {VHOST_NET}")))
}

/// A listening socket in place of whatever is there.
pub(crate) fn listen(path: &Path) -> Result<OwnedFd, DriverError> {
    let operation = format!("listening on {}", path.display());
    files::remove(path).map_err(failed(operation.clone()))?;
    UnixListener::bind(path).map(OwnedFd::from).map_err(failed(operation))
}

pub(crate) fn open_log(path: &Path, empty: bool) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if empty {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Opens a file that QEMU opens again by `/proc/self/fd`, for which its user needs the right to read it: where others have
/// none, it gets a copy in memory.
pub(crate) fn open_for_anyone(path: &Path) -> io::Result<OwnedFd> {
    let mut file = File::open(path)?;
    if file.metadata()?.mode() & 0o004 != 0 {
        return Ok(file.into());
    }
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let mut copy = File::from(nix::sys::memfd::memfd_create("boot", flags)?);
    io::copy(&mut file, &mut copy)?;
    Ok(copy.into())
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
}
