//! Disks of virtual machines: images that come in, and the files that guests write.
//!
//! ```text
//! <state>/images/<id>/disk.raw | disk.qcow2   an image, never written again
//! <state>/images/<id>/sent                    what was sent, where VMs stand on something else
//! <state>/images/<id>.staged                  laid ready, looked at by nobody yet
//! <state>/images/tmp-<uuid>/                  coming in; swept at start
//! any path                                    a volume: made in tmp-<uuid>/ beside its place, then linked to it
//! ```
//!
//! An image is a stranger's file: its format is told by its bytes, what refers to other files is refused twice, and
//! `qemu-img` meets it only in the sandbox. Formats are always named when a file is opened, never guessed again: a
//! guest could write any header into a raw disk. Directories are closed to all but root.

mod appliance;
mod export;
mod import;
mod staged;
mod volume;

pub use staged::owner_of;

use super::{
    cancel::{StopFlag, run_blocking},
    compression::CompressionError,
    disk_format::{DetectedFormat, FormatError, VIRTUAL_BYTES_MAX},
    sandbox::{self, SandboxError, SandboxLimits, SandboxUser},
    tar::TarError,
};
use crate::room::{self, Short};
use model::{
    error::Code,
    image::Hashes,
    image_digest::Digest,
    plan::{BackingFile, DiskFormat},
    volume::Provisioning,
};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Name of the file inside a sandbox's directory.
const INPUT: &str = "input";
const OUTPUT: &str = "output";
/// Name of the file as it was sent, where that is not the one that VMs stand on.
const SENT: &str = "sent";
const SECTOR_BYTES: u64 = 512;

