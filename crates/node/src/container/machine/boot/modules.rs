//! Modules of a kernel: which are there, and which of them are to be loaded, in which order.

use super::elf;
use crate::image::compression::decompress_any;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Without these no guest works.
pub(super) const NEEDED: [&str; 6] =
    ["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "ext4", "overlay"];
/// What containers and their host expect, where the kernel has it: randomness at once, memory given back, raw packets, IPv6,
/// file systems of programs and network devices of programs. The checksums of ext4 are a module of no module's that it asks for by name.
pub(super) const WANTED: [&str; 7] =
    ["crc32c_generic", "virtio_rng", "virtio_balloon", "af_packet", "ipv6", "fuse", "tun"];
/// What a file of a module may end in, as distributions compress them.
const ENDINGS: [&str; 4] = ["", ".xz", ".zst", ".gz"];
/// Largest module, unpacked.
const MODULE_BYTES_MAX: u64 = 64 << 20;
/// Most modules that are loaded.
const MODULES_MAX: usize = 64;

/// The modules in a directory, as `make modules_install` lays it out.
#[derive(Debug)]
pub(super) struct Modules {
    /// Files by the names of the modules.
    files: BTreeMap<String, PathBuf>,
    /// Names of what the kernel has in itself.
    built_in: BTreeSet<String>,
}

/// A module to be loaded.
#[derive(Debug)]
pub(super) struct Module {
    /// Its name.
    pub name: String,
    /// Its plain bytes.
    pub bytes: Vec<u8>,
}

impl Modules {
    /// Reads the lists in a directory: `modules.order` and `modules.builtin`.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let order = fs::read_to_string(directory.join("modules.order"))?;
        let built_in = match fs::read_to_string(directory.join("modules.builtin")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        Ok(Self {
            files: order.lines().map(|line| (name_of(line), directory.join(line))).collect(),
            built_in: built_in.lines().map(name_of).collect(),
        })
    }

    /// Those of [`NEEDED`] that the kernel has neither in itself nor as a file.
    pub fn missing(&self) -> Vec<&'static str> {
        let there = |name: &&str| self.built_in.contains(*name) || self.file(name).is_some();
        NEEDED.into_iter().filter(|name| !there(name)).collect()
    }

    /// The file of a module. The list may name what is in a package that is not installed.
    fn file(&self, name: &str) -> Option<PathBuf> {
        let listed = self.files.get(name)?;
        let with = |ending: &&str| {
            let mut path = listed.clone().into_os_string();
            path.push(ending);
            PathBuf::from(path)
        };
        ENDINGS.iter().map(with).find(|path| path.exists())
    }

    /// The modules that are to be loaded, each behind those that it depends on.
    pub fn to_load(&self) -> io::Result<Vec<Module>> {
        let mut loaded = Vec::new();
        let wanted = WANTED.into_iter().filter(|name| self.file(name).is_some());
        for name in NEEDED.into_iter().chain(wanted) {
            self.add(name, &mut Vec::new(), &mut loaded)?;
        }
        Ok(loaded)
    }

    fn add(&self, name: &str, above: &mut Vec<String>, loaded: &mut Vec<Module>) -> io::Result<()> {
        if self.built_in.contains(name) || loaded.iter().any(|it| it.name == name) {
            return Ok(());
        }
        let refuse = |why: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the kernel's module {name} {why}"))
        };
        if above.iter().any(|it| it == name) {
            return Err(refuse("depends on itself"));
        }
        if loaded.len() + above.len() >= MODULES_MAX {
            return Err(refuse(&format!("is one too many: {MODULES_MAX} are loaded at most")));
        }
        let path = self.file(name).ok_or_else(|| refuse("is not there"))?;
        let bytes = read(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot read the module {}: {error}", path.display()))
        })?;
        above.push(name.into());
        for below in elf::module_depends(&bytes)? {
            self.add(&normal(&below), above, loaded)?;
        }
        above.pop();
        loaded.push(Module { name: name.into(), bytes });
        Ok(())
    }
}

/// The plain bytes of a module.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    let plain: Box<dyn Read> = match path.extension() {
        Some(ending) if ending == "ko" => Box::new(file),
        _ => decompress_any(file).map_err(io::Error::other)?,
    };
    plain.take(MODULE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MODULE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    Ok(bytes)
}

/// The name of the module of a file: `kernel/drivers/net/virtio-net.ko.xz` is `virtio_net`.
fn name_of(path: &str) -> String {
    let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
    normal(file.split_once(".ko").map_or(file, |(name, _)| name))
}

