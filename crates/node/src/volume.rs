//! Volumes made true: files for disks, made from nothing or on top of others, frozen, grown, counted and removed.
//!
//! A disk on an image or another disk is a qcow2 file whose backing file that is, or a clone of it where the file system
//! makes clones: a new VM takes no space but what it writes. A thick one is raw and takes its space at once, so a full
//! disk shows at creation and never under a running guest. A container's volume is a directory, `<id>.dir` beside the
//! disks (see [`files`]). It becomes a disk with these files when a VM is given it, or a pod with a machine of its own (see
//! [`directory`]).
//!
//! A disk that a guest has open is never changed here: its guest's driver grows it and leads it to a new layer (see
//! `instance::settle`), and what it became is read back. What a guest may have open is in its status before it can,
//! and the layer that is named here as the one that takes writes moves on only if that is still as it was read: so a
//! start sees either the old layer, before anybody counts on its rest, or the new one.
//!
//! ```text
//!  wish: layer 2 ──► file of layer 2 ──► layer_made 2 ──► nobody has it open ──────────────► layer 2: 1 is frozen
//!                                             └─► its guest's driver ──► the guest has 2 ────┘
//! ```

mod directory;
pub mod files;
pub mod socket;

use crate::{
    driver::DriverError,
    image::{
        disk::{self, DiskError, DiskSource, DiskStore},
        rootfs,
        tree_removal::remove_tree,
    },
    instance::sentence,
};
use files::{DiskFiles, Frozen, Needs, image_content};
use jiff::Timestamp;
use model::{
    error::{Code, Fault},
    id::{NodeId, VolumeId},
    instance::{Instance, InstanceStatus, Kind},
    plan::{BackingFile, DiskFormat},
    volume::{Form, Ground, Provisioning, Volume, VolumeStatus},
};
use reconcile::Outcome;
use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use store::{Store, Stored, Tx};

/// How often the space of volumes is looked at.
pub const COUNT_EVERY: Duration = Duration::from_secs(60);
/// Counting a directory takes at most one part in so many of the time.
const COUNT_SHARE: u32 = 50;
/// What a container sees of its volume's directory.
const DATA: &str = "data";

/// Why a volume is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The store.
    #[error("the volume's state could not be written")]
    Store(#[from] store::Error),
    /// A step on the host failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Making, growing or removing a disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The owner of a directory could not be set.
    #[error(transparent)]
    Kernel(#[from] sys::Error),
    /// The disk was here, and is not any more.
    #[error("the file of the volume is gone: {}", path.display())]
    Lost {
        /// Where it was.
        path: PathBuf,
    },
    /// What it is a copy of cannot be had.
    #[error("what the volume is a copy of cannot be had: {}", .0.message)]
    Source(Fault),
    /// Making a disk of a directory failed.
    #[error("the files of the volume do not become a disk")]
    Populate(#[source] DriverError),
    /// There are files of layers above the one that takes writes: the records are older than the disk.
    #[error(
        "the volume holds layers that the records do not know: they end at layer {known}, and there is {}",
        joined(layers, ", ")
    )]
    UnknownLayers {
        /// The layer that takes writes, as far as the records know.
        known: u32,
        /// What is above it, lowest first.
        layers: Vec<PathBuf>,
    },
    /// A container is to have a disk that was written.
    #[error(
        "the volume is a disk with something on it: a container on the host's kernel is given directories"
    )]
    HoldsDisk,
    /// holm stops.
    #[error("the work was cancelled")]
    Cancelled,
}

impl VolumeError {
    fn fault(&self) -> Fault {
        let (code, hint) = match self {
            Self::Disk(DiskError::NoRoom { .. }) => {
                (Code::NoCapacity, "free space on the host, or make the volume thin or smaller".to_string())
            }
            Self::Disk(error) => (error.code(), error.hint()),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                (Code::NoCapacity, "free space on the host".to_string())
            }
            Self::Populate(DriverError::Refused { .. }) => (
                Code::NoCapacity,
                "make the volume larger, if its files do not fit: `holm volume grow`".to_string(),
            ),
            Self::Populate(DriverError::Missing { hint, .. }) => (Code::Unavailable, hint.clone()),
            Self::Populate(DriverError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                (Code::NoCapacity, "free space on the host".to_string())
            }
            Self::HoldsDisk => (
                Code::Unsupported,
                "run the container with a kernel of its own (--isolate vm), copy its files from inside a virtual machine, or give it a new volume"
                    .to_string(),
            ),
            Self::Source(fault) => (fault.code, fault.hint.clone()),
            Self::UnknownLayers { layers, .. } => (Code::Conflict, unknown_layers_hint(layers)),
            Self::Lost { .. } => (Code::Internal, "put the file back, or delete the volume".to_string()),
            _ => (Code::Internal, String::new()),
        };
        Fault { code, message: sentence(self), hint, since: Timestamp::now() }
    }
}

