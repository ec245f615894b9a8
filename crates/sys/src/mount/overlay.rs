//! Overlay mounts with any number of layers.
//!
//! Layers are handed over as descriptors, so neither the length of their paths nor a page of options limits their number
//! (kernel 6.8 and later, fsconfig with `lowerdir+`). An older kernel gets the options of mount(2) with
//! `/proc/self/fd/N` for each layer, which has room for about 200.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::mount::MsFlags;

use super::move_mount;
use crate::error::{Context, Error, Result, check};

/// The page that mount(2) copies options from.
const OPTIONS_SIZE_BYTES_MAX: usize = 4095;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;

/// A read-only layer: a directory by its path or by a descriptor. A detached mount serves from kernel 6.15 on; for older
/// ones (Debian 12 and 13) give it a place first, with [`move_mount`].
#[derive(Debug, Clone, Copy)]
pub enum Lower<'a> {
    /// A directory.
    Path(&'a Path),
    /// An open directory.
    Fd(BorrowedFd<'a>),
}

/// Mounts at `target` the layers `lowers` (the topmost first) under the writable directory `upper`. `work` is an empty
/// directory on the same file system as `upper`, used by nobody else.
pub fn overlay(lowers: &[Lower<'_>], upper: &Path, work: &Path, target: &Path) -> Result<()> {
    mount(lowers, Some((&open(upper)?, &open(work)?)), target)
}

/// Mounts the layers (two or more, the topmost first) at `target`; nothing can be written.
pub fn overlay_readonly(lowers: &[Lower<'_>], target: &Path) -> Result<()> {
    mount(lowers, None, target)
}

fn mount(lowers: &[Lower<'_>], writable: Option<(&File, &File)>, target: &Path) -> Result<()> {
    // Opened here, named by number below: a path may contain commas and colons, and be of any length.
    let opened: Vec<Option<File>> = lowers
        .iter()
        .map(|lower| match lower {
            Lower::Path(path) => open(path).map(Some),
            Lower::Fd(_) => Ok(None),
        })
        .collect::<Result<_>>()?;
    let layers: Vec<BorrowedFd<'_>> = lowers
        .iter()
        .zip(&opened)
        .map(|(lower, opened)| match (lower, opened) {
            (Lower::Fd(descriptor), _) => *descriptor,
            (_, Some(file)) => file.as_fd(),
            (Lower::Path(_), None) => unreachable!("every path was opened above"),
        })
        .collect();
    match mount_by_descriptors(&layers, writable, target) {
        // The parameter is unknown before 6.8. Before 6.5 the kernel collects unknown ones and refuses them at the end.
        Err(error) if error.errno() == Some(libc::EINVAL) => mount_by_options(&layers, writable, target)
            .map_err(|second| if error.explanation.is_some() { error } else { second }),
        result => result,
    }
}

const ADD_LAYER: &str = "add layer to overlay at";

fn open(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path)
        .context("open layer", path.display())
}

fn name_of(descriptor: impl AsFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd())
}

fn mount_by_descriptors(
    layers: &[BorrowedFd<'_>],
    writable: Option<(&File, &File)>,
    target: &Path,
) -> Result<()> {
    // SAFETY: the name ends in NUL and lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), libc::FSOPEN_CLOEXEC) };
    let number = check("configure overlay at", target.display(), result)?;
    // SAFETY: the kernel has just returned this descriptor, so it is open and ours alone.
    let context = File::from(unsafe { OwnedFd::from_raw_fd(number as i32) });
    set(&context, "configure overlay at", target, c"source", "overlay")?;
    for layer in layers {
        set(&context, ADD_LAYER, target, c"lowerdir+", &name_of(layer))?;
    }
    if let Some((upper, work)) = writable {
        set(&context, "add upper directory to overlay at", target, c"upperdir", &name_of(upper))?;
        set(&context, "add work directory to overlay at", target, c"workdir", &name_of(work))?;
    }
    configure(&context, "mount overlay at", target, FSCONFIG_CMD_CREATE, None)?;
    // SAFETY: the arguments are numbers.
    let result = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, 0) };
    let number = check("mount overlay at", target.display(), result)?;
    // SAFETY: the kernel has just returned this descriptor, so it is open and ours alone.
    move_mount(unsafe { OwnedFd::from_raw_fd(number as i32) }, target)
}

fn set(context: &File, operation: &'static str, target: &Path, key: &CStr, value: &str) -> Result<()> {
    configure(context, operation, target, FSCONFIG_SET_STRING, Some((key, value)))
}

fn configure(
    context: &File,
    operation: &'static str,
    target: &Path,
    command: u32,
    pair: Option<(&CStr, &str)>,
) -> Result<()> {
    let value = pair.map(|(_, value)| crate::file::c_string(value.as_bytes())).transpose()?;
    let key = pair.map_or(std::ptr::null(), |(key, _)| key.as_ptr());
    let value = value.as_ref().map_or(std::ptr::null(), |value| value.as_ptr());
    // SAFETY: key and value are null or end in NUL, and live through the call.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) };
    check(operation, target.display(), result).map(drop).map_err(|error| {
        let explanation = complaint(context);
        Error { explanation, ..error }
    })
}

/// What the file system says about the last failure: "e overlay: ...", one message for each read.
fn complaint(context: &File) -> Option<String> {
    let mut context = context;
    let mut bytes = [0; 1024];
    let length = context.read(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    Some(text.trim_start_matches("e ").trim().to_owned()).filter(|text| !text.is_empty())
}

fn mount_by_options(
    layers: &[BorrowedFd<'_>],
    writable: Option<(&File, &File)>,
    target: &Path,
) -> Result<()> {
    let options = options(layers, writable);
    if options.len() > OPTIONS_SIZE_BYTES_MAX {
        return Err(Error::invalid(
            ADD_LAYER,
            target.display(),
            "too many layers for a kernel older than 6.8",
        ));
    }
    nix::mount::mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .context("mount overlay at", target.display())
}

fn options(layers: &[BorrowedFd<'_>], writable: Option<(&File, &File)>) -> String {
    let names: Vec<String> = layers.iter().map(name_of).collect();
    let mut options = format!("lowerdir={}", names.join(":"));
    if let Some((upper, work)) = writable {
        options.push_str(&format!(",upperdir={},workdir={}", name_of(upper), name_of(work)));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way of older kernels works on this one too.
    #[test]
    fn options_mount_the_same_layers() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["one", "two", "upper", "work", "target"] {
            std::fs::create_dir(directory.path().join(name)).expect("made");
        }
        std::fs::write(directory.path().join("one/file"), "top").expect("written");
        std::fs::write(directory.path().join("two/file"), "hidden").expect("written");
        let open = |name: &str| open(&directory.path().join(name)).expect("opened");
        let (one, two, upper, work) = (open("one"), open("two"), open("upper"), open("work"));
        let target = directory.path().join("target");
        mount_by_options(&[one.as_fd(), two.as_fd()], Some((&upper, &work)), &target).expect("mounted");
        let content = std::fs::read(target.join("file"));
        crate::mount::unmount(&target).expect("unmounted");
        assert_eq!(content.expect("read"), b"top");
        let many = vec![one.as_fd(); 1000];
        assert_eq!(
            mount_by_options(&many, None, &target).expect_err("too many").kind(),
            std::io::ErrorKind::InvalidInput
        );
    }
}
