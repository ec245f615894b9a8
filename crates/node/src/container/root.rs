//! Puts a container's file system together, in the shim's own mount namespace.
//!
//! Everything is mounted by the shim, from outside the user namespace and below a directory that only the shim sees,
//! so that it is gone when shim and containers are gone, and locked for the container: a mount that was there before
//! a less privileged mount namespace was made cannot be taken off or loosened in it (mount_namespaces(7)). What only
//! the container's own namespaces can mount (proc, pts, mqueue, cgroup) is left to [`mount_inside`], which runs in
//! the container's first process. Nothing here follows a link out of the image.

use super::{
    bundle::{Container, Mount, Pod, PodText, Source},
    root_disk,
};
use crate::image::shifted_copy::{cannot_shift, layer_copy};
use model::image_manifest::LAYERS_MAX;
use rustix::fs::{self as rfs, AtFlags, Gid, Uid};
use std::{
    fs,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{PermissionsExt, chown, lchown},
    },
    path::{Path, PathBuf},
};
use sys::jail::{
    privilege,
    process::{namespace, unshare},
    tree::{self, attribute},
};

/// Most bytes of an image's `/etc/passwd` or `/etc/group` that are read.
const ACCOUNTS_BYTES_MAX: u64 = 4 << 20;
/// Longest text option of a file system (`fsconfig` takes 256 bytes with the end).
const OPTION_BYTES_MAX: usize = 250;

/// A failed step of mounting.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub struct RootError {
    /// What was tried, and on what.
    pub step: String,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// Names the step of a failed operation.
pub(super) trait Step<T> {
    /// Adds what was tried.
    fn step(self, text: impl FnOnce() -> String) -> Result<T, RootError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, text: impl FnOnce() -> String) -> Result<T, RootError> {
        self.map_err(|source| RootError { step: text(), source: source.into() })
    }
}

/// A failure with its cause, for people.
pub(super) fn told(error: &RootError) -> String {
    format!("{error}: {}", error.source)
}

/// A container's file system, mounted below the shim's directory.
#[derive(Debug)]
pub struct Root {
    mount: OwnedFd,
    path: PathBuf,
}

impl Drop for Root {
    fn drop(&mut self) {
        // The mount namespace ends with the shim in any case.
        let _ = tree::detach(&self.path);
    }
}

impl Root {
    /// The root directory.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Where a program is when links are followed; `None` where there is no such file.
    pub fn program(&self, path: &str) -> Option<PathBuf> {
        let file = tree::open_in_root(self.as_fd(), Path::new(path), libc::O_PATH, 0).ok()?;
        fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
    }

