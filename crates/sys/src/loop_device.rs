//! Loop devices: a file as a block device, for as long as something of it is mounted.
//!
//! A device made here lets go of its file by itself when its last user (a mount, an open descriptor) is gone, however
//! that came about: nothing has to be taken down after a crash. Source: loop(4), linux/loop.h; needs Linux 5.8.

use crate::error::{Context, Error, Result, check};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

/// Major number of loop devices.
const MAJOR: u64 = 7;
/// How often another device is asked for when somebody else was faster.
const TRIES_MAX: usize = 64;

const LOOP_SET_CAPACITY: libc::Ioctl = 0x4c07;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
/// The device ends with its last user.
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// The file is not kept in memory a second time, where its file system can do without.
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// `EXT4_IOC_RESIZE_FS` of `fs/ext4/ext4.h`: `_IOW('f', 16, __u64)`.
const EXT4_RESIZE: libc::Ioctl = 0x4008_6610_u32 as libc::Ioctl;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A device over a file. The device stays for as long as this handle or a mount of it does.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    device: File,
}

impl LoopDevice {
    /// Makes a device over the whole of `file`, which is open for reading and writing.
    ///
    /// # Errors
    /// `EACCES` or `ENOENT` where this host lets nobody make devices, `EBUSY` when others took all.
    pub fn attach(file: &File) -> Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .context("open", "/dev/loop-control")?;
        let config = Config {
            fd: file.as_raw_fd() as u32,
            block_size: 0,
            info: Info {
                device: 0,
                inode: 0,
                rdevice: 0,
                offset: 0,
                size_limit: 0,
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
                file_name: [0; 64],
                crypt_name: [0; 64],
                encrypt_key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        };
        for _ in 0..TRIES_MAX {
            // SAFETY: takes no argument.
            let free = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            let number = check("find a free loop device", "/dev/loop-control", free.into())?;
            let (path, device) = open(number as u64)?;
            // SAFETY: the kernel reads one record of this form.
            let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
            match check("configure", path.display(), result.into()) {
                Ok(_) => return Ok(Self { path, device }),
                Err(error) if error.errno() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(
            "find a free loop device",
            "/dev/loop-control",
            io::Error::from_raw_os_error(libc::EBUSY),
        ))
    }

    /// The device that a mounted file system is on, or `None` if that is no loop device.
    ///
    /// # Errors
    /// When the mount or the device cannot be opened.
    pub fn below(mount: &Path) -> Result<Option<Self>> {
        let device = std::fs::metadata(mount).context("look at", mount.display())?.dev();
        if nix::sys::stat::major(device) != MAJOR {
            return Ok(None);
        }
        let (path, device) = open(nix::sys::stat::minor(device))?;
        Ok(Some(Self { path, device }))
    }

    /// Path of the device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes note that the file became longer.
    pub fn grow(&self) -> Result<()> {
        // SAFETY: takes no argument.
        let result = unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_SET_CAPACITY, 0) };
        check("grow", self.path.display(), result.into()).map(drop)
    }
}

/// Opens a device by its number. Where nobody fills /dev, the node is made.
fn open(number: u64) -> Result<(PathBuf, File)> {
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    let device = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = mknod(&path, SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), makedev(MAJOR, number));
            match made {
                Ok(()) | Err(nix::errno::Errno::EEXIST) => open(),
                Err(errno) => Err(errno.into()),
            }
        }
        opened => opened,
    };
    let device = device.context("open", path.display())?;
    let kind = device.metadata().context("look at", path.display())?;
    if !kind.file_type().is_block_device() || nix::sys::stat::major(kind.rdev()) != MAJOR {
        return Err(Error::invalid("open", path.display(), "it is no loop device"));
    }
    Ok((path, device))
}

/// Lets a mounted ext4 file system grow to so many of its blocks. One that has them is left alone.
///
/// # Errors
/// `EINVAL` for less than it has; `EPERM` without `CAP_SYS_RESOURCE`.
pub fn grow_ext4(mount: BorrowedFd<'_>, blocks: u64) -> Result<()> {
    // SAFETY: the kernel reads one 64-bit number.
    let result = unsafe { libc::ioctl(mount.as_raw_fd(), EXT4_RESIZE, &raw const blocks) };
    check("grow", "a file system", result.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_have_the_kernels_sizes() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }
}
