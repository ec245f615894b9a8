//! The machine's disks, found by their serial numbers and mounted where the order says.
//!
//! All have ext4. Those that are images are never written; a writable one whose disk grew since its last mount grows
//! with it, and gives space back when files are deleted.

use super::{
    super::{GUEST_VOLUMES, order::GuestDisk},
    Outcome, Step,
    early::{is, wait_for},
    tell,
};
use nix::mount::{MsFlags, mount};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, FileExt},
    },
    path::{Path, PathBuf},
};
use sys::loop_device::grow_ext4;

/// Bytes of a sector, as sysfs counts them on every disk.
const SECTOR_BYTES: u64 = 512;
/// The directory that ext4 is made with.
const LOST_AND_FOUND: &str = "lost+found";

/// Mounts all.
pub(super) fn mount_all(disks: &[GuestDisk]) -> Outcome {
    disks.iter().try_for_each(mount_one)
}

/// A directory that only root may look into, with those above it, as the daemon makes them on a host.
pub(super) fn make_directory(path: &Path) -> Outcome {
    DirBuilder::new().recursive(true).mode(0o700).create(path).step(|| format!("create {}", path.display()))
}

fn mount_one(disk: &GuestDisk) -> Outcome {
    let serial = &disk.serial;
    let Some((first, further)) = disk.places.split_first() else {
        return Ok(());
    };
    let block = wait_for(|| find(Path::new("/sys/block"), serial))
        .ok_or_else(|| format!("the machine has no disk with the serial number {serial:?}"))?;
    let device = Path::new("/dev").join(block.file_name().unwrap_or_default());
    let node = wait_for(|| device.exists().then_some(()));
    node.ok_or_else(|| format!("{} did not come up for the disk {serial:?}", device.display()))?;
    make_directory(first)?;
    if disk.read_only && needs_recovery(&device).step(|| format!("look at the disk {serial:?}"))? {
        return Err(format!(
            "the disk {serial:?} refuses writes, and its file system was not ended in order: what was written last is in \
             its journal. Let writes be (`holm volume set NAME --read-only no`), start the container once, and refuse them again"
        ));
    }
    // Nothing is in the journal of a disk that cannot be written.
    let (flags, options) =
        if disk.read_only { (MsFlags::MS_RDONLY, "noload") } else { (MsFlags::empty(), "discard") };
    mount(Some(&device), first, Some("ext4"), flags | MsFlags::MS_NODEV, Some(options))
        .step(|| format!("mount the disk {serial:?} on {}", first.display()))?;
    if !disk.read_only {
        if let Err(error) = grow(&block, first) {
            tell(&format!("the file system of the disk {serial:?} stays at its size: {error}"));
        }
        if first.starts_with(GUEST_VOLUMES) {
            clear(first)?;
        }
    }
    for place in further {
        make_directory(place)?;
        sys::mount::bind(first, place).step(|| format!("show the disk {serial:?}"))?;
    }
    Ok(())
}

/// The disk with a serial number, as a directory of sysfs.
fn find(all: &Path, serial: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(all).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).find(|block| is(&block.join("serial"), serial))
}

/// Whether the journal of an ext4 holds what is to be brought to its place first. Without that, files would be as they were
/// some time before the end, or damaged (kernel, "ext4/super.rst": s_magic, s_feature_incompat, INCOMPAT_RECOVER).
fn needs_recovery(device: &Path) -> io::Result<bool> {
    const SUPERBLOCK: u64 = 1024;
    const MAGIC: [u8; 2] = 0xef53_u16.to_le_bytes();
    const RECOVER: u8 = 0x4;
    let mut superblock = [0; 0x64];
    File::open(device)?.read_exact_at(&mut superblock, SUPERBLOCK)?;
    // What is none is told by who mounts it.
    Ok(superblock[0x38..0x3a] == MAGIC && superblock[0x60] & RECOVER != 0)
}

/// Lets a mounted file system take the whole of its disk.
fn grow(block: &Path, place: &Path) -> io::Result<()> {
    let sectors = fs::read_to_string(block.join("size"))?;
    let sectors: u64 = sectors.trim().parse().map_err(io::Error::other)?;
    let block_bytes = rustix::fs::statfs(place)?.f_bsize as u64;
    let blocks = (sectors * SECTOR_BYTES).checked_div(block_bytes).unwrap_or(0);
    Ok(grow_ext4(File::open(place)?.as_fd(), blocks)?)
}

/// Takes the directory away that every new ext4 has: databases and their like ask for a volume without anything in it.
fn clear(volume: &Path) -> Outcome {
    match fs::remove_dir(volume.join(LOST_AND_FOUND)) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory
            ) =>
        {
            Err(error).step(|| format!("clear {}", volume.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_by_its_whole_serial_number() {
        let all = tempfile::tempdir().expect("a directory");
        for (name, serial) in [("vda", Some("base-0\n")), ("vdb", Some("base-01\n")), ("loop0", None)] {
            fs::create_dir(all.path().join(name)).expect("made");
            if let Some(serial) = serial {
                fs::write(all.path().join(name).join("serial"), serial).expect("written");
            }
        }
        assert_eq!(find(all.path(), "base-0"), Some(all.path().join("vda")));
        assert_eq!(find(all.path(), "base"), None);
        assert_eq!(find(all.path(), ""), None);
    }

    #[test]
    fn a_journal_that_holds_the_last_writes_is_seen() {
        let scratch = tempfile::tempdir().expect("a directory");
        let disk = scratch.path().join("disk");
        File::create(&disk).and_then(|file| file.set_len(64 << 20)).expect("made");
        let text = disk.to_str().expect("text");
        let run = |program: &str, arguments: &[&str]| {
            let done = std::process::Command::new(program).args(arguments).output().expect("e2fsprogs");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        assert!(!needs_recovery(&disk).expect("no file system at all"));
        run("mke2fs", &["-q", "-F", "-t", "ext4", text]);
        assert!(!needs_recovery(&disk).expect("a new one"));
        run("debugfs", &["-w", "-R", "feature needs_recovery", text]);
        assert!(needs_recovery(&disk).expect("one that was cut off"));
        File::create(&disk).expect("emptied");
        assert!(needs_recovery(&disk).is_err());
    }

    #[test]
    fn a_new_volume_is_empty_and_what_was_found_is_kept() {
        let volume = tempfile::tempdir().expect("a directory");
        let found = volume.path().join(LOST_AND_FOUND);
        fs::create_dir(&found).expect("made");
        clear(volume.path()).expect("cleared");
        assert!(!found.exists());
        clear(volume.path()).expect("nothing to clear");
        fs::create_dir_all(found.join("#12")).expect("made");
        clear(volume.path()).expect("left alone");
        assert!(found.join("#12").exists());
    }
}