    /// Text of a file of the image, empty if it is missing. Only a plain file of a sane size is read.
    pub fn text(&self, path: &str) -> io::Result<String> {
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = match tree::open_in_root(self.as_fd(), Path::new(path), flags, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            file => fs::File::from(file?),
        };
        if !file.metadata()?.is_file() {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(ACCOUNTS_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Moves the shim into a mount namespace of its own, and makes what the containers of the pod share.
///
/// Must run after the shim joined the pod's network namespace: sysfs shows the devices of the one that mounts it.
pub fn enter(pod: &Pod) -> Result<(), RootError> {
    unshare(namespace::MOUNT).step(|| "make a mount namespace".into())?;
    tree::make_slave(Path::new("/")).step(|| "separate the mount namespace".into())?;
    forget_other_namespaces(pod)?;
    let run = &pod.places.run;
    let base = pod.ids.base;
    for (text, content) in [
        (PodText::Hosts, &pod.hosts),
        (PodText::Hostname, &format!("{}\n", pod.hostname)),
        (PodText::ResolvConf, &pod.resolv_conf),
    ] {
        let path = run.join(text.file_name());
        let written = fs::write(&path, content)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .and_then(|()| chown(&path, Some(base), Some(base)));
        written.step(|| format!("write {}", path.display()))?;
    }
    let no_run = attribute::NO_SUID | attribute::NO_DEVICES | attribute::NO_EXEC;
    let sysfs = tree::new_file_system("sysfs", &[], no_run | attribute::READ_ONLY);
    attach_at(sysfs.step(|| "make a sysfs".into())?.as_fd(), &run.join("sys"))?;
    let size =
        pod.containers.iter().flat_map(|container| &container.mounts).find_map(|mount| match mount.source {
            Source::SharedMemory { size_bytes } => Some(size_bytes),
            _ => None,
        });
    if let Some(size) = size {
        attach_at(memory(size, "1777", base, no_run)?.as_fd(), &run.join("shm"))?;
    }
    root_disk::mount(pod)?;
    // An empty file system and a device, to hide files and directories with.
    attach_at(memory(4096, "0555", base, no_run | attribute::READ_ONLY)?.as_fd(), &run.join("void"))
}

/// The copy of the mount table must not keep other pods' and networks' namespaces alive after they were deleted.
pub(super) fn forget_other_namespaces(pod: &Pod) -> Result<(), RootError> {
    let handles = pod.places.netns.parent().unwrap_or(Path::new("/"));
    let table = fs::read_to_string("/proc/self/mountinfo").step(|| "read the mount table".into())?;
    let mut last: Option<PathBuf> = None;
    for line in table.lines() {
        // Fields 5 is the mount point; the type follows the separator (proc_pid_mountinfo(5)).
        let Some(target) = line.split(' ').nth(4).map(Path::new) else {
            continue;
        };
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
        if kind != Some("nsfs") && target != handles {
            continue;
        }
        if last.as_deref().is_some_and(|above| target.starts_with(above)) {
            continue;
        }
        tree::detach(target).step(|| format!("forget the mount {}", target.display()))?;
        last = Some(target.to_path_buf());
    }
    Ok(())
}

fn memory(size_bytes: u64, mode: &str, owner: u32, attributes: u64) -> Result<OwnedFd, RootError> {
    owned_memory(size_bytes, u32::from_str_radix(mode, 8).unwrap_or(0o755), (owner, owner), attributes)
}

/// Memory whose top belongs to a user and a group of the host.
fn owned_memory(
    size_bytes: u64,
    mode: u32,
    (uid, gid): (u32, u32),
    attributes: u64,
) -> Result<OwnedFd, RootError> {
    let (size, mode) = (size_bytes.to_string(), format!("{mode:04o}"));
    let (uid, gid) = (uid.to_string(), gid.to_string());
    let options = [
        ("size", Some(size.as_str())),
        ("mode", Some(mode.as_str())),
        ("uid", Some(uid.as_str())),
        ("gid", Some(gid.as_str())),
    ];
    tree::new_file_system("tmpfs", &options, attributes).step(|| "make a tmpfs".into())
}

/// Attaches a mount at a directory of the host's side, which is made if needed.
pub(super) fn attach_at(mount: BorrowedFd<'_>, path: &Path) -> Result<(), RootError> {
    fs::create_dir_all(path).step(|| format!("create {}", path.display()))?;
    let target = fs::File::open(path).step(|| format!("open {}", path.display()))?;
    tree::attach(mount, target.as_fd()).step(|| format!("mount on {}", path.display()))
}

/// Mounts the file system of a container as far as the shim can.
pub fn prepare(pod: &Pod, container: &Container, user_namespace: BorrowedFd<'_>) -> Result<Root, RootError> {
    let path = pod.places.run.join("root").join(&container.name);
    let image = image(pod, container, user_namespace)?;
    let mount = tree::clone_path(&image, false).step(|| format!("open {}", image.display()))?;
    attach_at(mount.as_fd(), &path)?;
    let root = Root { mount, path };
    let owner = (pod.ids.base, pod.ids.base);
    for mount in &container.mounts {
        let target = || format!("mount {} in container {}", mount.target.display(), container.name);
        mount_one(pod, &root, mount, user_namespace).map_err(|error| RootError {
            step: format!("{}: cannot {}", target(), error.step),
            source: error.source,
        })?;
    }
    tree::make_directory_in_root(root.as_fd(), &container.process.cwd, 0o755, owner)
        .step(|| format!("make the working directory {}", container.process.cwd.display()))?;
    if container.read_only {
        tree::restrict(root.as_fd(), attribute::READ_ONLY, false)
            .step(|| "make the root read-only".into())?;
    }
    Ok(root)
}

/// Where the overlay of a container is mounted for as long as its pod lives. Each run gets a clone of it: somebody may
/// still look at the files of the run before, and an upper directory must not be under two overlays at a time.
fn image(pod: &Pod, container: &Container, user_namespace: BorrowedFd<'_>) -> Result<PathBuf, RootError> {
    let path = pod.places.run.join("image").join(&container.name);
    if !is_overlay(&path) {
        attach_at(mount_image(pod, container, user_namespace)?.as_fd(), &path)?;
    }
    Ok(path)
}

/// Whether an overlay is mounted there, as the kernel says (statfs(2), `OVERLAYFS_SUPER_MAGIC`).
pub(super) fn is_overlay(path: impl rustix::path::Arg) -> bool {
    rustix::fs::statfs(path).is_ok_and(|seen| seen.f_type == 0x794c_7630)
}

/// The overlay of the image's layers and the container's own files, with ids shifted into the pod's range.
///
/// Layers keep the ids that the image gave them on the disk, so that pods of different ranges share them; what the
/// container writes has the ids of its range (an overlay whose upper directory is shifted too would be read-only to
/// the host's root, who mounts it). Device nodes in an image are dead.
fn mount_image(
    pod: &Pod,
    container: &Container,
    user_namespace: BorrowedFd<'_>,
) -> Result<OwnedFd, RootError> {
    let layers = container.layers.len();
    if layers == 0 || layers > LAYERS_MAX {
        let source = io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{layers} layers; 1 to {LAYERS_MAX} are possible"),
        );
        return Err(RootError { step: format!("mount the image of {}", container.name), source });
    }
    let written = upper_of(pod, container);
    make_upper(container, &written, pod.ids.base)?;
    let place = pod.places.run.join("layers").join(&container.name);
    let mut attached = Vec::new();
    for (number, layer) in container.layers.iter().chain([&written]).enumerate() {
        let mount = if number < layers {
            shifted_layer(pod, container, number, user_namespace)?
        } else {
            open_layer(layer)?
        };
        let at = place.join(number.to_string());
        attach_at(mount.as_fd(), &at)?;
        attached.push(at);
    }
    let overlay = mount_overlay(&place, layers);
    for at in attached {
        // The overlay holds on to them.
        let _ = tree::detach(&at);
    }
    overlay.step(|| format!("mount the layers of {}", container.name))
}

fn open_layer(layer: &Path) -> Result<OwnedFd, RootError> {
    tree::clone_path(layer, false).step(|| format!("open the layer {}", layer.display()))
}

/// A layer with ids shifted into the pod's range: by the mount, or by a copy where the file system's mounts cannot.
fn shifted_layer(
    pod: &Pod,
    container: &Container,
    number: usize,
    user_namespace: BorrowedFd<'_>,
) -> Result<OwnedFd, RootError> {
    let layer = &container.layers[number];
    let mount = open_layer(layer)?;
    match tree::map_ids(mount.as_fd(), user_namespace) {
        Err(error) if error.raw_os_error().is_some_and(cannot_shift) => {
            let copy = layer_copy(&container.upper, number, layer, pod.ids);
            open_layer(&copy.step(|| format!("copy the layer {}", layer.display()))?)
        }
        mapped => {
            mapped.step(|| format!("shift the ids of {}", layer.display()))?;
            Ok(mount)
        }
    }
}

/// The overlay of the mounts `0` (lowest) to `layers` (the upper one) in `place`.
fn mount_overlay(place: &Path, layers: usize) -> io::Result<OwnedFd> {
    // Short relative names, because the option is short.
    std::env::set_current_dir(place)?;
    let (upper, work) = (format!("{layers}/fs"), format!("{layers}/work"));
    let lower = lower_options(layers);
    let mut options: Vec<(&str, Option<&str>)> =
        lower.iter().map(|(name, value)| (*name, Some(value.as_str()))).collect();
    options.extend([
        ("upperdir", Some(upper.as_str())),
        ("workdir", Some(work.as_str())),
        ("redirect_dir", Some("off")),
        ("metacopy", Some("off")),
        ("index", Some("off")),
        ("source", Some("holm")),
    ]);
    let mount = tree::new_file_system("overlay", &options, attribute::NO_DEVICES);
    std::env::set_current_dir("/")?;
    mount
}

/// What an overlay is told of its lower directories `0` (lowest) to `count` - 1 in the working directory.
pub(super) fn lower_options(count: usize) -> Vec<(&'static str, String)> {
    let numbers: Vec<String> = (0..count).rev().map(|number| number.to_string()).collect();
    let joined = numbers.join(":");
    if joined.len() <= OPTION_BYTES_MAX {
        return vec![("lowerdir", joined)];
    }
    // One at a time needs Linux 6.5.
    numbers.into_iter().map(|number| ("lowerdir+", number)).collect()
}

/// Where a container's own files go: to the pod's root disk, which only the shim sees, or to the host's directory.
pub(super) fn upper_of(pod: &Pod, container: &Container) -> PathBuf {
    match &pod.root_disk {
        Some(_) => root_disk::place(pod).join(container.upper.file_name().unwrap_or(container.name.as_ref())),
        None => container.upper.clone(),
    }
}

/// The upper directory's own mode shows as that of `/`, so it is taken from the top layer.
fn make_upper(container: &Container, upper: &Path, base: u32) -> Result<(), RootError> {
    let files = upper.join("fs");
    if !files.exists() {
        let top = container.layers.last().map(fs::metadata);
        let mode = top.and_then(Result::ok).map_or(0o755, |meta| meta.permissions().mode() & 0o7777);
        fs::create_dir_all(&files)
            .and_then(|()| fs::set_permissions(&files, fs::Permissions::from_mode(mode)))
            .and_then(|()| chown(&files, Some(base), Some(base)))
            .step(|| format!("create {}", files.display()))?;
    }
    let work = upper.join("work");
    fs::create_dir_all(&work).step(|| format!("create {}", work.display()))
}

/// Attributes as the kernel's bits.
fn attributes(mount: &Mount) -> u64 {
    [
        (mount.read_only, attribute::READ_ONLY),
        (mount.no_suid, attribute::NO_SUID),
        (mount.no_devices, attribute::NO_DEVICES),
        (mount.no_exec, attribute::NO_EXEC),
    ]
    .into_iter()
    .filter(|(wanted, _)| *wanted)
    .fold(0, |bits, (_, bit)| bits | bit)
}

fn mount_one(pod: &Pod, root: &Root, mount: &Mount, user_namespace: BorrowedFd<'_>) -> Result<(), RootError> {
    let base = pod.ids.base;
    let run = &pod.places.run;
    let piece = match &mount.source {
        Source::Processes | Source::Terminals | Source::MessageQueues => {
            // Mounted from inside; only the place is made here.
            tree::make_directory_in_root(root.as_fd(), &mount.target, 0o755, (base, base))
                .step(|| "make the directory".into())?;
            return Ok(());
        }
        Source::ControlGroups => return Ok(()),
        Source::Devices => devices(base, attributes(mount), pod.is_system())?,
        Source::SharedMemory { .. } => bind(&run.join("shm"), false)?,
        Source::KernelObjects => bind(&run.join("sys"), false)?,
        Source::Text(text) => bind(&run.join(text.file_name()), false)?,
        Source::Memory { size_bytes, roots } => {
            memory(*size_bytes, if *roots { "0755" } else { "1777" }, base, attributes(mount))?
        }
        Source::Lent { directory, part, exists } => {
            let piece = match part {
                None => bind(directory, false)?,
                Some(part) => part_of(directory, part, !exists)?,
            };
            // Nothing of the host is given to anybody: where its ids cannot be shifted it is not shown.
            tree::map_ids(piece.as_fd(), user_namespace)
                .step(|| format!("shift the ids of {}, as its file system cannot", directory.display()))?;
            piece
        }
        Source::OwnedMemory { size_bytes, mode, uid, gid } => {
            owned_memory(*size_bytes, *mode, (base + uid, base + gid), attributes(mount))?
        }
        Source::Bind { path, part, group } => {
            let piece = match part {
                None => bind(path, true)?,
                Some(part) => part_of(path, part, true)?,
            };
            if tree::map_ids(piece.as_fd(), user_namespace).is_err() {
                // A file system that cannot shift ids shows its own. The pod's own files are all given to it; of a volume
                // what others wrote belongs to nobody, and the container's root may at least write beside it.
                let group = group.map_or(base, |group| base + group.gid);
                let given = match path.starts_with(pod.places.files()) {
                    true => give_all(path, (base, group)),
                    false => {
                        let owner = (Uid::from_raw(base), Gid::from_raw(group));
                        rfs::chownat(&piece, "", Some(owner.0), Some(owner.1), AtFlags::EMPTY_PATH)
                            .map_err(io::Error::from)
                    }
                };
                given.step(|| "give it to the container".into())?;
            }
            piece
        }
    };
    tree::restrict(piece.as_fd(), attributes(mount), false).step(|| "restrict it".into())?;
    let is_directory = tree::is_directory(&piece).step(|| "look at it".into())?;
    let target = match is_directory {
        true => tree::make_directory_in_root(root.as_fd(), &mount.target, 0o755, (base, base)),
        false => tree::make_file_in_root(root.as_fd(), &mount.target, (base, base)),
    };
    tree::attach(piece.as_fd(), target.step(|| "make the place".into())?.as_fd()).step(|| "attach it".into())
}

/// Gives a file, or a directory with all in it, to the container's root. There are no links among the pod's own files, and
/// no container can put one there.
fn give_all(path: &Path, owner: (u32, u32)) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_all(&entry?.path(), owner)?;
        }
    }
    lchown(path, Some(owner.0), Some(owner.1))
}