fn joined(paths: &[PathBuf], between: &str) -> String {
    let all: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    all.join(between)
}

/// What is on top of such a disk is saved first; without it, it is what it was when the records were copied.
fn unknown_layers_hint(layers: &[PathBuf]) -> String {
    let Some(top) = layers.last() else { return String::new() };
    format!(
        "with its instance stopped, `qemu-img convert -O qcow2 {} FILE` saves what the disk holds now, as a file that `holm image \
         upload` takes; after `mv {} ELSEWHERE` the volume goes on as its records know it",
        top.display(),
        joined(layers, " ")
    )
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_path_buf();
    move |source| VolumeError::Io { operation, path, source }
}

/// What is there of a volume.
struct Seen {
    path: PathBuf,
    format: DiskFormat,
    backing: Vec<BackingFile>,
    layer: u32,
    layer_made: u32,
    size_gib: u64,
    used_bytes: u64,
}

/// Who decides on a volume at this moment: what is written must still be true of it.
struct Decided<'a> {
    volume: &'a Stored<Volume>,
    user: Option<(String, Option<store::engine::Revision>)>,
}

/// Who has a volume, as far as its form depends on it.
#[derive(Debug, Clone, Copy)]
enum User {
    /// Containers on the host's kernel: they see directories.
    OnHost,
    /// A virtual machine: it sees disks, on which it makes what it likes.
    Machine,
    /// Containers in a machine of their own: it sees disks, which have a file system.
    PodInMachine,
}

impl User {
    fn of(instance: &Instance) -> Self {
        match (instance.kind, instance.has_own_kernel()) {
            (Kind::Vm, _) => Self::Machine,
            (_, true) => Self::PodInMachine,
            (_, false) => Self::OnHost,
        }
    }
}

/// Whether a volume is a disk on which nothing is yet, not even a file system. One whose file is just being replaced is.
pub(crate) async fn is_bare(status: &VolumeStatus) -> bool {
    let Some(path) = &status.path else { return true };
    if status.form() != Some(Form::Disk) || !status.backing.is_empty() {
        return false;
    }
    let file = BackingFile { path: path.into(), format: status.format };
    // Its disk may be slow, and others wait for nothing of it.
    let looked = move || !file.path.exists() || directory::is_blank(&file).is_ok_and(|it| it);
    tokio::task::spawn_blocking(looked).await.unwrap_or(false)
}

/// When a directory was counted, and what it took.
#[derive(Debug, Clone, Copy)]
struct Count {
    again_at: Instant,
    used_bytes: u64,
}

/// Volumes that have layers above the one that takes writes, by their records.
fn newer_than_records(store: &Store, files: &DiskFiles) -> io::Result<BTreeSet<VolumeId>> {
    let known = |id: VolumeId| store.get::<Volume>(&id.to_string()).map(|volume| volume.record.layer);
    let all = files.all()?.into_iter();
    Ok(all
        .filter(|(id, layer, _)| known(*id).is_some_and(|known| *layer > known))
        .map(|(id, ..)| id)
        .collect())
}

/// All volumes of this node.
pub struct Volumes {
    store: Store,
    node: NodeId,
    dir: PathBuf,
    files: DiskFiles,
    disks: DiskStore,
    counts: Mutex<HashMap<VolumeId, Count>>,
    /// Volumes that had more layers than their records know when the daemon started.
    newer: Mutex<BTreeSet<VolumeId>>,
}

