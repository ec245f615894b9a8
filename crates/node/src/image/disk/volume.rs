//! Volumes: made thin or thick, empty or from another disk, frozen by a layer on top, and grown.
//!
//! Only our own files are worked on here. What lies below a volume is named to qemu-img but never opened by it, except
//! to be copied, in the sandbox.

use super::{
    DiskError, DiskFacts, DiskSource, DiskStore, INPUT, MadeDisk, OUTPUT, SECTOR_BYTES, WorkDir, at,
};
use crate::image::{
    cancel::StopFlag,
    disk_format::{FormatError, VIRTUAL_BYTES_MAX},
    sandbox,
};
use model::{
    plan::{BackingFile, DiskFormat},
    volume::Provisioning,
};
use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown},
    path::Path,
};

impl DiskStore {
    pub(super) fn create_blocking(
        &self,
        path: &Path,
        source: &DiskSource,
        size_bytes: u64,
        provisioning: Provisioning,
        flag: &StopFlag,
    ) -> Result<MadeDisk, DiskError> {
        check_size(size_bytes)?;
        let parent = path.parent().ok_or(DiskError::Size)?;
        if fs::symlink_metadata(path).is_ok() {
            return Err(at("create", path)(io::ErrorKind::AlreadyExists.into()));
        }
        if let DiskSource::Files(files) = source {
            let virtual_bytes = top_facts(files)?.virtual_bytes;
            if virtual_bytes > size_bytes {
                return Err(DiskError::Shrinks { virtual_bytes, wanted_bytes: size_bytes });
            }
        }
        let work = WorkDir::create(parent, self.settings.sandbox_user)?;
        let output = work.path.join(OUTPUT);
        let made = match provisioning {
            Provisioning::Thin => self.make_thin(&work, source, size_bytes, flag)?,
            Provisioning::Thick => self.make_thick(&work, path, source, size_bytes, flag)?,
        };
        put_in_place(&output, path, parent)?;
        Ok(made)
    }

    pub(super) fn create_layer_blocking(
        &self,
        path: &Path,
        below: &[BackingFile],
        size_bytes: u64,
        provisioning: Provisioning,
        flag: &StopFlag,
    ) -> Result<(), DiskError> {
        check_size(size_bytes)?;
        let parent = path.parent().ok_or(DiskError::Size)?;
        if fs::symlink_metadata(path).is_ok() {
            return Err(at("create", path)(io::ErrorKind::AlreadyExists.into()));
        }
        let work = WorkDir::create(parent, self.settings.sandbox_user)?;
        // Space for data above a backing file needs subclusters: a cluster may be allocated and not yet be data.
        let options: &[&str] = match provisioning {
            Provisioning::Thin => &[],
            Provisioning::Thick => &["-o", "extended_l2=on,preallocation=falloc"],
        };
        self.create_qcow2(&work, below, size_bytes, options, flag)?;
        put_in_place(&work.path.join(OUTPUT), path, parent)
    }

    /// Makes an empty qcow2 file above others. These are not opened: unsafe mode (`-u`) means no more than that.
    fn create_qcow2(
        &self,
        work: &WorkDir,
        below: &[BackingFile],
        size_bytes: u64,
        options: &[&str],
        flag: &StopFlag,
    ) -> Result<(), DiskError> {
        let size = size_bytes.to_string();
        let mut arguments = vec!["create", "-q", "-f", "qcow2"];
        arguments.extend(options);
        if let Some(nearest) = below.first() {
            let path = &nearest.path;
            let name = path.to_str().ok_or_else(|| at("name", path)(io::ErrorKind::InvalidInput.into()))?;
            arguments.extend(["-u", "-F", nearest.format.as_str(), "-b", name]);
        }
        arguments.extend([OUTPUT, size.as_str()]);
        self.qemu_img(&arguments, &work.path, self.convert_limits(size_bytes), flag).map(drop)
    }

