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
    os::{fd::AsFd, unix::fs::DirBuilderExt},
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
    // A disk that cannot be written cannot be tidied up after a crash either, and never has to be.
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
