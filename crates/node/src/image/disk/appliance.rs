//! Appliances: an OVF package as one tar file (OVA), as VirtualBox, VMware and others export them.
//!
//! Only its disk is of use here: what machine to make of it is said by whoever starts one. The description inside is
//! never followed: it could name any file.

use super::{DiskError, at, import::copy_sparse};
use crate::image::{
    cancel::{StopFlag, StoppableReader},
    compression::decompress,
    tar::{Kind, TarReader},
};
use std::{
    fs::{File, OpenOptions},
    io::{BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
};

/// Most members of an appliance.
const MEMBERS_MAX: usize = 1_000;
/// Ends of names of disks.
const DISKS: [&str; 9] = [".vmdk", ".vhd", ".vhdx", ".vdi", ".qcow2", ".img", ".raw", ".vmdk.gz", ".img.gz"];

/// What a member is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Description,
    Disk,
    Other,
}

fn member(name: &[u8]) -> Member {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    if name.ends_with(".ovf") {
        return Member::Description;
    }
    if DISKS.iter().any(|end| name.ends_with(end)) { Member::Disk } else { Member::Other }
}

/// Whether a file is a tar archive with a description of an appliance. Blocking.
pub(super) fn is_appliance(path: &Path) -> Result<bool, DiskError> {
    let file = File::open(path).map_err(at("open", path))?;
    let mut magic = [0u8; 5];
    if file.read_exact_at(&mut magic, 257).is_err() || &magic != b"ustar" {
        return Ok(false);
    }
    // A disk whose first sector happens to look like this is no archive, and is a disk all the same.
    let mut archive = TarReader::new(BufReader::new(file));
    for _ in 0..MEMBERS_MAX {
        match archive.next_entry() {
            Ok(Some(entry)) if entry.kind == Kind::File && member(&entry.path) == Member::Description => {
                return Ok(true);
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Ok(false),
        }
    }
    Ok(false)
}

/// Writes the one disk of an appliance to a new file. Blocking.
pub(super) fn take_disk(
    archive: &Path,
    disk: &Path,
    size_bytes_max: u64,
    flag: &StopFlag,
) -> Result<(), DiskError> {
    let mut found = 0;
    let mut members = open(archive, flag)?;
    for _ in 0..MEMBERS_MAX {
        let Some(entry) = members.next_entry()? else { break };
        if entry.kind != Kind::File || member(&entry.path) != Member::Disk {
            continue;
        }
        found += 1;
        if found == 1 {
            let mut plain = decompress(&mut members)?;
            let mut file =
                OpenOptions::new().write(true).create_new(true).open(disk).map_err(at("create", disk))?;
            let written = copy_sparse(&mut plain, &mut file, disk, size_bytes_max, &|_| {})?;
            file.set_len(written).map_err(at("write", disk))?;
        }
    }
    if found == 1 { Ok(()) } else { Err(DiskError::Appliance(found)) }
}

fn open(archive: &Path, flag: &StopFlag) -> Result<TarReader<impl Read + use<>>, DiskError> {
    let file = File::open(archive).map_err(at("open", archive))?;
    Ok(TarReader::new(BufReader::new(StoppableReader::new(file, flag.clone()))))
}
