//! An image comes in: received with its hash, told by its bytes, examined and converted in the sandbox.
//!
//! Nothing gets its final name before all of that is done. What qemu-img reports is read as coming from a program
//! that a stranger's file may have taken over.

use super::{
    DiskError, DiskImage, DiskStore, Expect, INPUT, OUTPUT, SECTOR_BYTES, SENT, WorkDir, appliance, at,
};
use crate::{
    image::{
        cancel::{StopFlag, StoppableReader},
        compression::{decompress, is_compressed},
        disk_format::{self, DetectedFormat, FormatError, HEAD_BYTES, VIRTUAL_BYTES_MAX},
        sandbox::{SandboxError, SandboxLimits},
    },
    room::{CHECK_BYTES, Space},
};
use md5::Md5;
use model::{image::Hashes, image_digest::Digest, plan::DiskFormat};
use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha512};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

/// Bytes copied at a time; runs of zeros of this size become holes.
const COPY_BYTES: usize = 256 << 10;
/// Bytes that tell how a stream is compressed.
const MAGIC_BYTES: usize = 6;
/// Bytes between two tellings of progress.
const TELL_BYTES: u64 = 4 << 20;

impl DiskStore {
    pub(super) fn import_blocking(
        &self,
        id: model::id::ImageId,
        input: impl Read,
        expect: Expect,
        expected: Option<Digest>,
        told: &dyn Fn(u64),
        flag: &StopFlag,
    ) -> Result<DiskImage, DiskError> {
        let work = WorkDir::create(&self.images, self.settings.sandbox_user)?;
        let input_path = work.path.join(INPUT);
        let sums = self.receive(input, &work, expect, told, flag)?;
        let (digest, sent_bytes) = (sums.digest, sums.count);
        if let Some(expected) = expected
            && expected != digest
        {
            return Err(DiskError::Mismatch { expected, actual: digest });
        }
        // Everyone may read it, and nobody gets there: the directory is closed, the sandbox is put inside.
        fs::set_permissions(&input_path, fs::Permissions::from_mode(0o444))
            .map_err(at("open up", &input_path))?;
        let (file, format, detected, virtual_bytes) = match expect {
            Expect::Bytes | Expect::Archive => {
                (input_path.clone(), DiskFormat::Raw, DetectedFormat::Raw, sent_bytes)
            }
            Expect::Disk => {
                self.open_appliance(&work, flag)?;
                self.examine(&work, input_path.clone(), flag)?
            }
        };
        File::open(&file).and_then(|file| file.sync_all()).map_err(at("flush", &file))?;
        let dir = self.images.join(id.to_string());
        let _ = fs::remove_dir_all(&dir);
        let place = work.path.join("image");
        DirBuilder::new().mode(0o700).create(&place).map_err(at("create", &place))?;
        let name = if expect == Expect::Archive { SENT.to_string() } else { super::file_name(format) };
        keep_what_was_sent(&work.path, &file, &place)?;
        fs::rename(&file, place.join(&name)).map_err(at("rename", &file))?;
        fs::rename(&place, &dir).map_err(at("rename", &place))?;
        File::open(&*self.images).and_then(|dir| dir.sync_all()).map_err(at("flush", &self.images))?;
        let path = dir.join(name);
        let allocated_bytes = fs::metadata(&path).map_err(at("look at", &path))?.blocks() * 512;
        let hashes = sums.hashes;
        Ok(DiskImage { path, format, detected, digest, hashes, sent_bytes, virtual_bytes, allocated_bytes })
    }

