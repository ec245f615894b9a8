//! From the directories of containers to the disks of VMs: a file system with the same files, made by mke2fs without being
//! mounted.
//!
//! The other way is not gone: a disk that a guest wrote has whatever file system the guest made of it, and the kernel of
//! the host must never read that. So whoever wants to go from a disk to a directory copies inside a guest.

use crate::{container::e2fsprogs, driver::DriverError};
use model::plan::{BackingFile, DiskFormat};
use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// First bytes of a qcow2 file (docs/interop/qcow2.rst of QEMU).
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";
/// Bytes of its header that tell of its first table.
const QCOW2_HEADER_BYTES: usize = 48;
/// Largest first table that is looked through, in bytes: enough for a disk of 64 TiB.
const QCOW2_TABLE_BYTES_MAX: usize = 1 << 20;

/// Bytes of data that are looked through for anything but zeros.
const ZEROS_BYTES_MAX: u64 = 1 << 20;

/// A disk to be made.
pub(super) struct NewDisk {
    /// Its file.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its space is taken at once.
    pub is_thick: bool,
}

/// Makes a disk whose whole is an ext4 file system with the files of a directory: owners as the containers saw them, links,
/// modes and times. Nobody may write there meanwhile. Blocking.
///
/// # Errors
/// `Refused` with the words of mke2fs, as when the files do not fit; `Missing` without it.
pub(super) fn populate(directory: &Path, disk: &NewDisk) -> Result<(), DriverError> {
    let failed = |operation: &str, path: &Path| {
        let operation = format!("{operation} {}", path.display());
        move |source| DriverError::Io { operation, source }
    };
    let path = &disk.path;
    let root = fs::symlink_metadata(directory).map_err(failed("look at", directory))?;
    let file = File::options().write(true).create(true).truncate(true).mode(0o644).open(path);
    let file = file.map_err(failed("create", path))?;
    file.set_len(disk.size_bytes).map_err(failed("make room in", path))?;
    if disk.is_thick {
        sys::file::allocate(&file, disk.size_bytes)
            .map_err(io::Error::from)
            .map_err(failed("take room for", path))?;
    }
    let source = directory.to_string_lossy();
    let owner = format!("nodiscard,root_owner={}:{}", root.uid(), root.gid());
    let options: &[&str] = &["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-E", &owner, "-d", &source];
    e2fsprogs("mke2fs", options, path)?;
    // What mke2fs makes of the directory itself is open to all.
    let mode = format!("set_inode_field / mode 0{:o}", root.mode());
    e2fsprogs("debugfs", &["-w", "-R", &mode], path)?;
    file.sync_all().map_err(failed("flush", path))
}

/// Whether nothing was ever written to a disk that stands on nothing. What cannot be told is taken for written.
pub(super) fn is_blank(file: &BackingFile) -> io::Result<bool> {
    let open = File::open(&file.path)?;
    match file.format {
        DiskFormat::Raw => is_blank_raw(&open),
        DiskFormat::Qcow2 => is_blank_qcow2(&open),
    }
}

/// Nothing is written but, by who made it, zeros. Holes and room that was only taken are no data.
fn is_blank_raw(file: &File) -> io::Result<bool> {
    let mut left = ZEROS_BYTES_MAX;
    let mut from = 0;
    loop {
        let begin = match seek(file, SeekFrom::Data(from)) {
            Err(Errno::NXIO) => return Ok(true),
            begin => begin?,
        };
        let end = seek(file, SeekFrom::Hole(begin))?;
        let Some(rest) = left.checked_sub(end - begin) else {
            return Ok(false);
        };
        let mut data = vec![0; usize::try_from(end - begin).map_err(io::Error::other)?];
        file.read_exact_at(&mut data, begin)?;
        if data.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        (left, from) = (rest, end);
    }
}

/// Nothing is written as long as no entry of the first table leads anywhere.
fn is_blank_qcow2(file: &File) -> io::Result<bool> {
    let mut header = [0; QCOW2_HEADER_BYTES];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    let entries = u32::from_be_bytes(header[36..40].try_into().expect("4 bytes")) as usize;
    let offset = u64::from_be_bytes(header[40..48].try_into().expect("8 bytes"));
    let bytes = entries.saturating_mul(8);
    let has_backing = header[8..16] != [0; 8];
    if header[..4] != QCOW2_MAGIC || has_backing || bytes == 0 || bytes > QCOW2_TABLE_BYTES_MAX {
        return Ok(false);
    }
    let mut table = vec![0; bytes];
    match file.read_exact_at(&mut table, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    Ok(table.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn qemu(program: &str, arguments: &[&str]) {
        let done = Command::new(program).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    #[test]
    fn one_written_byte_is_seen_and_room_that_was_taken_is_none() {
        let scratch = tempfile::tempdir().unwrap();
        for format in [DiskFormat::Qcow2, DiskFormat::Raw] {
            let path = scratch.path().join(format.as_str());
            let (name, text) = (format.as_str(), path.to_str().unwrap());
            qemu("qemu-img", &["create", "-q", "-f", name, text, "2G"]);
            let file = BackingFile { path: path.clone(), format };
            assert!(is_blank(&file).unwrap(), "{name}");
            if format == DiskFormat::Raw {
                sys::file::allocate(&File::options().write(true).open(&path).unwrap(), 1 << 20).unwrap();
                assert!(is_blank(&file).unwrap(), "room that was taken");
            }
            qemu("qemu-io", &["-f", name, "-c", "write -P 7 1073741824 1", text]);
            assert!(!is_blank(&file).unwrap(), "{name}");
        }
        let other = scratch.path().join("other");
        fs::write(&other, b"no disk").unwrap();
        assert!(!is_blank(&BackingFile { path: other, format: DiskFormat::Qcow2 }).unwrap());
    }
}
