//! Images as disks: the root file system of an image in a file, which machines read and never write.
//!
//! ```text
//! <state>/bases/<hex>.ext4      the files of all layers together, as the container is to see them
//! <state>/bases/<hex>.layers    which layers these are
//! <state>/bases/new-<hex>       being made; swept at start
//! <state>/pods/<id>/base-0.ext4 a name of the same file, for as long as that pod is there
//! ```
//!
//! A base is made once and shared by all pods of its image: a further name of its file is what counts users, and what it
//! takes goes when the last of them does and it is of no use any more. The layers are merged by the kernel's overlay in a
//! mount namespace that a thread makes for it, and written by mke2fs from that directory, without being mounted: the host's
//! kernel never reads a file system that a guest wrote.

use crate::{
    container::{e2fsprogs, root},
    driver::DriverError,
    image::walk::{Found, Next, walk},
    room::Space,
};
use rustix::fs::FileType;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};
use sys::jail::{
    process::{namespace, unshare},
    tree,
};

/// One that no pod has stays for so long after its last use, for the next pod of its image.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);
/// How bases are made: another number makes all of them anew.
const VERSION: &str = "1";
/// Most layers that overlayfs takes, with the empty one that is put below.
const LAYERS_MAX: usize = 127;
/// Deepest directory of an image: what layers may have.
const DEPTH_MAX: usize = 256;
/// Block of the file system in bytes.
const BLOCK_BYTES: u64 = 4096;
/// Blocks that every file system has beside its files.
const OWN_BLOCKS: u64 = 16 << 10;
/// Inodes that it has beside those of its files.
const OWN_INODES: u64 = 64;
/// Layers have limits of their own; these hold for all of an image.
const LIMITS: Limits = Limits { entries_max: 2_000_000, bytes_max: 256 << 30 };

/// All bases of this host.
#[derive(Debug)]
pub struct Bases {
    dir: PathBuf,
    limits: Limits,
    turns: Mutex<HashMap<String, Weak<Mutex<()>>>>,
}

/// Most that one image may have.
#[derive(Debug, Clone, Copy)]
struct Limits {
    entries_max: u64,
    bytes_max: u64,
}

/// What is in a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Measure {
    entries: u64,
    /// Blocks of the file system that it needs.
    blocks: u64,
    /// Blocks that it takes on the host, without holes.
    taken_blocks: u64,
}

fn io_error(step: &str, path: &Path) -> impl FnOnce(io::Error) -> DriverError {
    let operation = format!("{step} {}", path.display());
    move |source| DriverError::Io { operation, source }
}

impl Bases {
    /// Bases below `state`. Touches nothing.
    pub fn new(state: &Path) -> Self {
        Self { dir: state.join("bases"), limits: LIMITS, turns: Mutex::default() }
    }

    /// Gives the base of these layers, lowest first, the further name `link`: made first, if nobody has made it. Blocking.
    ///
    /// # Errors
    /// `Missing` without e2fsprogs; `NoRoom`; `Unsupported` for more layers, files or bytes than can be; what the host
    /// refuses.
    pub fn provide(&self, layers: &[PathBuf], link: &Path) -> Result<(), DriverError> {
        let name = name(layers);
        let turn = self.turn(&name);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let base = self.path(&name, "ext4");
        if !base.exists() {
            self.make(&name, layers)?;
        }
        let opened = File::options().append(true).open(&base).map_err(io_error("open", &base))?;
        opened.set_modified(SystemTime::now()).map_err(io_error("note the use of", &base))?;
        // A pod that was started before may have had another image.
        remove_file(link)?;
        fs::hard_link(&base, link).map_err(io_error("name the base", link))
    }

