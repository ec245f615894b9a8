//! A container's root file system on the host: layers below, its own files above, owners shifted into its id range.
//!
//! ```text
//! <upper>/fs       what the container wrote, with host ids of its range
//! <upper>/work     overlayfs's own
//! <upper>/lower    where shifted clones of the layers' directories are attached while mounting
//! <upper>/shifted  copies of layers, only where mounts cannot shift ids
//! ```
//!
//! A running container's shim mounts the same directories in a namespace of its own; this mount is for the host's
//! work on a container that does not run (copying files, committing an image, showing changes). The two must never be
//! mounted at the same time: overlayfs does not share an upper directory. A mount outlives the daemon and is found
//! again in the mount table.

use super::{
    cancel::{StopFlag, run_blocking},
    shifted_copy::{cannot_shift, layer_copy},
    tree_removal::remove_tree,
    walk::{Found, Next, walk},
};
use model::plan::IdRange;
use nix::mount::MsFlags;
use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};
use sys::{
    mount::{self, Lower},
    userns::IdMap,
};

/// Deepest directory whose content is counted.
const USAGE_DEPTH_MAX: usize = 256;

/// Why a root file system cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A file or directory failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A mount failed.
    #[error("cannot put the container's file system together")]
    Mount(#[from] sys::Error),
    /// A layer is not unpacked.
    #[error("layer {} is missing", .0.display())]
    LayerMissing(PathBuf),
    /// Nobody waits for the result any more.
    #[error("the work was cancelled")]
    Cancelled,
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootfsError {
    let path = path.to_path_buf();
    move |source| RootfsError::Io { operation, path, source }
}

/// How owners are shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// By the mount, and by copies where the file system cannot.
    Probe,
    /// By copies.
    Copy,
}

/// A root file system to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Unpacked layers, lowest first, each one once.
    pub layers: Vec<PathBuf>,
    /// The container's own directory, as in its plan.
    pub upper: PathBuf,
    /// Host ids: the container's root is the first.
    pub ids: IdRange,
    /// Where it is mounted.
    pub target: PathBuf,
}

/// What a container's own files take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on the host.
    pub allocated_bytes: u64,
    /// Files and directories.
    pub entries: u64,
}

impl Rootfs {
    /// Mounts it, if it is not mounted. Blocking.
    pub fn mount(&self, shift: Shift) -> Result<(), RootfsError> {
        fs::create_dir_all(&self.target).map_err(at("create", &self.target))?;
        if mount::is_mountpoint(&self.target)? {
            return Ok(());
        }
        for layer in &self.layers {
            if !layer.is_dir() {
                return Err(RootfsError::LayerMissing(layer.clone()));
            }
        }
        self.make_upper()?;
        let lowers = match shift {
            Shift::Copy => None,
            Shift::Probe => self.attach_shifted()?,
        };
        let lowers = match lowers {
            Some(lowers) => lowers,
            None => self.copies()?,
        };
        let topmost_first: Vec<Lower<'_>> = lowers.iter().rev().map(|path| Lower::Path(path)).collect();
        let (files, work) = (self.upper.join("fs"), self.upper.join("work"));
        let result = mount::overlay(&topmost_first, &files, &work, &self.target);
        // The overlay holds clones of its own; these were only names.
        mount::unmount_below(&self.upper.join("lower"))?;
        result?;
        self.forbid_devices()
    }

    /// Takes the mount away. Fine when it is gone.
    pub fn unmount(&self) -> Result<(), RootfsError> {
        mount::unmount_below(&self.upper.join("lower"))?;
        Ok(mount::unmount(&self.target)?)
    }

    /// Whether it is mounted, as the mount table says.
    pub fn is_mounted(&self) -> Result<bool, RootfsError> {
        Ok(mount::is_mountpoint(&self.target)?)
    }

