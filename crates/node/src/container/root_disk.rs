//! The root disk of a pod: a limited space for all that its containers write to their root file systems.
//!
//! A file with an ext4 file system, which the daemon makes and the shim mounts over a loop device in its own mount
//! namespace: below each container's overlay lies a directory of it. So `df` inside tells the truth, a full disk is a
//! full disk to the container and to nobody else, and it grows, on most hosts while the pod runs. (Project quotas would do the same
//! without a device, but need a kernel and a mount option that many hosts do not have.) Nobody but the kernel reads the
//! file: containers write files on it, never its blocks. The device ends with the last mount of it, so a pod that dies
//! in any way leaves none. The file is sparse: it takes what was written and not deleted since.

use super::{
    bundle::Pod,
    root::{RootError, Step, attach_at},
};
use crate::driver::DriverError;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use sys::{
    jail::tree::{self, attribute},
    loop_device::{self, LoopDevice},
};

/// Bytes of a block of the file system.
const BLOCK_BYTES: u64 = 4096;
/// Where distributions keep the programs, which is not always in a daemon's `PATH`.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];
/// How long the last mount of a disk may take to go.
const LET_GO: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LET_GO_PAUSE: Duration = Duration::from_millis(20);
/// Most characters of a program's complaint that are told.
const COMPLAINT_CHARS_MAX: usize = 400;

/// Where the shim has it mounted.
pub(super) fn place(pod: &Pod) -> PathBuf {
    pod.places.run.join("root-disk")
}

fn io_error(step: &str, path: &Path) -> impl FnOnce(io::Error) -> DriverError {
    let operation = format!("{step} {}", path.display());
    move |source| DriverError::Io { operation, source }
}

/// Makes the pod's root disk, if it is to have one that is not there, or makes it larger. A pod whose containers have written
/// without a limit keeps its files and goes on so. Blocking; nobody has it mounted.
///
/// # Errors
/// `Missing` without the programs for it; what the host's file system refuses.
pub(super) fn make(pod: &mut Pod) -> Result<(), DriverError> {
    let (Some(path), Some(size_bytes)) = (pod.root_disk.clone(), pod.limits.disk_bytes) else {
        return Ok(());
    };
    if path.exists() {
        return enlarge(&path, size_bytes);
    }
    if pod.containers.iter().any(|container| container.upper.join("fs").exists()) {
        tracing::warn!(id = %pod.id, "it has written without a limit: its disk is not limited before it is made anew");
        pod.root_disk = None;
        return Ok(());
    }
    make_new(&path, size_bytes)
}

/// The same for a pod with a machine of its own: nothing on the host ever looks into a disk that a guest's kernel wrote, so one
/// that is to be larger is made longer here and its file system there.
pub(super) fn make_for_machine(pod: &Pod) -> Result<(), DriverError> {
    let (Some(path), Some(size_bytes)) = (&pod.root_disk, pod.limits.disk_bytes) else {
        let what = "a pod with a kernel of its own has a disk for what it writes".into();
        return Err(DriverError::Unsupported { what, hint: "make it anew with `--disk SIZE`".into() });
    };
    if !path.exists() {
        return make_new(path, size_bytes);
    }
    let file = File::options().write(true).open(path).map_err(io_error("open", path))?;
    lengthen(&file, size_bytes).map_err(io_error("make room in", path))
}

fn make_new(path: &Path, size_bytes: u64) -> Result<(), DriverError> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(io_error("create", directory))?;
    }
    let staged = path.with_extension("new");
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&staged);
    let file = file.map_err(io_error("create", &staged))?;
    file.set_len(size_bytes).map_err(io_error("make room in", &staged))?;
    // No blocks are kept for root, which inside is the container's own root; there is no old content to be wiped.
    let options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-E", "discard,root_owner=0:0"];
    run("mke2fs", &options, &staged)?;
    file.sync_all().map_err(io_error("flush", &staged))?;
    fs::rename(&staged, path).map_err(io_error("name", path))
}

/// Lets the file system of a file grow to a size. What a crash left half done is done again.
fn enlarge(path: &Path, size_bytes: u64) -> Result<(), DriverError> {
    let file = File::options().read(true).write(true).open(path).map_err(io_error("open", path))?;
    if blocks(&file).map_err(io_error("read", path))?.saturating_mul(BLOCK_BYTES) >= size_bytes {
        return Ok(());
    }
    hold(&file).map_err(io_error("take for itself", path))?;
    lengthen(&file, size_bytes).map_err(io_error("make room in", path))?;
    run("e2fsck", &["-f", "-p"], path)?;
    run("resize2fs", &[], path)
}