    /// Writes the stream to a file: the hashes are of what was sent, the file has it unpacked, zeros become holes.
    /// What was compressed is kept as it came, too.
    fn receive(
        &self,
        input: impl Read,
        work: &WorkDir,
        expect: Expect,
        told: &dyn Fn(u64),
        flag: &StopFlag,
    ) -> Result<Sums, DiskError> {
        let path = &work.path.join(INPUT);
        let mut input = StoppableReader::new(input, flag.clone());
        let mut magic = Vec::with_capacity(MAGIC_BYTES);
        Read::by_ref(&mut input)
            .take(MAGIC_BYTES as u64)
            .read_to_end(&mut magic)
            .map_err(at("receive", path))?;
        let copy = if expect == Expect::Disk && is_compressed(&magic) {
            let path = work.path.join(SENT);
            Some(OpenOptions::new().write(true).create_new(true).open(&path).map_err(at("create", &path))?)
        } else {
            None
        };
        let mut sent = Hashed::new(io::Cursor::new(magic).chain(input), copy);
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(path).map_err(at("create", path))?;
        let size_bytes_max = self.settings.image_bytes_max;
        {
            // A compressed kernel stays compressed; a compressed disk is of no use.
            let mut plain: Box<dyn Read> = match expect {
                Expect::Disk => decompress_disk(&mut sent)?,
                Expect::Bytes | Expect::Archive => Box::new(&mut sent),
            };
            let written = copy_sparse(&mut plain, &mut file, path, size_bytes_max, told)?;
            file.set_len(written).map_err(at("write", path))?;
        }
        // What follows the last compressed member was sent too.
        io::copy(&mut sent, &mut io::sink()).map_err(at("read", path))?;
        sent.finish().map_err(at("write", path))
    }

    /// Puts the disk of an appliance in the place of the appliance.
    fn open_appliance(&self, work: &WorkDir, flag: &StopFlag) -> Result<(), DiskError> {
        let (archive, sent, disk) = (work.path.join(INPUT), work.path.join(SENT), work.path.join("disk"));
        if !appliance::is_appliance(&archive)? {
            return Ok(());
        }
        appliance::take_disk(&archive, &disk, self.settings.image_bytes_max, flag)?;
        // A compressed appliance was kept as it was sent already.
        if fs::symlink_metadata(&sent).is_err() {
            fs::rename(&archive, &sent).map_err(at("rename", &archive))?;
        }
        fs::rename(&disk, &archive).map_err(at("rename", &disk))?;
        fs::set_permissions(&archive, fs::Permissions::from_mode(0o444)).map_err(at("open up", &archive))
    }

    /// Looks at a disk, first by our own eyes, then by qemu-img's; converts what VMs are not given.
    fn examine(
        &self,
        work: &WorkDir,
        input: PathBuf,
        flag: &StopFlag,
    ) -> Result<(PathBuf, DiskFormat, DetectedFormat, u64), DiskError> {
        let detected = detect_file(&input)?;
        match detected {
            // Nothing in a raw disk means anything to us.
            DetectedFormat::Raw | DetectedFormat::Iso => {
                let size = fs::metadata(&input).map_err(at("look at", &input))?.len();
                let virtual_bytes = size.next_multiple_of(SECTOR_BYTES);
                if virtual_bytes != size {
                    let file = OpenOptions::new().write(true).open(&input).map_err(at("open", &input))?;
                    file.set_len(virtual_bytes).map_err(at("pad", &input))?;
                }
                Ok((input, DiskFormat::Raw, detected, virtual_bytes))
            }
            _ => {
                let report = self.report(work, detected.qemu_name(), flag)?;
                let virtual_bytes = report.virtual_size;
                if virtual_bytes > VIRTUAL_BYTES_MAX {
                    let virtual_bytes_max = VIRTUAL_BYTES_MAX;
                    return Err(FormatError::TooLarge { virtual_bytes, virtual_bytes_max }.into());
                }
                self.check_tables(work, detected.qemu_name(), flag)?;
                if detected == DetectedFormat::Qcow2 {
                    return Ok((input, DiskFormat::Qcow2, detected, virtual_bytes));
                }
                let limits = self.convert_limits(virtual_bytes);
                let from = detected.qemu_name();
                let arguments = ["convert", "-f", from, "-O", "qcow2", INPUT, OUTPUT];
                self.qemu_img(&arguments, &work.path, limits, flag)?;
                let output = work.path.join(OUTPUT);
                chown(&output, Some(0), Some(0)).map_err(at("chown", &output))?;
                fs::set_permissions(&output, fs::Permissions::from_mode(0o444))
                    .map_err(at("close", &output))?;
                Ok((output, DiskFormat::Qcow2, detected, virtual_bytes))
            }
        }
    }