    fn make_thin(
        &self,
        work: &WorkDir,
        source: &DiskSource,
        size_bytes: u64,
        flag: &StopFlag,
    ) -> Result<MadeDisk, DiskError> {
        let output = work.path.join(OUTPUT);
        let below: &[BackingFile] = match source {
            DiskSource::Empty => &[],
            DiskSource::Files(files) => files,
        };
        if let [BackingFile { path: raw, format: DiskFormat::Raw }] = below
            && reflink(raw, &output)?
        {
            let file = OpenOptions::new().write(true).open(&output).map_err(at("open", &output))?;
            file.set_len(size_bytes).map_err(at("grow", &output))?;
            return Ok(MadeDisk { format: DiskFormat::Raw, needs_source: false });
        }
        self.create_qcow2(work, below, size_bytes, &[], flag)?;
        Ok(MadeDisk { format: DiskFormat::Qcow2, needs_source: !below.is_empty() })
    }

    fn make_thick(
        &self,
        work: &WorkDir,
        path: &Path,
        source: &DiskSource,
        size_bytes: u64,
        flag: &StopFlag,
    ) -> Result<MadeDisk, DiskError> {
        let output = work.path.join(OUTPUT);
        let file =
            OpenOptions::new().write(true).create_new(true).open(&output).map_err(at("create", &output))?;
        allocate(&file, path, size_bytes)?;
        let user = self.settings.sandbox_user;
        chown(&output, Some(user.uid), Some(user.gid)).map_err(at("chown", &output))?;
        if let DiskSource::Files(files) = source {
            let (input, opened) = opened(files)?;
            let arguments = ["convert", "-n", "--target-is-zero", "-O", "raw", &input, OUTPUT];
            self.qemu_img_with(&arguments, &work.path, opened, self.convert_limits(size_bytes), flag)?;
        }
        Ok(MadeDisk { format: DiskFormat::Raw, needs_source: false })
    }

    pub(super) fn grow_blocking(
        &self,
        path: &Path,
        format: DiskFormat,
        size_bytes: u64,
        provisioning: Provisioning,
        flag: &StopFlag,
    ) -> Result<(), DiskError> {
        check_size(size_bytes)?;
        let virtual_bytes = facts(path, format)?.virtual_bytes;
        if virtual_bytes > size_bytes {
            return Err(DiskError::Shrinks { virtual_bytes, wanted_bytes: size_bytes });
        }
        match (format, provisioning) {
            (DiskFormat::Raw, provisioning) => {
                let file = OpenOptions::new().write(true).open(path).map_err(at("open", path))?;
                match provisioning {
                    Provisioning::Thin => file.set_len(size_bytes).map_err(at("grow", path)),
                    Provisioning::Thick => allocate(&file, path, size_bytes),
                }
            }
            (DiskFormat::Qcow2, _) if virtual_bytes == size_bytes => Ok(()),
            (DiskFormat::Qcow2, _) => {
                let parent = path.parent().ok_or(DiskError::Size)?;
                let work = WorkDir::create(parent, self.settings.sandbox_user)?;
                let name = work.path.join(INPUT);
                fs::hard_link(path, &name).map_err(at("link", path))?;
                let meta = fs::metadata(path).map_err(at("look at", path))?;
                let user = self.settings.sandbox_user;
                chown(&name, Some(user.uid), Some(user.gid)).map_err(at("chown", path))?;
                let size = size_bytes.to_string();
                // The image below is not opened: its format and place are none of this program's business.
                let alone = format!(
                    r#"json:{{"driver":"qcow2","file":{{"driver":"file","filename":"{INPUT}"}},"backing":null}}"#
                );
                let arguments = ["resize", "-q", &alone, &size];
                let result = self.qemu_img(&arguments, &work.path, self.convert_limits(size_bytes), flag);
                chown(&name, Some(meta.uid()), Some(meta.gid())).map_err(at("chown", path))?;
                result.map(drop)
            }
        }
    }
}