/// A directory or a file of a volume: what is not there is made as a directory, as open as the volume itself. Containers
/// write to the volume, so that a link in it may lead anywhere: it is followed within the volume alone.
fn part_of(volume: &Path, part: &Path, makes: bool) -> Result<OwnedFd, RootError> {
    let shown = || format!("open {} of the volume", part.display());
    let whole = tree::clone_path(volume, false).step(|| format!("open {}", volume.display()))?;
    let found = match tree::open_in_root(whole.as_fd(), part, libc::O_PATH, 0) {
        Err(error) if makes && error.kind() == io::ErrorKind::NotFound => {
            let top = rfs::fstat(&whole).map_err(io::Error::from).step(shown)?;
            let owner = (top.st_uid, top.st_gid);
            let made = tree::make_directory_in_root(whole.as_fd(), part, 0o755, owner).step(shown)?;
            let own = format!("/proc/self/fd/{}", made.as_raw_fd());
            fs::set_permissions(own, fs::Permissions::from_mode(top.st_mode & 0o7777)).step(shown)?;
            Ok(made)
        }
        found => found,
    };
    let found = found.step(shown)?;
    tree::clone_tree(found.as_fd(), Path::new(""), false).step(shown)
}

fn bind(path: &Path, recursive: bool) -> Result<OwnedFd, RootError> {
    tree::clone_path(path, recursive).step(|| format!("open {}", path.display()))
}