    /// Walks the tables of an image: a cut or damaged one is refused now, not when a guest reads it.
    fn check_tables(&self, work: &WorkDir, format: &str, flag: &StopFlag) -> Result<(), DiskError> {
        /// Space is lost, data is not.
        const ONLY_LEAKS: i32 = 3;
        /// The format has no tables that could be checked.
        const NOT_SUPPORTED: i32 = 63;
        let limits = SandboxLimits { file_bytes_max: 0, ..self.convert_limits(0) };
        match self.qemu_img(&["check", "-q", "-f", format, INPUT], &work.path, limits, flag) {
            Err(DiskError::Sandbox(SandboxError::Refused {
                code: Some(ONLY_LEAKS | NOT_SUPPORTED), ..
            })) => Ok(()),
            result => result.map(drop),
        }
    }

    fn report(&self, work: &WorkDir, format: &str, flag: &StopFlag) -> Result<Report, DiskError> {
        let limits = SandboxLimits {
            timeout: self.settings.ask_timeout,
            memory_bytes_max: 1 << 30,
            cpu_s_max: self.settings.ask_timeout.as_secs().max(1),
            file_bytes_max: 0,
        };
        let output =
            self.qemu_img(&["info", "--output=json", "-f", format, INPUT], &work.path, limits, flag)?;
        let report: Report = serde_json::from_slice(&output).map_err(DiskError::Report)?;
        report.check()?;
        Ok(report)
    }
}

/// What `qemu-img info` says, as far as it matters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    virtual_size: u64,
    #[serde(default)]
    backing_filename: Option<String>,
    #[serde(default)]
    full_backing_filename: Option<String>,
    #[serde(default)]
    encrypted: bool,
    #[serde(default)]
    format_specific: Option<serde_json::Value>,
}

impl Report {
    /// The second look: no backing file, no data file, no extent that is another file.
    fn check(&self) -> Result<(), DiskError> {
        if let Some(name) = self.backing_filename.as_ref().or(self.full_backing_filename.as_ref()) {
            return Err(DiskError::External(name.chars().take(100).collect()));
        }
        if self.encrypted {
            return Err(FormatError::Encrypted("disk").into());
        }
        let data = self.format_specific.as_ref().and_then(|specific| specific.get("data"));
        if let Some(name) = data.and_then(|data| data.get("data-file")).and_then(|name| name.as_str()) {
            return Err(DiskError::External(name.chars().take(100).collect()));
        }
        let extents = data.and_then(|data| data.get("extents")).and_then(|extents| extents.as_array());
        for extent in extents.into_iter().flatten() {
            let name = extent.get("filename").and_then(|name| name.as_str()).unwrap_or_default();
            if name != INPUT {
                return Err(DiskError::External(name.chars().take(100).collect()));
            }
        }
        Ok(())
    }
}