/// Why a disk cannot be imported or made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file system failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The disk of the host has no room.
    #[error("there is no room for {size_bytes} bytes at {}", path.display())]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// How much was wanted.
        size_bytes: u64,
    },
    /// The disk of the host is nearly full.
    #[error("there is no room at {}", path.display())]
    Short {
        /// Where.
        path: PathBuf,
        /// The numbers.
        source: Short,
    },
    /// The image is no disk that is taken.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It is compressed in a way that is not supported.
    #[error("the image cannot be unpacked")]
    Compression(#[from] CompressionError),
    /// `qemu-img` failed.
    #[error("the disk cannot be worked on")]
    Sandbox(#[from] SandboxError),
    /// What `qemu-img` reports cannot be read.
    #[error("qemu-img reports something that cannot be read")]
    Report(#[source] serde_json::Error),
    /// `qemu-img` saw a reference to another file.
    #[error("the image refers to another file ({0})")]
    External(String),
    /// The image is not the announced one.
    #[error("the image has digest {actual}, not {expected}")]
    Mismatch {
        /// Announced.
        expected: Digest,
        /// Sent.
        actual: Digest,
    },
    /// More than the limit was sent.
    #[error("the image is longer than {size_bytes_max} bytes")]
    TooLarge {
        /// The limit.
        size_bytes_max: u64,
    },
    /// Disks do not shrink.
    #[error("the disk has {virtual_bytes} bytes and cannot shrink to {wanted_bytes}")]
    Shrinks {
        /// Now.
        virtual_bytes: u64,
        /// Wanted.
        wanted_bytes: u64,
    },
    /// Not a whole number of sectors.
    #[error("a disk's size must be a multiple of {SECTOR_BYTES} bytes and at most {VIRTUAL_BYTES_MAX}")]
    Size,
    /// An appliance that has not exactly one disk.
    #[error("the appliance has {0} disks, one is possible")]
    Appliance(usize),
    /// An appliance that cannot be read.
    #[error("the appliance cannot be read")]
    Archive(#[from] TarError),
    /// Nobody waits for the result any more.
    #[error("the work was cancelled")]
    Cancelled,
}

impl DiskError {
    /// Whose matter it is: the image's, or this host's.
    pub fn code(&self) -> Code {
        match self {
            Self::NoRoom { .. } | Self::Short { .. } => Code::NoCapacity,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Code::NoCapacity,
            Self::Io { .. } | Self::Report(_) => Code::Internal,
            Self::Sandbox(SandboxError::Start { .. }) | Self::Cancelled => Code::Unavailable,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::Format(_)
            | Self::Compression(_)
            | Self::Sandbox(_)
            | Self::External(_)
            | Self::Mismatch { .. }
            | Self::Shrinks { .. }
            | Self::Appliance(_)
            | Self::Archive(_)
            | Self::Size => Code::Invalid,
        }
    }

    /// What to do about it, for people.
    pub fn hint(&self) -> String {
        match self {
            Self::Format(error) => error.hint().to_string(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space in the state directory".into()
            }
            Self::Short { .. } => room::HINT.into(),
            Self::Io { .. } | Self::Cancelled => String::new(),
            Self::NoRoom { .. } => "free some space, or choose thin provisioning".into(),
            Self::External(_) => "make it stand alone first: qemu-img convert -O qcow2 IMAGE NEW".into(),
            Self::Shrinks { .. } => "choose a flavor or size that is at least as large".into(),
            Self::Compression(_) => "unpack it first".into(),
            Self::Appliance(_) => "unpack it (tar xf FILE.ova) and import each disk by itself".into(),
            Self::Archive(_) => "check it: tar tf FILE.ova; or fetch it again".into(),
            Self::Sandbox(SandboxError::Start { .. }) => "install qemu-utils (qemu-img)".into(),
            Self::Mismatch { .. } => "fetch the image again, or correct the digest".into(),
            _ => "check the image: qemu-img check IMAGE".into(),
        }
    }
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_path_buf();
    move |source| DiskError::Io { operation, path, source }
}

/// How disks are worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// Who runs `qemu-img`.
    pub sandbox_user: SandboxUser,
    /// The program, by name or path.
    pub qemu_img: String,
    /// For questions.
    pub ask_timeout: Duration,
    /// For conversions.
    pub convert_timeout: Duration,
    /// Largest image that is taken.
    pub image_bytes_max: u64,
}

impl Default for DiskSettings {
    fn default() -> Self {
        Self {
            sandbox_user: SandboxUser::default(),
            qemu_img: "qemu-img".into(),
            ask_timeout: Duration::from_secs(30),
            convert_timeout: Duration::from_secs(2 * 3600),
            image_bytes_max: 2 << 40,
        }
    }
}

/// An image that is ready to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskImage {
    /// The file. Read-only from now on.
    pub path: PathBuf,
    /// Its format, to be named whenever it is opened.
    pub format: DiskFormat,
    /// What was sent.
    pub detected: DetectedFormat,
    /// sha256 of what was sent.
    pub digest: Digest,
    /// Further hashes of what was sent.
    pub hashes: Hashes,
    /// Bytes as they were sent.
    pub sent_bytes: u64,
    /// Bytes as a guest sees them.
    pub virtual_bytes: u64,
    /// Bytes that it takes on the host.
    pub allocated_bytes: u64,
}

/// A volume's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFacts {
    /// Its format.
    pub format: DiskFormat,
    /// Bytes as a guest sees them.
    pub virtual_bytes: u64,
    /// Bytes that it takes on the host.
    pub allocated_bytes: u64,
}

/// What a new volume starts as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// Zeros.
    Empty,
    /// This disk: its uppermost file and those that it stands on, none of which ever changes again.
    Files(Vec<BackingFile>),
}

/// What a volume became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeDisk {
    /// Its format.
    pub format: DiskFormat,
    /// It stands on its source, whose files must stay.
    pub needs_source: bool,
}

