//! Where an instance's files stand, and what may be concluded from finding them.
//!
//! ```text
//!  <run>/<id>/    qmp.sock serial.sock agent.sock   listening sockets, bound here and inherited by QEMU
//!                 process.json                      which process QEMU is; gone with the host's boot
//!  <state>/<id>/  vm.json                           record of the last boot's hardware; written before QEMU starts
//!                 exit.json                         how that boot ended; the first to write it wins
//!                 console.log console.log.1         serial console
//!                 qemu.log                          QEMU's own messages of the last boot
//!                 config-drive.iso nvram.fd         disks that no user made
//!                 memory                            memory of a guest that sleeps: where it is, no vCPU of it runs
//!                 memory.part                       the same while it is being written, of no use afterwards
//!                 places.json                       where its devices are plugged in
//! ```
//!
//! Must never remove a file that is not in this list: other drivers keep theirs beside.

use model::id::InstanceId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::driver::Exit;

/// Bytes of QEMU's messages that a failure shows.
const MESSAGE_BYTES_MAX: u64 = 2048;
/// QEMU's messages are cut to nothing past this size: a guest can make QEMU talk.
const QEMU_LOG_BYTES_MAX: u64 = 1024 * 1024;
/// All that may stand in the state directory.
const STATE_FILES: [&str; 10] = [
    "vm.json",
    "exit.json",
    "console.log",
    "console.log.1",
    "qemu.log",
    "config-drive.iso",
    "nvram.fd",
    "memory",
    "memory.part",
    "places.json",
];
/// All that may stand in the run directory.
const RUN_FILES: [&str; 4] = ["qmp.sock", "serial.sock", "agent.sock", "process.json"];

/// Which process QEMU is. A pid alone may be another process by now; with its start time and the host's boot it may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Process id.
    pub pid: i32,
    /// Start in clock ticks since the host's boot.
    pub start_time: u64,
    /// The host's boot.
    pub boot_id: String,
    /// `InstancePlan::boot`.
    pub boot: u64,
    /// Start in milliseconds since 1970.
    pub since_ms: i64,
}

/// The paths of one instance.
#[derive(Debug, Clone)]
pub struct Files {
    run: PathBuf,
    state: PathBuf,
}

impl Files {
    /// The files of `id` below the directories that hold all instances.
    pub fn new(run: &Path, state: &Path, id: InstanceId) -> Files {
        Files { run: run.join(id.to_string()), state: state.join(id.to_string()) }
    }

    /// Makes both directories, for nobody but root.
    pub fn make_directories(&self) -> io::Result<()> {
        for directory in [&self.run, &self.state] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        Ok(())
    }

    /// Whether anything of a VM is here, from before the host's start too.
    pub fn any(&self) -> bool {
        self.boot_record().exists() || self.process_record().exists() || self.monitor().exists()
    }

    /// Socket of the monitor.
    pub fn monitor(&self) -> PathBuf {
        self.run.join("qmp.sock")
    }

    /// Socket of the serial console.
    pub fn console(&self) -> PathBuf {
        self.run.join("serial.sock")
    }

    /// Socket of the guest agent.
    pub fn agent(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    /// [`ProcessRecord`].
    pub fn process_record(&self) -> PathBuf {
        self.run.join("process.json")
    }

    /// [`super::machine::BootRecord`].
    pub fn boot_record(&self) -> PathBuf {
        self.state.join("vm.json")
    }

    /// Log of the serial console.
    pub fn console_log(&self) -> PathBuf {
        self.state.join("console.log")
    }

    /// QEMU's messages.
    pub fn qemu_log(&self) -> PathBuf {
        self.state.join("qemu.log")
    }

    /// The config drive's image.
    pub fn config_drive(&self) -> PathBuf {
        self.state.join("config-drive.iso")
    }

    /// UEFI variables.
    pub fn firmware_variables(&self) -> PathBuf {
        self.state.join("nvram.fd")
    }

    /// Memory of a guest that sleeps.
    pub fn memory(&self) -> PathBuf {
        self.state.join("memory")
    }

    /// Memory on its way to the disk.
    pub fn unfinished_memory(&self) -> PathBuf {
        self.state.join("memory.part")
    }

    /// Where the devices of a guest that sleeps are plugged in: [`super::sleep::Places`].
    pub fn places(&self) -> PathBuf {
        self.state.join("places.json")
    }

    /// Takes the memory into use that was written in full.
    pub fn keep_memory(&self) -> io::Result<()> {
        fs::File::open(self.unfinished_memory())?.sync_all()?;
        fs::rename(self.unfinished_memory(), self.memory())?;
        fs::File::open(&self.state)?.sync_all()
    }

    /// Throws memory away that was put on disk, for good, and what a transfer left that was cut off.
    pub fn forget_memory(&self) -> io::Result<()> {
        remove(&self.memory())?;
        // They go last, so that what was cut off here is gone through again.
        if self.places().exists() {
            fs::File::open(&self.state)?.sync_all()?;
        }
        remove(&self.unfinished_memory())?;
        remove(&self.places())
    }

    /// Reads which process QEMU is.
    pub fn read_process(&self) -> Option<ProcessRecord> {
        read_json(&self.process_record())
    }

    /// Reads how the boot `boot` ended, if that is known.
    pub fn read_exit(&self, boot: u64) -> Option<Exit> {
        read_json(&self.exit()).filter(|exit: &Exit| exit.boot == boot)
    }

    /// Records how a boot ended, unless that is recorded already: whoever was there first knows the cause best. Returns
    /// what stands there now.
    pub fn record_exit(&self, exit: Exit) -> io::Result<Exit> {
        if let Some(known) = self.read_exit(exit.boot) {
            return Ok(known);
        }
        write_json(&self.exit(), &exit)?;
        Ok(exit)
    }

    /// Forgets how the boot before ended.
    pub fn forget_exit(&self) -> io::Result<()> {
        remove(&self.exit())
    }

    /// The last lines of QEMU's messages, on one line.
    pub fn last_messages(&self) -> String {
        let bytes = tail(&self.qemu_log(), MESSAGE_BYTES_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }

    /// Cuts QEMU's messages when they have grown too long.
    pub fn trim_messages(&self) {
        let long = fs::metadata(self.qemu_log()).is_ok_and(|data| data.len() > QEMU_LOG_BYTES_MAX);
        if long && let Ok(file) = fs::OpenOptions::new().write(true).open(self.qemu_log()) {
            // QEMU appends, so that it goes on at the new end.
            let _ = file.set_len(0);
        }
    }

    /// Removes what belongs to a running QEMU.
    pub fn remove_run(&self) -> io::Result<()> {
        remove_listed(&self.run, &RUN_FILES)
    }

    /// Removes everything.
    pub fn remove_all(&self) -> io::Result<()> {
        self.remove_run()?;
        remove_listed(&self.state, &STATE_FILES)
    }

    fn exit(&self) -> PathBuf {
        self.state.join("exit.json")
    }
}

/// Writes a record, whole or not at all.
pub fn write_json(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(record).expect("plain data becomes JSON");
    Ok(sys::file::write_atomic(path, &text, 0o600)?)
}

/// Reads a record; `None` if there is none or it is of no use.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The last bytes of a file.
pub fn tail(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Removes a file; none there is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_listed(directory: &Path, names: &[&str]) -> io::Result<()> {
    for name in names {
        remove(&directory.join(name))?;
    }
    match fs::remove_dir(directory) {
        // Another driver's files may stand there.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(error)
        }
        _ => Ok(()),
    }
}