fn detect_file(path: &Path) -> Result<DetectedFormat, DiskError> {
    let mut file = File::open(path).map_err(at("open", path))?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    Read::by_ref(&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(at("read", path))?;
    let size = file.metadata().map_err(at("look at", path))?.len();
    let mut tail = [0u8; 512];
    if size >= 512 {
        file.read_exact_at(&mut tail, size - 512).map_err(at("read", path))?;
    }
    Ok(disk_format::detect(&head, &tail)?)
}

/// Puts the file as it was sent beside the one that VMs stand on, where the two differ: who downloads the image gets
/// the bytes whose hashes are told.
fn keep_what_was_sent(work: &Path, file: &Path, place: &Path) -> Result<(), DiskError> {
    let (input, mut sent) = (work.join(INPUT), work.join(SENT));
    if fs::symlink_metadata(&sent).is_err() {
        if file == input {
            return Ok(());
        }
        sent = input;
    }
    fs::set_permissions(&sent, fs::Permissions::from_mode(0o400)).map_err(at("close", &sent))?;
    File::open(&sent).and_then(|file| file.sync_all()).map_err(at("flush", &sent))?;
    fs::rename(&sent, place.join(SENT)).map_err(at("rename", &sent))
}

/// What is known of a stream at its end.
pub(super) struct Sums {
    pub digest: Digest,
    pub hashes: Hashes,
    pub count: u64,
}

/// A stream whose bytes are hashed, and written to a copy if there is one, as they are read.
pub(super) struct Hashed<R> {
    input: R,
    sha256: Sha256,
    sha512: Sha512,
    md5: Md5,
    count: u64,
    copy: Option<File>,
}

impl<R> Hashed<R> {
    pub(super) fn new(input: R, copy: Option<File>) -> Self {
        Self { input, sha256: Sha256::new(), sha512: Sha512::new(), md5: Md5::new(), count: 0, copy }
    }

    pub(super) fn finish(self) -> io::Result<Sums> {
        if let Some(copy) = self.copy {
            copy.sync_all()?;
        }
        Ok(Sums {
            digest: Digest::from_bytes(self.sha256.finalize().into()),
            hashes: Hashes {
                md5: format!("{:x}", self.md5.finalize()),
                sha512: format!("{:x}", self.sha512.finalize()),
            },
            count: self.count,
        })
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let bytes = &buffer[..count];
        self.sha256.update(bytes);
        self.sha512.update(bytes);
        self.md5.update(bytes);
        self.count += count as u64;
        if let Some(copy) = &mut self.copy {
            copy.write_all(bytes)?;
        }
        Ok(count)
    }
}

/// Unpacks gzip and zstd; xz and bzip2 go on to be refused by name.
fn decompress_disk<'a>(input: &'a mut (impl Read + 'a)) -> Result<Box<dyn Read + 'a>, DiskError> {
    Ok(decompress(input)?)
}

pub(super) fn copy_sparse(
    input: &mut dyn Read,
    file: &mut File,
    path: &Path,
    size_bytes_max: u64,
    told: &dyn Fn(u64),
) -> Result<u64, DiskError> {
    let mut buffer = vec![0; COPY_BYTES];
    let (mut written, mut next_telling, mut next_look) = (0u64, 0u64, 0u64);
    loop {
        let mut filled = 0;
        while filled < COPY_BYTES {
            match input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(at("receive", path)(error)),
            }
        }
        if filled == 0 {
            told(written);
            return Ok(written);
        }
        let chunk = &buffer[..filled];
        if written >= next_look {
            next_look = written + CHECK_BYTES;
            let space = Space::around(&*file).map_err(at("look at the free space of", path))?;
            // What is empty takes nothing, so nobody knows how much is to come: only the next stretch is asked for.
            space
                .holds(filled as u64)
                .map_err(|source| DiskError::Short { path: path.to_path_buf(), source })?;
        }
        if written + filled as u64 > size_bytes_max {
            return Err(DiskError::TooLarge { size_bytes_max });
        }
        if chunk.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Current(filled as i64)).map_err(at("write", path))?;
        } else {
            match file.write_all(chunk) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    return Err(DiskError::NoRoom { path: path.to_path_buf(), size_bytes: written });
                }
                other => other.map_err(at("write", path))?,
            }
        }
        written += filled as u64;
        if written >= next_telling {
            told(written);
            next_telling = written + TELL_BYTES;
        }
    }
}
