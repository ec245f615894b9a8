//! What a pod's machine boots: a kernel of the host's distribution, and a first file system made of this program itself.
//!
//! ```text
//!  /holm                    this program, as far as it is loaded     /modules/<number>-<name>.ko   in the order of loading
//!  /lib64/ld-linux…, /…     its loader and libraries                 /dev/console, /dev/null       and empty directories
//! ```
//!
//! The archive is not compressed: on the host it lies in the page cache once for all machines, and an emulated guest copies
//! far quicker than it unpacks; for the same reason the kernel is taken out of its image ([`image`]). Both are made anew when
//! the program, a library or the kernel changes, whole or not at all.

mod cpio;
mod elf;
mod libraries;
mod modules;
mod plain;

use crate::driver::DriverError;
use cpio::Archive;
use elf::Program;
use model::instance::isolation::GUEST_OVERHEAD_MIB;
use modules::Modules;
use sha2::{Digest, Sha256};
use std::{
    cmp::Ordering,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// What a kernel is told so that it starts the guest's role; all else on its command line is before this.
pub const ARGUMENTS: &str = "rootfstype=ramfs rdinit=/holm -- guest";
/// Where the modules are in the first file system.
pub const MODULES: &str = "/modules";
/// Changes when the archive is made in another way from the same files.
const FORM: u32 = 1;
/// Files of a sort that are kept: of a program and its kernel before an upgrade, machines may still be started again.
const KEPT_MAX: usize = 3;
/// What names of archives begin with, and those of kernels.
const ARCHIVE: &str = "initramfs-";
const KERNEL: &str = "kernel-";
/// Directories that things are mounted on.
const DIRECTORIES: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/newroot"];
/// Place of a kernel's version in its image, from the head of its code (Documentation/arch/x86/boot.rst).
const VERSION_POINTER: u64 = 0x20e;
const VERSION_BASE: u64 = 0x200;
const BOOT_MAGIC: (u64, [u8; 4]) = (0x202, *b"HdrS");
/// Longest version.
const VERSION_BYTES_MAX: usize = 128;

/// A kernel for guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its image.
    pub image: PathBuf,
    /// Directory of its modules.
    pub modules: PathBuf,
    /// What it calls itself: `6.1.0-37-cloud-amd64`.
    pub version: String,
}

fn io_error(what: &str, path: &Path) -> impl FnOnce(io::Error) -> DriverError {
    let operation = format!("{what} {}", path.display());
    move |source| DriverError::Io { operation, source }
}

impl Kernel {
    /// The kernel that guests get: `wanted`, or the newest of the host's that has what they need. Blocking.
    ///
    /// # Errors
    /// `Missing` where there is none, or where the wanted one has not what guests need.
    pub fn find(wanted: Option<&Path>) -> Result<Self, DriverError> {
        match wanted {
            Some(image) => Self::wanted(image),
            None => Self::newest(Path::new("/boot"), Path::new("/lib/modules")),
        }
    }

    fn wanted(image: &Path) -> Result<Self, DriverError> {
        let version = version_of(image).map_err(io_error("read the kernel", image))?;
        let beside = image.parent().unwrap_or(Path::new("/"));
        let places = [
            beside.join("modules"),
            beside.join("lib/modules").join(&version),
            beside.join("../lib/modules").join(&version),
            Path::new("/lib/modules").join(&version),
        ];
        let Some(directory) = places.iter().find(|place| place.join("modules.order").exists()) else {
            let shown: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            return Err(DriverError::Missing {
                what: format!("the directory of modules of the kernel {}", image.display()),
                hint: format!("put them into one of {}: modules.order lies in it", shown.join(", ")),
            });
        };
        let modules = Modules::read(directory).map_err(io_error("read the modules in", directory))?;
        let missing = modules.missing();
        if !missing.is_empty() {
            return Err(DriverError::Missing {
                what: format!("what guests need ({}) in the kernel {}", missing.join(", "), image.display()),
                hint: "take a kernel with these built in or as modules: Debian's linux-image-cloud-amd64 has them"
                    .into(),
            });
        }
        Ok(Self { image: image.into(), modules: directory.clone(), version })
    }