/// A `/dev` with the nodes that every program may use. They are real nodes of a file system made outside the user
/// namespace; no process inside can make others. Systems get those too that the kernel cuts apart by namespaces: network
/// devices and file systems of programs.
fn devices(base: u32, attributes: u64, of_system: bool) -> Result<OwnedFd, RootError> {
    let dev = memory(64 << 20, "0755", base, attributes & !attribute::NO_DEVICES)?;
    let fill = || -> io::Result<()> {
        for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
            tree::make_device(dev.as_fd(), name, 1, minor)?;
        }
        tree::make_device(dev.as_fd(), "tty", 5, 0)?;
        if of_system {
            let net = tree::make_directory_in_root(dev.as_fd(), Path::new("net"), 0o755, (base, base))?;
            tree::make_device(net.as_fd(), "tun", 10, 200)?;
            tree::make_device(dev.as_fd(), "fuse", 10, 229)?;
        }
        for (name, target) in [
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ] {
            tree::make_link(dev.as_fd(), name, target)?;
        }
        tree::make_file_in_root(dev.as_fd(), Path::new("console"), (base, base)).map(|_| ())
    };
    fill().step(|| "fill /dev".into())?;
    Ok(dev)
}

/// Mounts what only the container's first process can, hides paths, and makes `root` the root directory.
///
/// Runs in the container's namespaces, with all capabilities of its user namespace, and still with the host's ids: the
/// pod's directories are closed to everyone else. Becomes root inside on the way.
pub fn mount_inside(pod: &Pod, container: &Container) -> Result<(), RootError> {
    let staged = pod.places.run.join("root").join(&container.name);
    let root = tree::clone_path(&staged, true).step(|| "copy the root".into())?;
    let place = fs::File::open(&staged).step(|| "open the root".into())?;
    tree::attach(root.as_fd(), place.as_fd()).step(|| "attach the root".into())?;
    let is_queue = |mount: &&Mount| mount.source == Source::MessageQueues;
    let is_late = |mount: &&Mount| is_queue(mount) || mount.source == Source::ControlGroups;
    for mount in container.mounts.iter().filter(|mount| !is_late(mount)) {
        mount_own(pod.ids.count, root.as_fd(), mount)?;
    }
    let void = pod.places.run.join("void");
    for path in &container.masked_paths {
        mask(root.as_fd(), path, &void).step(|| format!("hide {}", path.display()))?;
    }
    let mut kept = Vec::new();
    for path in &container.writable_paths {
        kept.extend(
            copy_of(root.as_fd(), path).step(|| format!("keep {}", path.display()))?.map(|it| (path, it)),
        );
    }
    for path in &container.read_only_paths {
        freeze(root.as_fd(), path).step(|| format!("make {} read-only", path.display()))?;
    }
    for (path, copy) in kept {
        let target = tree::open_in_root(root.as_fd(), path, libc::O_PATH, 0);
        target
            .and_then(|target| tree::attach(copy.as_fd(), target.as_fd()))
            .step(|| format!("let {} be written", path.display()))?;
    }
    privilege::set_ids(0, 0, &[]).step(|| "become root inside".into())?;
    // Message queues belong to who mounts them.
    for mount in container.mounts.iter().filter(is_queue) {
        mount_own(pod.ids.count, root.as_fd(), mount)?;
    }
    tree::pivot(root.as_fd()).step(|| "change the root directory".into())
}