    /// Sweeps what a crash left half made. Nobody else may work here yet. Blocking.
    ///
    /// # Errors
    /// What cannot be listed or removed.
    pub fn sweep(&self) -> Result<(), DriverError> {
        for path in self.files()? {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("new-")) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes bases that no pod has, if one of their layers is gone or nobody used them within [`GRACE`]; gives the bytes
    /// that came free. Blocking.
    ///
    /// # Errors
    /// What cannot be listed or removed.
    pub fn collect(&self, now: SystemTime) -> Result<u64, DriverError> {
        let mut freed_bytes = 0;
        for path in self.files()? {
            let Some(name) = path.file_stem().and_then(|stem| stem.to_str()).filter(|name| is_name(name))
            else {
                continue;
            };
            let turn = self.turn(name);
            // Somebody is about to use it.
            let Ok(_turn) = turn.try_lock() else { continue };
            let of_layers = self.path(name, "layers");
            let Ok(seen) = fs::metadata(self.path(name, "ext4")) else {
                // Its disk never came, or went without it.
                remove_file(&of_layers)?;
                continue;
            };
            let is_idle =
                seen.modified().is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age >= GRACE));
            if seen.nlink() > 1 || !is_idle && has_layers(&of_layers) {
                continue;
            }
            freed_bytes += seen.blocks() * 512;
            remove_file(&self.path(name, "ext4"))?;
            remove_file(&of_layers)?;
        }
        Ok(freed_bytes)
    }

    fn files(&self) -> Result<Vec<PathBuf>, DriverError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.map_err(io_error("list", &self.dir))?,
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<io::Result<_>>().map_err(io_error("list", &self.dir))
    }

    fn path(&self, name: &str, ending: &str) -> PathBuf {
        self.dir.join(format!("{name}.{ending}"))
    }

    /// Whose turn it is with one base.
    fn turn(&self, name: &str) -> Arc<Mutex<()>> {
        // The map is whole at every moment, so a panic elsewhere does not spoil it.
        let mut turns: MutexGuard<'_, _> = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn: &mut Weak<_>| turn.strong_count() > 0);
        if let Some(turn) = turns.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Mutex::new(()));
        turns.insert(name.to_string(), Arc::downgrade(&turn));
        turn
    }

    /// Makes a base, which has its name only when it is whole.
    fn make(&self, name: &str, layers: &[PathBuf]) -> Result<(), DriverError> {
        // Nobody of the host may look for programs of root in it.
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.dir).map_err(io_error("create", &self.dir))?;
        let place = self.dir.join("merge");
        builder.create(&place).map_err(io_error("create", &place))?;
        let staged = self.dir.join(format!("new-{name}"));
        let written = std::thread::scope(|scope| {
            let work = || merge(layers, &place).and_then(|merged| self.write(&merged, &staged));
            let thread = std::thread::Builder::new().name("base".into());
            let thread = thread.spawn_scoped(scope, work).map_err(io_error("make a thread for", &staged))?;
            let panicked = |_| Err(io_error("make", &staged)(io::Error::other("a step panicked")));
            thread.join().unwrap_or_else(panicked)
        });
        if let Err(error) = written {
            remove_file(&staged)?;
            return Err(error);
        }
        let listed: Vec<String> = layers.iter().map(|layer| layer.to_string_lossy().into_owned()).collect();
        let of_layers = self.path(name, "layers");
        sys::file::write_atomic(&of_layers, listed.join("\n").as_bytes(), 0o600)
            .map_err(|error| io_error("write", &of_layers)(error.into()))?;
        let base = self.path(name, "ext4");
        fs::rename(&staged, &base).map_err(io_error("name", &base))?;
        sys::file::sync_directory(&self.dir).map_err(|error| io_error("flush", &self.dir)(error.into()))
    }

    /// Writes a file system with the files of a directory.
    fn write(&self, merged: &Path, file: &Path) -> Result<(), DriverError> {
        let found = measure(merged, self.limits)?;
        // Holes take nothing, so there may be many: a directory of a file system takes more room than its names.
        let blocks = found.blocks + found.blocks / 8 + found.entries + OWN_BLOCKS;
        let inodes = found.entries + OWN_INODES;
        let room = Space::at(&self.dir).map_err(io_error("look at", &self.dir))?;
        room.holds(found.taken_blocks * BLOCK_BYTES)
            .map_err(|source| DriverError::NoRoom { operation: "make a disk of the image".into(), source })?;
        let made = File::options().write(true).create(true).truncate(true).mode(0o600).open(file);
        let made = made.map_err(io_error("create", file))?;
        made.set_len(blocks * BLOCK_BYTES).map_err(io_error("make room in", file))?;
        let top = fs::symlink_metadata(merged).map_err(io_error("look at", merged))?;
        let (source, inodes) = (merged.to_string_lossy(), inodes.to_string());
        let owner = format!("nodiscard,root_owner={}:{}", top.uid(), top.gid());
        let kind = ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-O", "^has_journal,^resize_inode"];
        let of_files = ["-m", "0", "-N", &inodes, "-E", &owner, "-d", &source];
        e2fsprogs("mke2fs", &[&kind[..], &of_files].concat(), file)?;
        // What mke2fs makes of the directory itself is open to all.
        let mode = format!("set_inode_field / mode 0{:o}", top.mode());
        e2fsprogs("debugfs", &["-w", "-R", &mode], file)?;
        if !merged.join("lost+found").exists() {
            e2fsprogs("debugfs", &["-w", "-R", "rmdir lost+found"], file)?;
        }
        made.sync_all().map_err(io_error("flush", file))
    }
}