    /// The newest that has what guests need, of those in `boot` whose modules are in a directory of their version.
    fn newest(boot: &Path, all_modules: &Path) -> Result<Self, DriverError> {
        let entries = fs::read_dir(boot).into_iter().flatten().flatten();
        let images = entries.map(|entry| entry.path()).filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        });
        let read = |image: PathBuf| {
            let version = version_of(&image).ok()?;
            let modules = all_modules.join(&version);
            Some(Self { image, modules, version })
        };
        let mut kernels: Vec<Self> = images.filter_map(read).collect();
        kernels.sort_by(|one, other| compare_versions(&other.version, &one.version));
        let fits = |kernel: &Self| Modules::read(&kernel.modules).is_ok_and(|it| it.missing().is_empty());
        kernels.into_iter().find(fits).ok_or_else(|| DriverError::Missing {
            what: "a kernel for guests, with virtio, ext4 and overlay and its modules,".into(),
            hint: "apt install linux-image-cloud-amd64, or name one by `holm serve --guest-kernel FILE`"
                .into(),
        })
    }
}

/// The version that a kernel's image tells of itself.
///
/// # Errors
/// `InvalidData` for a file that is no such image (`bzImage`).
fn version_of(image: &Path) -> io::Result<String> {
    let no_image = || io::Error::new(io::ErrorKind::InvalidData, "it is no image of a kernel (bzImage)");
    let file = File::open(image)?;
    let mut magic = [0; 4];
    let mut pointer = [0; 2];
    let read = file
        .read_exact_at(&mut magic, BOOT_MAGIC.0)
        .and_then(|()| file.read_exact_at(&mut pointer, VERSION_POINTER));
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(no_image()),
        read => read?,
    }
    let pointer = u64::from(u16::from_le_bytes(pointer));
    if magic != BOOT_MAGIC.1 || pointer == 0 {
        return Err(no_image());
    }
    let mut text = [0; VERSION_BYTES_MAX];
    let length = file.read_at(&mut text, VERSION_BASE + pointer)?;
    // The version, and behind a space who built it and when.
    let word = text[..length].split(|byte| matches!(byte, 0 | b' ')).next().unwrap_or_default();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_+~".contains(byte);
    // It becomes a part of a path.
    if word.is_empty() || word[0] == b'.' || !word.iter().all(plain) {
        return Err(no_image());
    }
    Ok(String::from_utf8_lossy(word).into_owned())
}

/// Compares as people do: numbers by their value.
fn compare_versions(one: &str, other: &str) -> Ordering {
    fn parts(version: &str) -> Vec<(u64, &str)> {
        let cut = version.split(['.', '-', '+', '_', '~']);
        cut.map(|part| (part.parse().unwrap_or(0), part)).collect()
    }
    parts(one).cmp(&parts(other))
}

/// What a first file system is made of, and where that is.
struct Parts {
    program: Program,
    libraries: Vec<(PathBuf, Program)>,
    path: PathBuf,
}

impl Parts {
    fn find(kernel: &Kernel, program: &Path, directory: &Path) -> Result<Self, DriverError> {
        let read = Program::open(program).map_err(io_error("read the program", program))?;
        let libraries = libraries::of(&read).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DriverError::Missing {
                what: format!("a library of {} ({error})", program.display()),
                hint: "put it into /usr/lib, or take a holm that was built for this distribution".into(),
            },
            _ => io_error("read the libraries of", program)(error),
        })?;
        let order = kernel.modules.join("modules.order");
        let sources = [program, &kernel.image, &order];
        let sources = sources.into_iter().chain(libraries.iter().map(|(path, _)| path.as_path()));
        let key = key_of(sources).map_err(io_error("look at the parts of", program))?;
        Ok(Self { program: read, libraries, path: directory.join(format!("{ARCHIVE}{key}")) })
    }
}

fn modules_of(kernel: &Kernel) -> Result<Vec<modules::Module>, DriverError> {
    let modules = Modules::read(&kernel.modules).and_then(|modules| modules.to_load());
    modules.map_err(io_error("read the modules in", &kernel.modules))
}

/// The first file system of guests of `kernel`, made in `directory` or found there: `program` is holm itself. Blocking.
///
/// # Errors
/// `Missing` for a library that is in no usual place; what the host's file system refuses.
pub fn initramfs(kernel: &Kernel, program: &Path, directory: &Path) -> Result<PathBuf, DriverError> {
    let Parts { program, libraries, path } = Parts::find(kernel, program, directory)?;
    if is_made(&path) {
        return Ok(path);
    }
    let modules = modules_of(kernel)?;
    let fill =
        |file: &mut File| fill(&mut Archive::new(BufWriter::new(file)), &program, &libraries, &modules);
    make(directory, ARCHIVE, &path, fill).map_err(io_error("make the first file system of guests", &path))?;
    Ok(path)
}