/// Whether this host has control groups of version 2 alone, as asked before the root directory is changed.
pub fn has_one_group_tree() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Shows the container its control groups, when it is in them and in a namespace of theirs, with the root directory its own.
pub fn mount_control_groups(container: &Container) -> Result<(), RootError> {
    for mount in container.mounts.iter().filter(|mount| mount.source == Source::ControlGroups) {
        let root = fs::File::open("/").step(|| "open the root".into())?;
        mount_own(0, root.as_fd(), mount)?;
    }
    Ok(())
}

fn mount_own(ids_count: u32, root: BorrowedFd<'_>, mount: &Mount) -> Result<(), RootError> {
    // Group 5 is "tty" in every distribution.
    let terminals =
        [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    let (kind, options) = match mount.source {
        Source::Processes => ("proc", &[][..]),
        Source::Terminals if ids_count > 5 => ("devpts", &terminals[..]),
        Source::Terminals => ("devpts", &terminals[..3]),
        Source::MessageQueues => ("mqueue", &[][..]),
        Source::ControlGroups => ("cgroup2", &[][..]),
        _ => return Ok(()),
    };
    let piece = tree::new_file_system(kind, options, attributes(mount)).step(|| format!("make a {kind}"))?;
    let target = tree::open_in_root(root, &mount.target, libc::O_PATH | libc::O_DIRECTORY, 0);
    let target = target.step(|| format!("open {}", mount.target.display()))?;
    tree::attach(piece.as_fd(), target.as_fd()).step(|| format!("mount {}", mount.target.display()))
}

/// Hides a path behind something empty. One that this kernel does not have needs no hiding.
fn mask(root: BorrowedFd<'_>, path: &Path, void: &Path) -> io::Result<()> {
    let target = match tree::open_in_root(root, path, libc::O_PATH, 0) {
        Err(error) if missing(&error) => return Ok(()),
        target => target?,
    };
    let cover = if tree::is_directory(&target)? {
        tree::clone_path(void, false)?
    } else {
        let null = tree::open_in_root(root, Path::new("/dev/null"), libc::O_PATH, 0)?;
        tree::clone_tree(null.as_fd(), Path::new(""), false)?
    };
    tree::attach(cover.as_fd(), target.as_fd())
}

/// A copy of the mounts at a path. `None` where this kernel does not have it.
fn copy_of(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match tree::open_in_root(root, path, libc::O_PATH, 0) {
        Err(error) if missing(&error) => Ok(None),
        place => tree::clone_tree(place?.as_fd(), Path::new(""), true).map(Some),
    }
}

/// Puts a read-only copy of a path over itself.
fn freeze(root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let target = match tree::open_in_root(root, path, libc::O_PATH, 0) {
        Err(error) if missing(&error) => return Ok(()),
        target => target?,
    };
    let copy = tree::clone_tree(target.as_fd(), Path::new(""), true)?;
    tree::restrict(copy.as_fd(), attribute::READ_ONLY, true)?;
    tree::attach(copy.as_fd(), target.as_fd())
}

fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