    /// Unmounts it and removes the container's own files, whatever the container did with them. Fine when they are
    /// gone. Blocking.
    pub fn remove(&self) -> Result<(), RootfsError> {
        self.unmount()?;
        remove_tree(&self.upper).map_err(at("remove", &self.upper))?;
        match fs::remove_dir(&self.target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &self.target)(error)),
            _ => Ok(()),
        }
    }

    /// The root directory shows the upper one's owner and mode: the container's root, and the top layer's mode.
    fn make_upper(&self) -> Result<(), RootfsError> {
        let work = self.upper.join("work");
        fs::create_dir_all(&work).map_err(at("create", &work))?;
        let files = self.upper.join("fs");
        if files.is_dir() {
            return Ok(());
        }
        let staged = self.upper.join("fs.new");
        fs::create_dir_all(&staged).map_err(at("create", &staged))?;
        let top = self.layers.last().and_then(|layer| fs::metadata(layer).ok());
        let mode = top.map_or(0o755, |meta| meta.mode() & 0o7777);
        let (base, permissions) = (self.ids.base, fs::Permissions::from_mode(mode));
        chown(&staged, Some(base), Some(base)).map_err(at("chown", &staged))?;
        fs::set_permissions(&staged, permissions).map_err(at("chmod", &staged))?;
        fs::rename(&staged, &files).map_err(at("rename", &staged))
    }

    /// Names of the layers inside id-mapped clones of the directories that hold them: one clone for all layers of
    /// the store. They are attached because kernels before 6.15 stack only what is mounted somewhere. `None` where
    /// the file system cannot shift ids.
    fn attach_shifted(&self) -> Result<Option<Vec<PathBuf>>, RootfsError> {
        let place = self.upper.join("lower");
        mount::unmount_below(&place)?;
        let map = IdMap::shifted(self.ids.base, self.ids.count);
        let mut clones: Vec<(&Path, PathBuf)> = Vec::new();
        let mut lowers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let (Some(parent), Some(name)) = (layer.parent(), layer.file_name()) else {
                return Err(RootfsError::LayerMissing(layer.clone()));
            };
            let attached = match clones.iter().find(|(known, _)| *known == parent) {
                Some((_, attached)) => attached.clone(),
                None => {
                    let clone = match mount::idmapped_clone(parent, &map) {
                        Ok(clone) => clone,
                        Err(error) if error.errno().is_some_and(cannot_shift) => {
                            tracing::warn!(
                                directory = %parent.display(), %error,
                                "mounts of this file system cannot shift ids: layers are copied for each container"
                            );
                            return Ok(None);
                        }
                        Err(error) => return Err(error.into()),
                    };
                    let attached = place.join(clones.len().to_string());
                    fs::create_dir_all(&attached).map_err(at("create", &attached))?;
                    mount::move_mount(clone, &attached)?;
                    clones.push((parent, attached.clone()));
                    attached
                }
            };
            lowers.push(attached.join(name));
        }
        self.or_empty(lowers).map(Some)
    }

    /// Shifted copies of the layers, made once.
    fn copies(&self) -> Result<Vec<PathBuf>, RootfsError> {
        let copies = self.layers.iter().enumerate().map(|(number, layer)| {
            layer_copy(&self.upper, number, layer, self.ids).map_err(at("copy", layer))
        });
        self.or_empty(copies.collect::<Result<_, _>>()?)
    }

    /// Overlayfs wants at least one lower directory; an image may have no layers.
    fn or_empty(&self, mut lowers: Vec<PathBuf>) -> Result<Vec<PathBuf>, RootfsError> {
        if lowers.is_empty() {
            let empty = self.upper.join("empty");
            fs::create_dir_all(&empty).map_err(at("create", &empty))?;
            lowers.push(empty);
        }
        Ok(lowers)
    }

    /// Device nodes in an image or made by a container are dead.
    fn forbid_devices(&self) -> Result<(), RootfsError> {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NODEV;
        nix::mount::mount(None::<&str>, &self.target, None::<&str>, flags, None::<&str>)
            .map_err(|errno| at("forbid devices on", &self.target)(errno.into()))
    }
}

/// What a container's own files take on the host. May run beside the container; what changes meanwhile is counted or
/// not. Stops when the future is dropped.
pub async fn usage(upper: PathBuf) -> Result<Usage, RootfsError> {
    tree_usage(upper.join("fs")).await
}

/// What a directory and all below it take on the host, told as [`usage`] does.
pub async fn tree_usage(files: PathBuf) -> Result<Usage, RootfsError> {
    run_blocking(move |flag| {
        let mut usage = Usage::default();
        match walk(&files, &mut |found| usage.add(found, &flag)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Usage::default()),
            Err(error) => Err(at("count", &files)(error)),
            Ok(()) => Ok(usage),
        }
    })
    .await
    .unwrap_or(Err(RootfsError::Cancelled))
}

impl Usage {
    fn add(&mut self, found: &Found, flag: &StopFlag) -> io::Result<Next> {
        flag.check()?;
        if found.is_again {
            return Ok(Next::Past);
        }
        self.entries += 1;
        self.allocated_bytes += found.stat.st_blocks as u64 * 512;
        Ok(if found.depth + 1 < USAGE_DEPTH_MAX { Next::In } else { Next::Past })
    }
}