/// Names have underscores, whatever their files have.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that passes for a module: see the tests of [`elf`].
    fn module(depends: &str) -> Vec<u8> {
        let information = format!("depends={depends}\0");
        let names = b"\0.modinfo\0.shstrtab\0";
        let entry = |name: u32, at: usize, length: usize| {
            let mut entry = [0_u8; 64];
            entry[..4].copy_from_slice(&name.to_le_bytes());
            entry[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            entry[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            entry
        };
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file.extend(information.as_bytes());
        file.extend(names);
        let table = file.len() as u64;
        file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        file[0x3a] = 64;
        file[0x3c] = 3;
        file[0x3e] = 2;
        let at = 64 + information.len();
        for entry in [entry(0, 64, 0), entry(1, 64, information.len()), entry(10, at, names.len())] {
            file.extend(entry);
        }
        file
    }

    fn tree(built_in: &[&str], modules: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let lines: Vec<String> = modules.iter().map(|(path, _)| format!("kernel/{path}.ko")).collect();
        fs::write(directory.path().join("modules.order"), lines.join("\n")).expect("written");
        let lines: Vec<String> = built_in.iter().map(|name| format!("kernel/fs/{name}.ko")).collect();
        fs::write(directory.path().join("modules.builtin"), lines.join("\n")).expect("written");
        for (line, (_, depends)) in modules.iter().map(|(path, _)| path).zip(modules) {
            let path = directory.path().join(format!("kernel/{line}.ko"));
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, module(depends)).expect("written");
        }
        directory
    }

    const DEBIANS: [(&str, &str); 8] = [
        ("drivers/net/virtio_net", "virtio,virtio_ring"),
        ("drivers/virtio/virtio", ""),
        ("drivers/virtio/virtio_ring", ""),
        ("drivers/virtio/virtio_pci", "virtio_ring,virtio"),
        ("drivers/block/virtio_blk", "virtio_ring,virtio"),
        ("drivers/char/virtio_console", "virtio,virtio_ring"),
        ("drivers/char/hw_random/virtio-rng", "virtio_ring,virtio"),
        ("fs/overlayfs/overlay", ""),
    ];

    #[test]
    fn each_module_comes_behind_those_that_it_depends_on_and_once() {
        let directory = tree(&["ext4"], &DEBIANS);
        let modules = Modules::read(directory.path()).expect("read");
        assert!(modules.missing().is_empty());
        let order: Vec<String> = modules.to_load().expect("an order").into_iter().map(|it| it.name).collect();
        assert_eq!(
            order,
            [
                "virtio_ring",
                "virtio",
                "virtio_pci",
                "virtio_blk",
                "virtio_net",
                "virtio_console",
                "overlay",
                "virtio_rng"
            ]
        );
    }

    #[test]
    fn what_a_guest_needs_and_the_kernel_lacks_is_told() {
        let directory = tree(&[], &DEBIANS[..4]);
        let modules = Modules::read(directory.path()).expect("read");
        assert_eq!(modules.missing(), ["virtio_blk", "virtio_console", "ext4", "overlay"]);
        // The list names a file that is not installed.
        fs::remove_file(directory.path().join("kernel/drivers/net/virtio_net.ko")).expect("removed");
        assert!(modules.missing().contains(&"virtio_net"));
        assert!(modules.to_load().is_err());
    }

    #[test]
    fn a_circle_is_an_error_and_compressed_modules_are_read() {
        let mut modules = DEBIANS;
        modules[1].1 = "virtio_ring";
        modules[2].1 = "virtio";
        let directory = tree(&["ext4"], &modules);
        let error = Modules::read(directory.path()).expect("read").to_load().expect_err("a circle");
        assert!(error.to_string().contains("depends on itself"), "{error}");

        let directory = tree(&["ext4"], &DEBIANS);
        let plain = directory.path().join("kernel/fs/overlayfs/overlay.ko");
        let packed = zstd::encode_all(File::open(&plain).expect("open"), 1).expect("packed");
        fs::write(plain.with_extension("ko.zst"), packed).expect("written");
        fs::remove_file(plain).expect("removed");
        let all = Modules::read(directory.path()).expect("read").to_load().expect("an order");
        assert_eq!(all.iter().find(|it| it.name == "overlay").expect("there").bytes, module(""));
    }

    #[test]
    fn names_are_those_of_modules_and_not_of_files() {
        assert_eq!(name_of("kernel/drivers/char/hw_random/virtio-rng.ko.xz"), "virtio_rng");
        assert_eq!(name_of("kernel/fs/ext4/ext4.ko"), "ext4");
    }
}