/// Blocks of the file system, as its superblock says (ext4's `s_blocks_count_lo` and, with 64 bits, `_hi`).
fn blocks(file: &File) -> io::Result<u64> {
    const SUPERBLOCK: u64 = 1024;
    let word = |at: u64| -> io::Result<u64> {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, SUPERBLOCK + at)?;
        Ok(u64::from(u32::from_le_bytes(bytes)))
    };
    const INCOMPAT_64BIT: u64 = 0x80;
    let high = if word(0x60)? & INCOMPAT_64BIT != 0 { word(0x150)? } else { 0 };
    Ok(word(0x4)? | high << 32)
}

/// Runs a program of e2fsprogs on a file. What e2fsck repaired (exit code 1) is in order.
pub(crate) fn run(program: &str, options: &[&str], file: &Path) -> Result<(), DriverError> {
    let path = PLACES.iter().map(|place| Path::new(place).join(program)).find(|path| path.exists());
    let path = path.ok_or_else(|| DriverError::Missing {
        what: format!("{program}, which makes file systems,"),
        hint: "install e2fsprogs, or run containers without a limit of their disk".into(),
    })?;
    let output = Command::new(&path)
        .args(options)
        .arg(file)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(io_error("run", &path))?;
    if output.status.success() || (program == "e2fsck" && output.status.code() == Some(1)) {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(DriverError::Refused {
        operation: format!("{program} {}", file.display()),
        answer: said.trim().chars().take(COMPLAINT_CHARS_MAX).collect(),
    })
}

/// Mounts it in the shim's own mount namespace.
pub(super) fn mount(pod: &Pod) -> Result<(), RootError> {
    let Some(path) = &pod.root_disk else {
        return Ok(());
    };
    let at = || format!("mount the root disk {}", path.display());
    let file = File::options().read(true).write(true).open(path).step(at)?;
    hold(&file).step(at)?;
    let device = LoopDevice::attach(&file).step(at)?;
    let source = device.path().to_string_lossy().into_owned();
    // What is deleted inside gives its space back to the host.
    let options = [("source", Some(source.as_str())), ("discard", None)];
    let mount = tree::new_file_system("ext4", &options, attribute::NO_DEVICES).step(at)?;
    attach_at(mount.as_fd(), &place(pod))
}

/// Makes a mounted root disk as large as the pod's limits say. The kernel asks for `CAP_SYS_RESOURCE`, which a host that is
/// a container itself may lack.
pub(super) fn grow(pod: &Pod) -> Result<(), RootError> {
    let (Some(path), Some(wish)) = (&pod.root_disk, pod.limits.disk_bytes) else {
        return Ok(());
    };
    let at = || format!("grow the root disk {}", path.display());
    let file = File::options().read(true).write(true).open(path).step(at)?;
    if blocks(&file).step(at)?.saturating_mul(BLOCK_BYTES) >= wish {
        return Ok(());
    }
    lengthen(&file, wish).step(at)?;
    if let Some(device) = LoopDevice::below(&place(pod)).step(at)? {
        device.grow().step(at)?;
    }
    let directory = File::open(place(pod)).step(at)?;
    loop_device::grow_ext4(directory.as_fd(), wish / BLOCK_BYTES).step(at)
}

/// Takes a root disk for itself: nobody else mounts or changes it for as long as this description of the file is open, and a
/// loop device over it keeps it open. So a file system is never mounted twice, whoever still holds on to the last mount.
fn hold(file: &File) -> io::Result<()> {
    let deadline = Instant::now() + LET_GO;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LET_GO_PAUSE),
            Err(Errno::WOULDBLOCK) => {
                let why = "what ran on it before, or somebody who reads it, has not let go of it";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Makes a file longer; it is never cut.
fn lengthen(file: &File, size_bytes: u64) -> io::Result<()> {
    if file.metadata()?.len() < size_bytes { file.set_len(size_bytes) } else { Ok(()) }
}

/// Removes the file. Fine when it is gone.
pub(super) fn remove(path: &Path) -> Result<(), DriverError> {
    for path in [path.to_path_buf(), path.with_extension("new")] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}