/// The name of a base: what it is made of, and how.
fn name(layers: &[PathBuf]) -> String {
    let mut hash = Sha256::new_with_prefix(VERSION);
    for layer in layers {
        hash.update(b"\n");
        hash.update(layer.as_os_str().as_encoded_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn has_layers(list: &Path) -> bool {
    let text = fs::read_to_string(list);
    text.is_ok_and(|text| text.lines().all(|layer| Path::new(layer).is_dir()))
}

fn remove_file(path: &Path) -> Result<(), DriverError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Merges layers, lowest first, in a mount namespace that the calling thread gets for it and that ends with it. `place` is an
/// empty directory. Gives the directory of the merged files.
fn merge(layers: &[PathBuf], place: &Path) -> Result<PathBuf, DriverError> {
    let count = layers.len();
    if count >= LAYERS_MAX {
        return Err(DriverError::Unsupported {
            what: format!("the image has {count} layers: a disk is made of at most {}", LAYERS_MAX - 1),
            hint: "make an image of fewer layers, or run it on the host's kernel".into(),
        });
    }
    let failed = |step: &'static str| io_error(step, place);
    // The thread's working directory becomes its own with this, too (unshare(2), CLONE_NEWNS implies CLONE_FS).
    unshare(namespace::MOUNT).map_err(failed("make a mount namespace for"))?;
    tree::make_slave(Path::new("/")).map_err(failed("separate the mount namespace of"))?;
    let scratch =
        tree::new_file_system("tmpfs", &[("mode", Some("0700"))], 0).map_err(failed("make a tmpfs for"))?;
    let target = File::open(place).map_err(failed("open"))?;
    tree::attach(scratch.as_fd(), target.as_fd()).map_err(failed("mount a tmpfs on"))?;
    std::env::set_current_dir(place).map_err(failed("enter"))?;
    // Overlayfs wants two lower directories where there is no upper one. The lowest is empty.
    fs::create_dir("0").map_err(failed("make a directory in"))?;
    for (number, layer) in layers.iter().enumerate() {
        if !layer.is_dir() {
            return Err(io_error("open the layer", layer)(io::ErrorKind::NotFound.into()));
        }
        symlink(layer, (number + 1).to_string()).map_err(failed("make a link in"))?;
    }
    if count == 0 {
        return Ok(place.join("0"));
    }
    let lower = root::lower_options(count + 1);
    let mut options: Vec<(&str, Option<&str>)> =
        lower.iter().map(|(name, value)| (*name, Some(value.as_str()))).collect();
    options.extend([("redirect_dir", Some("off")), ("metacopy", Some("off")), ("index", Some("off"))]);
    let overlay =
        tree::new_file_system("overlay", &options, tree::attribute::READ_ONLY | tree::attribute::NO_DEVICES)
            .map_err(failed("merge the layers in"))?;
    fs::create_dir("merged").map_err(failed("make a directory in"))?;
    let target = File::open("merged").map_err(failed("open the directory of"))?;
    tree::attach(overlay.as_fd(), target.as_fd()).map_err(failed("mount the layers in"))?;
    Ok(place.join("merged"))
}

/// Counts what is in a directory, at most `limits` of it. Links are never followed.
fn measure(top: &Path, limits: Limits) -> Result<Measure, DriverError> {
    let mut found = Measure { entries: 1, blocks: 1, taken_blocks: 1 };
    let counted = walk(top, &mut |one| found.add(one, limits));
    counted.map_err(io_error("count the files of", top))?;
    if found.is_past(limits) {
        return Err(DriverError::Unsupported {
            what: format!(
                "the image is too large for a disk: it has more than {} files or {} GiB",
                limits.entries_max,
                limits.bytes_max >> 30
            ),
            hint: "run it on the host's kernel".into(),
        });
    }
    Ok(found)
}

impl Measure {
    fn is_past(&self, limits: Limits) -> bool {
        self.entries > limits.entries_max || self.blocks > limits.bytes_max / BLOCK_BYTES
    }

    fn add(&mut self, found: &Found, limits: Limits) -> io::Result<Next> {
        self.entries += 1;
        if found.is_again {
            return Ok(Next::Past);
        }
        let bytes = u64::try_from(found.stat.st_size).unwrap_or(0);
        self.blocks = self.blocks.saturating_add(match found.kind() {
            FileType::RegularFile => bytes.div_ceil(BLOCK_BYTES),
            _ => 1,
        });
        self.taken_blocks += u64::try_from(found.stat.st_blocks).unwrap_or(0).div_ceil(BLOCK_BYTES / 512);
        if self.is_past(limits) {
            return Ok(Next::End);
        }
        if found.is_directory() && found.depth + 1 >= DEPTH_MAX {
            return Err(rustix::io::Errno::NAMETOOLONG.into());
        }
        Ok(Next::In)
    }
}

#[cfg(test)]
mod tests;