impl Volumes {
    /// Volumes below `state`. Sweeps what a crash left; nobody else may work there yet. Blocking.
    ///
    /// # Errors
    /// When the directory cannot be made or swept.
    pub fn open(store: Store, node: NodeId, state: &Path, disks: DiskStore) -> Result<Self, VolumeError> {
        let dir = state.join("volumes");
        // Containers' directories lie here and are entered by their users; nobody may list them.
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o711).create(&dir).map_err(at("create", &dir))?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).map_err(at("close", &dir))?;
        let disks_dir = files::disks_dir(state);
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&disks_dir).map_err(at("create", &disks_dir))?;
        std::fs::set_permissions(&disks_dir, std::fs::Permissions::from_mode(0o700))
            .map_err(at("close", &disks_dir))?;
        files::take_in(&dir, &disks_dir).map_err(at("take disks from", &dir))?;
        disk::sweep(&disks_dir)?;
        let files = DiskFiles::new(disks_dir, disks.images_dir().to_path_buf());
        let newer = newer_than_records(&store, &files).map_err(at("list", files.dir()))?;
        Ok(Self { store, node, dir, files, disks, counts: Mutex::default(), newer: Mutex::new(newer) })
    }

    /// Ids of all volumes here, and of files that no record names.
    pub fn keys(&self) -> Vec<VolumeId> {
        let mut ids = self.wished();
        ids.extend(self.found());
        ids.sort();
        ids.dedup();
        ids
    }

    /// Ids of volumes of which files are left without a record: deleted ones, as long as others stand on them.
    pub fn leftovers(&self) -> Vec<VolumeId> {
        let mut ids = self.found();
        ids.retain(|id| self.store.get::<Volume>(&id.to_string()).is_none());
        ids
    }

    fn found(&self) -> Vec<VolumeId> {
        let mut ids = vec![];
        for dir in [self.files.dir(), &self.dir] {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let stem = name.to_str().and_then(|n| n.split('.').next());
                ids.extend(stem.and_then(|s| s.parse::<VolumeId>().ok()));
            }
        }
        ids.sort();
        ids.dedup();
        ids
    }

    /// Ids of the volumes that are wished for on this node.
    pub fn wished(&self) -> Vec<VolumeId> {
        let wished = self.store.list::<Volume>();
        wished.iter().filter(|v| v.record.node == Some(self.node)).map(|v| v.record.meta.id).collect()
    }

    /// Brings one volume nearer to its wish.
    ///
    /// # Errors
    /// What failed; it is in the volume's status too.
    pub async fn run(&self, id: VolumeId) -> Result<Outcome, VolumeError> {
        let Some(stored) = self.store.get::<Volume>(&id.to_string()) else {
            // A record that cannot be read is no reason to delete anybody's data.
            if !self.store.is_unreadable::<Volume>(&id.to_string()) {
                self.remove(id).await?;
            }
            return Ok(Outcome::Done);
        };
        if stored.record.node != Some(self.node) {
            return Ok(Outcome::Done);
        }
        let decided = self.decided(&stored);
        match self.make(&decided).await {
            // Until what it is to stand on is here, what was on it is not let go.
            Ok(None) => return Ok(Outcome::Done),
            Ok(Some(seen)) => self.write(&decided, Ok(seen)).await?,
            Err(error) => {
                self.write(&decided, Err(error.fault())).await?;
                return Err(error);
            }
        }
        if stored.record.layer > 0 {
            self.remove_needless(id).await?;
        }
        Ok(Outcome::Done)
    }

    /// Tells of volumes whose files are newer than their records, before anybody starts from what the records say: whoever
    /// wrote to a lower layer would spoil all that stands on it.
    ///
    /// # Errors
    /// The store's.
    pub async fn tell_unknown(&self) -> Result<(), VolumeError> {
        let ids: Vec<VolumeId> = self.newer().iter().copied().collect();
        for stored in ids.iter().filter_map(|id| self.store.get::<Volume>(&id.to_string())) {
            if let Err(error) = self.refuse_unknown(&stored.record) {
                tracing::warn!(volume = %stored.record.meta.id, error = sentence(&error), "it is left as it is");
                self.write(&self.decided(&stored), Err(error.fault())).await?;
            }
        }
        Ok(())
    }

    /// Refuses a volume that has layers above the one that takes writes. Its record is raised before a layer is made: they
    /// are of a time that these records do not know.
    fn refuse_unknown(&self, volume: &Volume) -> Result<(), VolumeError> {
        let id = volume.meta.id;
        if !self.newer().contains(&id) {
            return Ok(());
        }
        let layers = self.files.layers(id).map_err(at("list", self.files.dir()))?;
        let unknown = layers.into_iter().filter(|(layer, _)| *layer > volume.layer);
        let layers: Vec<PathBuf> = unknown.map(|(_, path)| path).collect();
        if layers.is_empty() {
            self.newer().remove(&id);
            return Ok(());
        }
        Err(VolumeError::UnknownLayers { known: volume.layer, layers })
    }

    fn newer(&self) -> std::sync::MutexGuard<'_, BTreeSet<VolumeId>> {
        // A set of ids is never half changed.
        self.newer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a run decides on, read before anything is looked at.
    fn decided<'a>(&self, volume: &'a Stored<Volume>) -> Decided<'a> {
        let user = volume.record.attached_to.map(|id| id.to_string());
        let user = user.map(|key| {
            let status = self.store.get::<InstanceStatus>(&key);
            (key, status.map(|s| s.mod_revision))
        });
        Decided { volume, user }
    }

    fn user_of(&self, volume: &Volume) -> Option<Instance> {
        Some(self.store.get::<Instance>(&volume.attached_to?.to_string())?.record.clone())
    }

    /// The status of a guest that may have the disk open.
    fn holder(&self, volume: &Volume) -> Option<Arc<Stored<InstanceStatus>>> {
        let status = self.store.get::<InstanceStatus>(&volume.attached_to?.to_string())?;
        status.record.volumes.contains(&volume.meta.id).then_some(status)
    }

    /// Makes, freezes or grows what is missing. `None` while what it stands on is not here: that changes, and brings
    /// the next run.
    async fn make(&self, decided: &Decided<'_>) -> Result<Option<Seen>, VolumeError> {
        let volume = &decided.volume.record;
        let id = volume.meta.id;
        self.refuse_unknown(volume)?;
        let user = self.user_of(volume).map(|instance| User::of(&instance));
        let mut has_directory = self.directory(id).exists();
        // Containers that run on a directory have it.
        let is_held = has_directory && self.holder(volume).is_some();
        // A disk that holds something is what counts, whatever lies beside it.
        let is_written = match (user, has_directory) {
            (Some(User::Machine) | None, false) => false,
            (Some(User::OnHost), true) if is_held => false,
            _ => self.is_written(volume).await?,
        };
        let has_disk =
            || self.files.layer(id, volume.floor).map_err(at("look for a layer in", self.files.dir()));
        if is_written && has_directory && !is_held && has_disk()?.is_some() {
            // It became that disk, and a crash left the rest of it.
            self.remove_directory(id).await?;
            has_directory = false;
        }
        match (user, has_directory) {
            // The volumes of pods are directories, and stay so while nobody has them.
            (Some(User::OnHost), false) if is_written => return Err(VolumeError::HoldsDisk),
            (Some(User::OnHost), _) => return self.make_directory(volume).await.map(Some),
            (None, true) if !is_written => return self.make_directory(volume).await.map(Some),
            (Some(User::Machine), true) if !is_written && self.holder(volume).is_none() => {
                self.make_disk_of_files(volume).await?;
            }
            // Its containers count on a file system, and nobody has made one yet.
            (Some(User::PodInMachine), _) if !is_written && self.holder(volume).is_none() => {
                let file = self.files.layer(id, 0).map_err(at("look for a layer in", self.files.dir()))?;
                if !has_directory && file.is_none() && self.made_before(id).is_some() {
                    return Err(VolumeError::Lost { path: self.files.path(id, 0, DiskFormat::Raw) });
                }
                self.make_directory(volume).await?;
                self.make_disk_of_files(volume).await?;
            }
            _ => {}
        }
        let Some(below) = self.below(volume)? else { return Ok(None) };
        let made = self.made_before(id);
        for layer in volume.floor..=volume.layer {
            if self.files.layer(id, layer).map_err(at("look for a layer in", self.files.dir()))?.is_some() {
                continue;
            }
            if made.is_some_and(|made| layer <= made) {
                return Err(VolumeError::Lost { path: self.files.path(id, layer, DiskFormat::Qcow2) });
            }
            self.make_layer(volume, layer, &below).await?;
        }
        self.look(volume, &below).await.map(Some)
    }

    /// The highest layer that was there before: an empty one in its place would look like a guest's own loss.
    fn made_before(&self, id: VolumeId) -> Option<u32> {
        let status = self.store.get::<VolumeStatus>(&id.to_string())?;
        let path = PathBuf::from(status.record.path.clone()?);
        let is_disk = path.parent().is_some_and(|dir| dir == self.files.dir() || dir == self.dir);
        is_disk.then_some(status.record.layer_made)
    }

    /// Files that the volume's own layers stand on; `None` while they are not here.
    fn below(&self, volume: &Volume) -> Result<Option<Vec<BackingFile>>, VolumeError> {
        let ground = volume.ground();
        if volume.floor == 0 && self.files.is_raw(volume.meta.id) {
            return Ok(Some(vec![]));
        }
        let image = ground.image.map(|id| image_content(&self.store, id));
        if image == Some(None) {
            return Ok(None);
        }
        match files::frozen(&self.store, &ground) {
            Frozen::Yes => {}
            Frozen::NotYet => return Ok(None),
            Frozen::Never(fault) => return Err(VolumeError::Source(fault)),
        }
        let files = self.files.ground(&ground, image.flatten().as_ref());
        files.map(Some).map_err(at("find what the volume stands on in", self.files.dir()))
    }

    /// Makes one layer: the lowest from its source, the others empty.
    async fn make_layer(
        &self,
        volume: &Volume,
        layer: u32,
        below: &[BackingFile],
    ) -> Result<(), VolumeError> {
        let id = volume.meta.id;
        let size_bytes = volume.size_gib << 30;
        if layer == 0 {
            let source = match below {
                [] => DiskSource::Empty,
                files => DiskSource::Files(files.to_vec()),
            };
            return self.create(id, source, size_bytes, volume.provisioning).await;
        }
        let path = self.files.path(id, layer, DiskFormat::Qcow2);
        let mut files = vec![];
        let mut size_bytes = size_bytes;
        if layer > volume.floor {
            let own = self.files.stretch(id, volume.floor, layer - 1);
            files = own.map_err(at("find the layers in", self.files.dir()))?;
            // What is wished for may be larger than what is there: it grows afterwards, as any disk does.
            size_bytes = self.disks.facts(files[0].path.clone(), files[0].format).await?.virtual_bytes;
        }
        if !files::stands_alone(&files) {
            files.extend_from_slice(below);
        }
        Ok(self.disks.create_layer(path, files, size_bytes, volume.provisioning).await?)
    }

    /// Looks at a disk whose files are all made, and grows it if nobody has it open.
    async fn look(&self, volume: &Volume, below: &[BackingFile]) -> Result<Seen, VolumeError> {
        let id = volume.meta.id;
        let holder = self.holder(volume);
        // Who only reads keeps nothing from being frozen.
        let written = holder.as_ref().filter(|_| !volume.attached_read_only);
        let written = written.map(|status| status.record.layers.get(&id).copied().unwrap_or(0));
        let layer = written.filter(|layer| volume.has_layer(*layer)).unwrap_or(volume.layer);
        let own = self.files.stretch(id, volume.floor, layer);
        let mut files = own.map_err(at("find the layers in", self.files.dir()))?;
        let own_count = files.len();
        if !files::stands_alone(&files) {
            files.extend_from_slice(below);
        }
        let top = files.remove(0);
        let size_bytes = volume.size_gib << 30;
        let mut facts = self.disks.facts(top.path.clone(), top.format).await?;
        if facts.virtual_bytes < size_bytes && holder.is_none() {
            self.disks.grow(top.path.clone(), top.format, size_bytes, volume.provisioning).await?;
            facts = self.disks.facts(top.path.clone(), top.format).await?;
        }
        let mut used_bytes = facts.allocated_bytes;
        for file in files.iter().take(own_count - 1) {
            used_bytes += self.disks.facts(file.path.clone(), file.format).await?.allocated_bytes;
        }
        Ok(Seen {
            path: top.path,
            format: top.format,
            backing: files,
            layer,
            layer_made: volume.layer,
            size_gib: facts.virtual_bytes >> 30,
            used_bytes,
        })
    }

    /// The file gets the name that tells its format only when it is whole: what lies under another one is made anew.
    async fn create(
        &self,
        id: VolumeId,
        source: DiskSource,
        size_bytes: u64,
        provisioning: Provisioning,
    ) -> Result<(), VolumeError> {
        let new = self.files.unfinished(id);
        self.disks.delete(new.clone()).await?;
        let made = self.disks.create(new.clone(), source, size_bytes, provisioning).await?;
        let path = self.files.path(id, 0, made.format);
        tokio::fs::rename(&new, &path).await.map_err(at("name", &path))?;
        Ok(sys::file::sync_directory(self.files.dir())?)
    }

    fn directory(&self, id: VolumeId) -> PathBuf {
        self.dir.join(format!("{id}.dir"))
    }

    /// Whether a guest may have written to the disk, or it began with something on it.
    async fn is_written(&self, volume: &Volume) -> Result<bool, VolumeError> {
        if volume.ground() != Ground::default() || volume.layer > 0 {
            return Ok(true);
        }
        let Some(file) =
            self.files.layer(volume.meta.id, 0).map_err(at("look for a layer in", self.files.dir()))?
        else {
            return Ok(false);
        };
        let work =
            move || directory::is_blank(&file).map(|blank| !blank).map_err(at("look into", &file.path));
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(VolumeError::Cancelled))
    }

    /// Makes a disk with a file system of the files that containers left, for a VM. They count until the disk has its
    /// name: a crash before that makes it anew, and after it the disk is what counts.
    async fn make_disk_of_files(&self, volume: &Volume) -> Result<(), VolumeError> {
        let id = volume.meta.id;
        let (closed, new) = (self.directory(id), self.files.unfinished(id));
        let data = closed.join(DATA);
        let disk = directory::NewDisk {
            path: new.clone(),
            size_bytes: volume.size_gib << 30,
            is_thick: volume.provisioning == Provisioning::Thick,
        };
        let done = tokio::task::spawn_blocking(move || directory::populate(&data, &disk));
        done.await.map_err(|_| VolumeError::Cancelled)?.map_err(VolumeError::Populate)?;
        for format in [DiskFormat::Qcow2, DiskFormat::Raw] {
            self.disks.delete(self.files.path(id, 0, format)).await?;
        }
        let path = self.files.path(id, 0, DiskFormat::Raw);
        tokio::fs::rename(&new, &path).await.map_err(at("name", &path))?;
        sys::file::sync_directory(self.files.dir())?;
        self.remove_directory(id).await
    }

    async fn remove_directory(&self, id: VolumeId) -> Result<(), VolumeError> {
        self.counts().remove(&id);
        let directory = self.directory(id);
        let removed =
            tokio::task::spawn_blocking(move || remove_tree(&directory).map_err(at("remove", &directory)));
        removed.await.unwrap_or(Err(VolumeError::Cancelled))
    }

    /// A directory with ids as containers see them, whatever ids their instance has on the host; so it is closed to all
    /// users of the host, who would find programs of their root in it.
    async fn make_directory(&self, volume: &Volume) -> Result<Seen, VolumeError> {
        let closed = self.directory(volume.meta.id);
        let path = closed.join(DATA);
        let data = path.clone();
        let done = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&data).map_err(at("create", &data))?;
            let mode = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(&closed, mode).map_err(at("close", &closed))
        });
        done.await.unwrap_or(Err(VolumeError::Cancelled))?;
        let used_bytes = self.count(volume.meta.id, path.clone()).await;
        Ok(Seen {
            path,
            format: DiskFormat::Raw,
            backing: vec![],
            layer: volume.layer,
            layer_made: volume.layer,
            size_gib: volume.size_gib,
            used_bytes,
        })
    }

    /// Space of a directory. A large one is counted seldom: looking at all its files is work for the host.
    async fn count(&self, id: VolumeId, path: PathBuf) -> u64 {
        let known = self.counts().get(&id).copied();
        let began = Instant::now();
        if let Some(count) = known.filter(|count| count.again_at > began) {
            return count.used_bytes;
        }
        let used_bytes = match rootfs::tree_usage(path).await {
            Ok(usage) => usage.allocated_bytes,
            Err(error) => {
                tracing::debug!(%id, error = sentence(&error), "a volume's space could not be counted");
                known.map_or(0, |count| count.used_bytes)
            }
        };
        let again_at = Instant::now() + began.elapsed() * COUNT_SHARE;
        self.counts().insert(id, Count { again_at, used_bytes });
        used_bytes
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<VolumeId, Count>> {
        // The map is whole at every moment, so a panic elsewhere does not spoil it.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes all of a volume without a record, but the layers that others stand on.
    async fn remove(&self, id: VolumeId) -> Result<(), VolumeError> {
        self.disks.delete(self.files.unfinished(id)).await?;
        self.remove_needless(id).await?;
        self.remove_directory(id).await
    }

    /// Removes layers that nobody stands on any more. Those above the one that takes writes are another time's, and stay as
    /// long as the volume does.
    async fn remove_needless(&self, id: VolumeId) -> Result<(), VolumeError> {
        let layers = self.files.layers(id).map_err(at("list", self.files.dir()))?;
        if layers.is_empty() || self.is_uncertain() {
            return Ok(());
        }
        let needs = Needs::of(&self.store, &self.files);
        for (_, path) in layers.into_iter().filter(|(layer, _)| !needs.has(id, *layer)) {
            self.disks.delete(path).await?;
        }
        Ok(())
    }

    /// Whether a record cannot be read that may stand on anything.
    fn is_uncertain(&self) -> bool {
        let tables = ["volume", "snapshot", "image"];
        self.store.mirror().corrupt().iter().any(|record| tables.contains(&record.table))
    }

    /// Writes the status, if that changes anything. After a failure what was there before is still there.
    async fn write(&self, decided: &Decided<'_>, seen: Result<Seen, Fault>) -> Result<(), store::Error> {
        let volume = &decided.volume.record;
        let key = volume.meta.id.to_string();
        let old = self.store.get::<VolumeStatus>(&key).map(|s| s.record.clone());
        let mut next = old.clone().unwrap_or_else(|| VolumeStatus {
            id: volume.meta.id,
            node: self.node,
            path: None,
            format: DiskFormat::Raw,
            backing: vec![],
            layer: 0,
            layer_made: 0,
            size_gib: volume.size_gib,
            used_bytes: 0,
            fault: None,
            at: Timestamp::now(),
        });
        match seen {
            Ok(seen) => {
                next.path = Some(seen.path.to_string_lossy().into_owned());
                next.format = seen.format;
                next.backing = seen.backing;
                next.layer = seen.layer;
                next.layer_made = seen.layer_made;
                next.size_gib = seen.size_gib;
                next.used_bytes = seen.used_bytes;
                next.fault = None;
            }
            Err(fault) => {
                let since =
                    next.fault.as_ref().filter(|old| old.message == fault.message).map(|old| old.since);
                next.fault = Some(Fault { since: since.unwrap_or(fault.since), ..fault });
            }
        }
        if old.as_ref() == Some(&next) {
            return Ok(());
        }
        next.at = Timestamp::now();
        let mut tx = Tx::new();
        if old.as_ref().is_some_and(|old| old.layer != next.layer) {
            // From here on others may stand on the layers below: only if nobody can have opened them meanwhile.
            tx.expect_unchanged::<Volume>(&key, decided.volume.mod_revision);
            match &decided.user {
                Some((user, Some(revision))) => tx.expect_unchanged::<InstanceStatus>(user, *revision),
                Some((user, None)) => tx.expect_absent::<InstanceStatus>(user),
                None => &mut tx,
            };
        } else {
            tx.expect_exists::<Volume>(&key);
        }
        tx.put(&next);
        match self.store.commit(tx).await {
            Ok(_) | Err(store::Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_that_is_slow_to_be_looked_at_holds_up_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let status = VolumeStatus {
            id: VolumeId::from_random([1; 16]),
            node: NodeId::from_random([2; 16]),
            path: Some(path.to_string_lossy().into_owned()),
            format: DiskFormat::Raw,
            backing: vec![],
            layer: 0,
            layer_made: 0,
            size_gib: 1,
            used_bytes: 0,
            fault: None,
            at: Timestamp::UNIX_EPOCH,
        };
        // To open it waits for who writes to it: this test, in the same thread.
        let looked = tokio::spawn(async move { is_bare(&status).await });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let written = tokio::task::spawn_blocking(move || std::fs::write(path, [1]));
        assert!(!looked.await.unwrap(), "what cannot be told is taken for written");
        // Who looked may be gone before the byte comes.
        let _ = written.await.unwrap();
    }
}
