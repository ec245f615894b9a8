//! The file system of a container that does not run, mounted for a while as its next start would mount it.
//!
//! The mounts are made by a thread in a mount namespace of its own, through the very functions that the shim uses, so
//! that layers, ids and volumes are what the container will find. Nobody else sees them, and the kernel takes them away
//! with the last descriptor: a daemon that is killed leaves nothing mounted. A root disk is mounted first, as by the shim.

use super::{FilesError, first, io_at};
use crate::container::{
    bundle::{Container, Pod, Source},
    root::{self, Root, RootError},
    root_disk,
};
use rustix::fs::{self as rfs, Mode, OFlags};
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};
use sys::{
    jail::{
        process::{namespace, unshare},
        tree,
    },
    userns::{self, IdMap},
};

/// What holds the mounts.
#[derive(Debug)]
pub(super) struct Apart {
    /// The mount namespace; goes last.
    _namespace: File,
    /// The root's own handle. Its place exists in that namespace alone, so that dropping it here detaches nothing.
    _root: Root,
}

/// Mounts the first container of a pod. `scratch` is a directory of the host's that gets an empty file system over it.
/// Gives the root and the upper directory.
pub(super) fn open(pod: &Pod, scratch: PathBuf) -> Result<(Apart, OwnedFd, OwnedFd), FilesError> {
    let mut pod = pod.clone();
    let mut container = first(&pod)?.clone();
    fs::create_dir_all(&scratch).map_err(io_at(format!("create {}", scratch.display())))?;
    // What runs have for themselves is not there: no devices, no texts, no memory that was lost with the last run.
    // Files that come with the pod are written at its start.
    container.mounts.retain(|mount| matches!(&mount.source, Source::Bind { path, .. } if path.exists()));
    container.process.cwd = PathBuf::from("/");
    pod.places.run = scratch;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("files-apart".into());
        let thread =
            thread.spawn_scoped(scope, || mount(&pod, &container)).map_err(io_at("make a thread"))?;
        thread.join().unwrap_or_else(|_| Err(io_at("mount its layers")(io::Error::other("a step panicked"))))
    })
}

fn mount(pod: &Pod, container: &Container) -> Result<(Apart, OwnedFd, OwnedFd), FilesError> {
    let place = &pod.places.run;
    // The thread's working directory becomes its own with this, too (unshare(2), CLONE_NEWNS implies CLONE_FS).
    unshare(namespace::MOUNT).map_err(io_at("make a mount namespace"))?;
    tree::make_slave(Path::new("/")).map_err(io_at("separate the mount namespace"))?;
    root::forget_other_namespaces(pod).map_err(step)?;
    let empty =
        tree::new_file_system("tmpfs", &[("mode", Some("0700"))], 0).map_err(io_at("make a tmpfs"))?;
    let target = File::open(place).map_err(io_at(format!("open {}", place.display())))?;
    tree::attach(empty.as_fd(), target.as_fd()).map_err(io_at("mount a tmpfs"))?;
    root_disk::mount(pod).map_err(step)?;
    let map = IdMap::shifted(pod.ids.base, pod.ids.count);
    let user = userns::create(&map).map_err(io_at::<sys::error::Error>("make a user namespace"))?;
    let mounted = root::prepare(pod, container, user.as_fd()).map_err(step)?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let upper = root::upper_of(pod, container).join("fs");
    let upper =
        rfs::open(&upper, directory, Mode::empty()).map_err(io_at(format!("open {}", upper.display())))?;
    let at = place.join("root").join(&container.name);
    let top = rfs::open(&at, directory, Mode::empty()).map_err(io_at("open the root"))?;
    let namespace = File::open("/proc/thread-self/ns/mnt").map_err(io_at("keep the mount namespace"))?;
    Ok((Apart { _namespace: namespace, _root: mounted }, top, upper))
}

fn step(error: RootError) -> FilesError {
    FilesError::Io { operation: error.step, source: error.source }
}