/// Where an image's file is, below the directory of images. `format` is the content's; kernels and initial RAM disks
/// have none.
pub fn image_path(images: &Path, id: model::id::ImageId, format: Option<DiskFormat>) -> PathBuf {
    images.join(id.to_string()).join(file_name(format.unwrap_or(DiskFormat::Raw)))
}

fn file_name(format: DiskFormat) -> String {
    format!("disk.{}", format.as_str())
}

/// Makes images and volumes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DiskStore {
    images: Arc<PathBuf>,
    settings: Arc<DiskSettings>,
}

/// Whether what comes in must be a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A disk, of any format that is known.
    Disk,
    /// An archive of a container image: kept byte for byte, for those who want it back.
    Archive,
    /// A kernel or an initial RAM disk: kept byte for byte.
    Bytes,
}

impl DiskStore {
    /// Opens (and makes) the store under the state directory, and sweeps what a crash left. Blocking.
    pub fn open(state: &Path, settings: DiskSettings) -> Result<Self, DiskError> {
        let images = state.join("images");
        DirBuilder::new().recursive(true).mode(0o700).create(&images).map_err(at("create", &images))?;
        fs::set_permissions(&images, fs::Permissions::from_mode(0o700)).map_err(at("close", &images))?;
        sweep(&images)?;
        Ok(Self { images: Arc::new(images), settings: Arc::new(settings) })
    }

    /// Directory of the images.
    pub fn images_dir(&self) -> &Path {
        &self.images
    }

    /// Takes an image from a stream, which may be compressed by gzip or zstd. `id` becomes a directory's name.
    /// With `expected`, other content is refused. `told` hears the bytes that came.
    pub async fn import(
        &self,
        id: model::id::ImageId,
        input: impl Read + Send + 'static,
        expect: Expect,
        expected: Option<Digest>,
        told: impl Fn(u64) + Send + 'static,
    ) -> Result<DiskImage, DiskError> {
        let store = self.clone();
        run_blocking(move |flag| store.import_blocking(id, input, expect, expected, &told, &flag))
            .await
            .unwrap_or(Err(DiskError::Cancelled))
    }