/// Opens the files of a disk, and says how qemu-img finds the whole of it among the sandbox's further files. The graph
/// is spelled out: what a header says of other files does not count.
pub(super) fn opened(files: &[BackingFile]) -> Result<(String, Vec<File>), DiskError> {
    let mut graph = serde_json::Value::Null;
    for (place, file) in files.iter().enumerate().rev() {
        let below = graph;
        let filename = sandbox::extra_file_name(place);
        graph = serde_json::json!({
            "driver": file.format.as_str(),
            "file": {"driver": "file", "filename": filename},
        });
        if file.format == DiskFormat::Qcow2 {
            graph["backing"] = below;
        }
    }
    let open = |file: &BackingFile| File::open(&file.path).map_err(at("open", &file.path));
    Ok((format!("json:{graph}"), files.iter().map(open).collect::<Result<_, _>>()?))
}

/// Size of a disk as the guest sees it.
pub(super) fn top_facts(files: &[BackingFile]) -> Result<DiskFacts, DiskError> {
    let top = files.first().ok_or(DiskError::Size)?;
    facts(&top.path, top.format)
}

/// Gives a finished file to root and its name. Its directory is closed, so that anyone may read it who is handed it.
fn put_in_place(output: &Path, path: &Path, parent: &Path) -> Result<(), DiskError> {
    chown(output, Some(0), Some(0)).map_err(at("chown", output))?;
    fs::set_permissions(output, fs::Permissions::from_mode(0o644)).map_err(at("close", output))?;
    File::open(output).and_then(|file| file.sync_all()).map_err(at("flush", output))?;
    // A hard link, unlike a rename, never takes the place of another file.
    fs::hard_link(output, path).map_err(at("create", path))?;
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(at("flush", parent))
}

fn check_size(size_bytes: u64) -> Result<(), DiskError> {
    let fine = size_bytes > 0 && size_bytes <= VIRTUAL_BYTES_MAX && size_bytes.is_multiple_of(SECTOR_BYTES);
    if fine { Ok(()) } else { Err(DiskError::Size) }
}

/// Reads the size from the header of one of our own qcow2 files, without a program.
fn qcow2_virtual_bytes(path: &Path) -> Result<u64, DiskError> {
    let mut head = [0u8; 32];
    File::open(path).and_then(|file| file.read_exact_at(&mut head, 0)).map_err(at("read", path))?;
    if !head.starts_with(b"QFI\xfb") {
        return Err(FormatError::Damaged { format: "qcow2", what: "it is none" }.into());
    }
    Ok(u64::from_be_bytes(std::array::from_fn(|n| head[24 + n])))
}

pub(super) fn facts(path: &Path, format: DiskFormat) -> Result<DiskFacts, DiskError> {
    let meta = fs::metadata(path).map_err(at("look at", path))?;
    let virtual_bytes = match format {
        DiskFormat::Raw => meta.len(),
        DiskFormat::Qcow2 => qcow2_virtual_bytes(path)?,
    };
    Ok(DiskFacts { format, virtual_bytes, allocated_bytes: meta.blocks() * 512 })
}

/// Takes all of the space now, so that a full disk is told now.
fn allocate(file: &File, path: &Path, size_bytes: u64) -> Result<(), DiskError> {
    match fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::FBIG) => {
            Err(DiskError::NoRoom { path: path.to_path_buf(), size_bytes })
        }
        Err(errno) => Err(at("allocate", path)(errno.into())),
    }
}

/// Clones a file where the file system can; `false` where it cannot.
fn reflink(source: &Path, target: &Path) -> Result<bool, DiskError> {
    let from = File::open(source).map_err(at("open", source))?;
    let to = OpenOptions::new().write(true).create_new(true).open(target).map_err(at("create", target))?;
    match ioctl_ficlone(&to, &from) {
        Ok(()) => Ok(true),
        Err(_) => {
            fs::remove_file(target).map_err(at("remove", target))?;
            Ok(false)
        }
    }
}