/// How large it is, or will be when it is made, in bytes. Blocking.
///
/// # Errors
/// The same as of making it.
pub fn initramfs_bytes(kernel: &Kernel, program: &Path, directory: &Path) -> Result<u64, DriverError> {
    let parts = Parts::find(kernel, program, directory)?;
    if let Ok(made) = fs::metadata(&parts.path) {
        return Ok(made.size());
    }
    let libraries: u64 = parts.libraries.iter().map(|(_, library)| library.loaded_bytes).sum();
    let modules: u64 = modules_of(kernel)?.iter().map(|module| module.bytes.len() as u64).sum();
    Ok(parts.program.loaded_bytes + libraries + modules)
}

/// Memory in MiB that a pod's machine has beside the pod's: for its kernel and init, and twice the initial RAM disk, which is
/// in memory packed and unpacked for a moment.
pub fn overhead_mib(initramfs_bytes: u64) -> u64 {
    GUEST_OVERHEAD_MIB + 2 * initramfs_bytes.div_ceil(1 << 20)
}

/// The file that guests of `kernel` boot, made in `directory` or found there: the kernel itself where a monitor can start
/// it, which is quicker, else the image as it is. Blocking.
///
/// # Errors
/// What the host's file system refuses.
pub fn image(kernel: &Kernel, directory: &Path) -> Result<PathBuf, DriverError> {
    let at = |what| io_error(what, &kernel.image);
    let key = key_of([kernel.image.as_path()].into_iter()).map_err(at("look at"))?;
    let path = directory.join(format!("{KERNEL}{key}"));
    if !is_made(&path) {
        let packed = fs::read(&kernel.image).map_err(at("read"))?;
        // A file without anything says that there is none.
        let plain = plain::kernel_of(&packed).unwrap_or_default();
        make(directory, KERNEL, &path, |file| file.write_all(&plain)).map_err(at("unpack"))?;
    }
    let seen = fs::metadata(&path).map_err(io_error("look at", &path))?;
    Ok(if seen.size() == 0 { kernel.image.clone() } else { path })
}

/// Whether a file was made before. It is used now, and those that were used last are kept.
fn is_made(path: &Path) -> bool {
    File::open(path).and_then(|file| file.set_modified(SystemTime::now())).is_ok()
}

/// Makes a file whole or not at all, and removes old ones of its sort.
fn make(
    directory: &Path,
    sort: &str,
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut staged = tempfile::Builder::new().prefix(".staged").tempfile_in(directory)?;
    fill(staged.as_file_mut())?;
    // QEMU's user opens it again, and nothing in it is a secret.
    staged.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    // A name that is there after a crash names the whole.
    staged.as_file().sync_all()?;
    staged.persist(path)?;
    remove_old(directory, sort)
}

/// Names what an archive is made of: which files these are, and in which form.
fn key_of<'a>(sources: impl Iterator<Item = &'a Path>) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{FORM}\n{:?}\n{:?}\n", modules::NEEDED, modules::WANTED));
    for source in sources {
        let seen = fs::metadata(source)?;
        let (path, changed) = (source.display(), (seen.mtime(), seen.mtime_nsec()));
        hash.update(format!("{path:?} {} {} {} {changed:?}\n", seen.dev(), seen.ino(), seen.size()));
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn fill<W: Write>(
    archive: &mut Archive<W>,
    program: &Program,
    libraries: &[(PathBuf, Program)],
    modules: &[modules::Module],
) -> io::Result<()> {
    for path in DIRECTORIES {
        archive.directory(Path::new(path), 0o755)?;
    }
    archive.device(Path::new("/dev/console"), 0o600, (5, 1))?;
    archive.device(Path::new("/dev/null"), 0o666, (1, 3))?;
    archive.file(Path::new("/holm"), 0o755, program.loaded_bytes, &mut program.loaded()?)?;
    for (path, library) in libraries {
        archive.file(path, 0o755, library.loaded_bytes, &mut library.loaded()?)?;
    }
    for (number, module) in modules.iter().enumerate() {
        let path = Path::new(MODULES).join(format!("{number:02}-{}.ko", module.name));
        archive.file(&path, 0o600, module.bytes.len() as u64, &mut module.bytes.as_slice())?;
    }
    archive.finish()
}

/// Removes files of a sort but for those that were used last. A machine that boots from one has it open.
fn remove_old(directory: &Path, sort: &str) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(sort) {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort();
    let old = found.len().saturating_sub(KEPT_MAX);
    for (_, path) in found.into_iter().take(old) {
        match fs::remove_file(path) {
            // Another start has done it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