    /// Removes an image, and what lies ready for it. Fine when it is gone.
    pub async fn delete_image(&self, id: model::id::ImageId) -> Result<(), DiskError> {
        self.delete_staged(id).await?;
        let path = self.images.join(id.to_string());
        run_blocking(move |_| match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &path)(error)),
            _ => Ok(()),
        })
        .await
        .unwrap_or(Err(DiskError::Cancelled))
    }

    /// Makes a volume's file at `path`, whole or not at all; an existing file is an error. Thin is a qcow2 file that
    /// stands on its source (or a reflinked copy, where the file system has them); thick is a raw file whose space is
    /// taken now.
    pub async fn create(
        &self,
        path: PathBuf,
        source: DiskSource,
        size_bytes: u64,
        provisioning: Provisioning,
    ) -> Result<MadeDisk, DiskError> {
        let store = self.clone();
        run_blocking(move |flag| store.create_blocking(&path, &source, size_bytes, provisioning, &flag))
            .await
            .unwrap_or(Err(DiskError::Cancelled))
    }

    /// Makes an empty layer at `path` above the files `below`, whole or not at all; an existing file is an error. A
    /// thick one takes all the space that it may ever need.
    pub async fn create_layer(
        &self,
        path: PathBuf,
        below: Vec<BackingFile>,
        size_bytes: u64,
        provisioning: Provisioning,
    ) -> Result<(), DiskError> {
        let store = self.clone();
        run_blocking(move |flag| store.create_layer_blocking(&path, &below, size_bytes, provisioning, &flag))
            .await
            .unwrap_or(Err(DiskError::Cancelled))
    }

    /// Makes an image of the disk `files`, which never change again: one file that stands alone.
    pub async fn export(
        &self,
        id: model::id::ImageId,
        files: Vec<BackingFile>,
        format: DiskFormat,
    ) -> Result<DiskImage, DiskError> {
        let store = self.clone();
        run_blocking(move |flag| store.export_blocking(id, &files, format, &flag))
            .await
            .unwrap_or(Err(DiskError::Cancelled))
    }

    /// Grows a volume that no guest has open. Already as large is fine, larger is an error.
    pub async fn grow(
        &self,
        path: PathBuf,
        format: DiskFormat,
        size_bytes: u64,
        provisioning: Provisioning,
    ) -> Result<(), DiskError> {
        let store = self.clone();
        run_blocking(move |flag| store.grow_blocking(&path, format, size_bytes, provisioning, &flag))
            .await
            .unwrap_or(Err(DiskError::Cancelled))
    }

    /// Size as the guest sees it, and as the host pays for it.
    pub async fn facts(&self, path: PathBuf, format: DiskFormat) -> Result<DiskFacts, DiskError> {
        run_blocking(move |_| volume::facts(&path, format)).await.unwrap_or(Err(DiskError::Cancelled))
    }

    /// Removes a volume's file. Fine when it is gone.
    pub async fn delete(&self, path: PathBuf) -> Result<(), DiskError> {
        run_blocking(move |_| match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &path)(error)),
            _ => Ok(()),
        })
        .await
        .unwrap_or(Err(DiskError::Cancelled))
    }

    fn convert_limits(&self, virtual_bytes: u64) -> SandboxLimits {
        SandboxLimits {
            timeout: self.settings.convert_timeout,
            memory_bytes_max: 4 << 30,
            cpu_s_max: self.settings.convert_timeout.as_secs().max(1),
            // Metadata of qcow2 is far below an eighth of the data.
            file_bytes_max: virtual_bytes + virtual_bytes / 8 + (64 << 20),
        }
    }

    fn qemu_img(
        &self,
        arguments: &[&str],
        directory: &Path,
        limits: SandboxLimits,
        flag: &StopFlag,
    ) -> Result<Vec<u8>, DiskError> {
        self.qemu_img_with(arguments, directory, Vec::new(), limits, flag)
    }

    fn qemu_img_with(
        &self,
        arguments: &[&str],
        directory: &Path,
        extra: Vec<File>,
        limits: SandboxLimits,
        flag: &StopFlag,
    ) -> Result<Vec<u8>, DiskError> {
        let user = self.settings.sandbox_user;
        match sandbox::run(&self.settings.qemu_img, arguments, directory, extra, user, limits, flag) {
            // A full disk is told apart: it is the host's matter, not the image's.
            Err(SandboxError::Refused { complaint, .. }) if complaint.contains("No space left") => {
                Err(DiskError::NoRoom { path: directory.to_path_buf(), size_bytes: limits.file_bytes_max })
            }
            result => Ok(result?),
        }
    }
}

/// A directory of the sandbox's user, removed with this value.
struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    fn create(parent: &Path, user: SandboxUser) -> Result<Self, DiskError> {
        let path = parent.join(format!("tmp-{}", uuid::Uuid::new_v4()));
        DirBuilder::new().mode(0o700).create(&path).map_err(at("create", &path))?;
        let work = Self { path };
        chown(&work.path, Some(user.uid), Some(user.gid)).map_err(at("chown", &work.path))?;
        Ok(work)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What stays after a failure is swept at the next start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what a crash left in a directory of volumes. For the start, when nobody works there yet. Blocking.
pub fn sweep(dir: &Path) -> Result<(), DiskError> {
    for entry in fs::read_dir(dir).map_err(at("list", dir))? {
        let path = entry.map_err(at("list", dir))?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tmp-")) {
            continue;
        }
        // A volume that was being grown is still lent to the sandbox's user under this second name.
        match chown(path.join(INPUT), Some(0), Some(0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("chown", &path)(error)),
            _ => {}
        }
        match fs::remove_dir_all(&path) {
            // Work that was given up removes what it made itself, and may be at it at this moment.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("remove", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}
