//! Archives of the kind that kernels unpack into their first file system: cpio, the "new ASCII" form.
//!
//! Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Directories are made before what is in
//! them, everything belongs to root, and times are all zero, so that the same input gives the same bytes.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    path::Path,
};

const MAGIC: &str = "070701";
/// Entries and bodies begin at multiples of this.
const ALIGNMENT: u64 = 4;
/// Largest file that the form can tell of.
const FILE_BYTES_MAX: u64 = u32::MAX as u64;

/// What an entry is, as bits of its mode.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Directory = 0o040_000,
    File = 0o100_000,
    CharacterDevice = 0o020_000,
}

/// An archive that is being written.
#[derive(Debug)]
pub(super) struct Archive<W> {
    output: W,
    /// Directories that are there.
    made: BTreeSet<String>,
    /// Number of the next entry: with the same number files would be links of each other.
    number: u32,
}

impl<W: Write> Archive<W> {
    /// An archive without anything.
    pub fn new(output: W) -> Self {
        Self { output, made: BTreeSet::new(), number: 1 }
    }

    /// A directory, and those above it.
    pub fn directory(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let name = name_of(path)?;
        self.parents(path)?;
        if self.made.insert(name.clone()) {
            self.entry(&name, Kind::Directory, mode, 0, (0, 0))?;
        }
        Ok(())
    }

    /// A character device.
    pub fn device(&mut self, path: &Path, mode: u32, numbers: (u32, u32)) -> io::Result<()> {
        self.parents(path)?;
        self.entry(&name_of(path)?, Kind::CharacterDevice, mode, 0, numbers)
    }

    /// A file of exactly `size` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when the content is shorter.
    pub fn file(&mut self, path: &Path, mode: u32, size: u64, content: &mut impl Read) -> io::Result<()> {
        if size > FILE_BYTES_MAX {
            let what = format!("{} is larger than an archive can hold", path.display());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        self.parents(path)?;
        self.entry(&name_of(path)?, Kind::File, mode, size, (0, 0))?;
        if io::copy(&mut content.take(size), &mut self.output)? != size {
            let what = format!("{} is shorter than it was", path.display());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.pad(size)
    }

    /// Ends the archive and sees that all of it is written.
    pub fn finish(&mut self) -> io::Result<()> {
        self.header("TRAILER!!!", 0, 1, 0, (0, 0))?;
        self.output.flush()
    }

    fn parents(&mut self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if parent.file_name().is_some() => self.directory(parent, 0o755),
            _ => Ok(()),
        }
    }

    fn entry(&mut self, name: &str, kind: Kind, mode: u32, size: u64, numbers: (u32, u32)) -> io::Result<()> {
        let links = if matches!(kind, Kind::Directory) { 2 } else { 1 };
        self.header(name, kind as u32 | mode, links, size, numbers)
    }

    fn header(
        &mut self,
        name: &str,
        mode: u32,
        links: u32,
        size: u64,
        (major, minor): (u32, u32),
    ) -> io::Result<()> {
        let name_bytes = name.len() as u64 + 1;
        // Number, mode, owner, group, links, time, size, device, number of the device, length of the name, checksum.
        let fields = [
            u64::from(self.number),
            mode.into(),
            0,
            0,
            links.into(),
            0,
            size,
            0,
            0,
            major.into(),
            minor.into(),
            name_bytes,
            0,
        ];
        self.number += 1;
        let mut text = String::from(MAGIC);
        for field in fields {
            text.push_str(&format!("{field:08x}"));
        }
        text.push_str(name);
        text.push('\0');
        self.output.write_all(text.as_bytes())?;
        self.pad(text.len() as u64)
    }

    /// Every entry begins at the alignment, so what was written of it tells what is missing.
    fn pad(&mut self, written: u64) -> io::Result<()> {
        let missing = written.next_multiple_of(ALIGNMENT) - written;
        self.output.write_all(&[0; ALIGNMENT as usize][..missing as usize])
    }
}

/// A path as the archive has it: without the slash before it.
fn name_of(path: &Path) -> io::Result<String> {
    let name = path.strip_prefix("/").unwrap_or(path).to_str().filter(|name| !name.is_empty());
    name.map(String::from).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} cannot be archived", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn archive() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.directory(Path::new("/proc"), 0o555).expect("written");
        archive.device(Path::new("/dev/console"), 0o600, (5, 1)).expect("written");
        archive.file(Path::new("/a/b/hello"), 0o755, 6, &mut &b"hello\n"[..]).expect("written");
        archive.file(Path::new("/a/b/empty"), 0o644, 0, &mut io::empty()).expect("written");
        archive.finish().expect("finished");
        bytes
    }

    #[test]
    fn cpio_reads_what_is_written() {
        let mut cpio = Command::new("cpio")
            .args(["--quiet", "-tvn"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio is installed");
        cpio.stdin.take().expect("a pipe").write_all(&archive()).expect("written");
        let output = cpio.wait_with_output().expect("it ends");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("text");
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let seen: Vec<(&str, &str)> =
            lines.iter().map(|fields| (fields[0], *fields.last().expect("a name"))).collect();
        assert_eq!(
            seen,
            [
                ("dr-xr-xr-x", "proc"),
                ("drwxr-xr-x", "dev"),
                ("crw-------", "dev/console"),
                ("drwxr-xr-x", "a"),
                ("drwxr-xr-x", "a/b"),
                ("-rwxr-xr-x", "a/b/hello"),
                ("-rw-r--r--", "a/b/empty"),
            ]
        );
        assert_eq!(lines[5][4], "6");
        assert_eq!(lines[2][4..6], ["5,", "1"]);
    }

    #[test]
    fn entries_are_aligned_and_the_same_input_gives_the_same_bytes() {
        let bytes = archive();
        assert_eq!(bytes, archive());
        assert_eq!(bytes.len() % ALIGNMENT as usize, 0);
        for at in bytes.windows(MAGIC.len()).enumerate().filter(|(_, it)| *it == MAGIC.as_bytes()) {
            assert_eq!(at.0 % ALIGNMENT as usize, 0);
        }
    }

    #[test]
    fn a_file_that_shrank_and_a_name_that_is_none_are_refused() {
        let mut archive = Archive::new(Vec::new());
        let error = archive.file(Path::new("/a"), 0o644, 9, &mut &b"short"[..]).expect_err("short");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(archive.directory(Path::new("/"), 0o755).is_err());
        let error = archive.file(Path::new("/a"), 0o644, 1 << 32, &mut io::empty()).expect_err("large");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
