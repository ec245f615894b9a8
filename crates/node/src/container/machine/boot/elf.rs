//! What is read of ELF files (64 bits, little-endian): which libraries a program needs and how much of its file is ever
//! loaded, and what a kernel module says of itself.
//!
//! Source: elf(5). Everything in a file is a claim: offsets and sizes are checked, and nothing large is read that is not
//! asked for.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const MAGIC: [u8; 4] = *b"\x7fELF";
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
const SECTION_HEADER_BYTES: u64 = 64;
/// Most bytes of a table that is read whole.
const TABLE_BYTES_MAX: u64 = 16 << 20;
/// Kinds of segments.
const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
/// Kinds of dynamic entries.
const NEEDED: u64 = 1;
const STRING_TABLE: u64 = 5;
const STRING_TABLE_BYTES: u64 = 10;
const RUN_PATH_OLD: u64 = 15;
const RUN_PATH: u64 = 29;
/// Where the header tells of sections: offset of their table; how many they are and which one has their names.
const SECTIONS_AT: std::ops::Range<usize> = 0x28..0x30;
const SECTIONS_COUNT: std::ops::Range<usize> = 0x3c..0x40;

/// Where the bytes of an ELF file are.
trait Source {
    /// So many bytes from an offset.
    fn part(&self, at: u64, count: u64) -> io::Result<Vec<u8>>;
}

impl Source for File {
    fn part(&self, at: u64, count: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; checked(count)?];
        self.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

impl Source for [u8] {
    fn part(&self, at: u64, count: u64) -> io::Result<Vec<u8>> {
        let start = usize::try_from(at).map_err(|_| broken("an offset"))?;
        let end = start.checked_add(checked(count)?).ok_or_else(|| broken("an offset"))?;
        self.get(start..end).map(<[u8]>::to_vec).ok_or_else(|| broken("an offset"))
    }
}

fn checked(count: u64) -> io::Result<usize> {
    if count > TABLE_BYTES_MAX {
        return Err(broken("a size"));
    }
    Ok(count as usize)
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} in it is not as in an ELF file of 64 bits"))
}

/// A number of 2, 4 or 8 bytes.
fn number(bytes: &[u8], at: usize, count: usize) -> io::Result<u64> {
    let field = bytes.get(at..at + count).ok_or_else(|| broken("a table"))?;
    Ok(field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// The text that ends at the next NUL byte.
fn text(bytes: &[u8], at: u64) -> io::Result<String> {
    let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).ok_or_else(|| broken("a name"))?;
    let end = rest.iter().position(|byte| *byte == 0).ok_or_else(|| broken("a name"))?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

/// A program or a library, as far as running it goes.
#[derive(Debug)]
pub(super) struct Program {
    /// The program that loads its libraries; `None` for a library, and for a program without any.
    pub interpreter: Option<PathBuf>,
    /// Names of the libraries that it needs itself.
    pub needed: Vec<String>,
    /// Directories in which they are looked for first.
    pub run_paths: Vec<PathBuf>,
    /// Processor, as the format numbers them.
    pub machine: u64,
    /// Bytes of the file that are loaded: what debuggers read lies behind.
    pub loaded_bytes: u64,
    header: Vec<u8>,
    file: File,
}

/// A part of the file that is loaded.
#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
}

impl Program {
    /// Reads what it says of itself.
    ///
    /// # Errors
    /// `InvalidData` for a file of another kind.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let header = header(&file)?;
        let segments = segments(&file, &header)?;
        let ends = segments.iter().filter(|it| it.kind == LOAD).map(|it| it.offset + it.file_bytes);
        let mut program = Self {
            interpreter: None,
            needed: Vec::new(),
            run_paths: Vec::new(),
            machine: number(&header, 0x12, 2)?,
            loaded_bytes: ends.max().ok_or_else(|| broken("nothing to load"))?,
            header,
            file,
        };
        for segment in &segments {
            match segment.kind {
                INTERPRETER => {
                    let bytes = program.file.part(segment.offset, segment.file_bytes)?;
                    program.interpreter = Some(text(&bytes, 0)?.into());
                }
                DYNAMIC => program.read_dynamic(*segment, &segments)?,
                _ => {}
            }
        }
        Ok(program)
    }

    fn read_dynamic(&mut self, segment: Segment, segments: &[Segment]) -> io::Result<()> {
        let table = self.file.part(segment.offset, segment.file_bytes)?;
        let entries: Vec<(u64, u64)> = table
            .chunks_exact(16)
            .map(|entry| Ok((number(entry, 0, 8)?, number(entry, 8, 8)?)))
            .take_while(|entry| !matches!(entry, Ok((0, _))))
            .collect::<io::Result<_>>()?;
        let value = |wanted: u64| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
        let (Some(address), Some(bytes)) = (value(STRING_TABLE), value(STRING_TABLE_BYTES)) else {
            return Ok(());
        };
        let holds = |it: &&Segment| {
            it.kind == LOAD && (it.address..it.address.saturating_add(it.file_bytes)).contains(&address)
        };
        let place = segments.iter().find(holds).ok_or_else(|| broken("the place of names"))?;
        let names = self.file.part(place.offset + (address - place.address), bytes)?;
        for (tag, value) in &entries {
            match *tag {
                NEEDED => self.needed.push(text(&names, *value)?),
                RUN_PATH | RUN_PATH_OLD => {
                    self.run_paths.extend(text(&names, *value)?.split(':').map(PathBuf::from));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The file as far as it is loaded, with a header that tells of no more: [`Self::loaded_bytes`] bytes. It runs as the
    /// whole does.
    pub fn loaded(&self) -> io::Result<impl Read> {
        let mut header = self.header.clone();
        header[SECTIONS_AT].fill(0);
        header[SECTIONS_COUNT].fill(0);
        let mut file = self.file.try_clone()?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(HEADER_BYTES as u64))?;
        Ok(io::Cursor::new(header).chain(file.take(self.loaded_bytes.saturating_sub(HEADER_BYTES as u64))))
    }
}

fn header(source: &(impl Source + ?Sized)) -> io::Result<Vec<u8>> {
    let header = source.part(0, HEADER_BYTES as u64)?;
    // 64 bits, little-endian.
    if header[..4] != MAGIC || header[4..6] != [2, 1] {
        return Err(broken("the beginning"));
    }
    Ok(header)
}

fn segments(source: &(impl Source + ?Sized), header: &[u8]) -> io::Result<Vec<Segment>> {
    let (at, size, count) = (number(header, 0x20, 8)?, number(header, 0x36, 2)?, number(header, 0x38, 2)?);
    if size != PROGRAM_HEADER_BYTES {
        return Err(broken("the table of segments"));
    }
    let table = source.part(at, size * count)?;
    let read = |entry: &[u8]| {
        let segment = Segment {
            kind: number(entry, 0, 4)? as u32,
            offset: number(entry, 8, 8)?,
            address: number(entry, 16, 8)?,
            file_bytes: number(entry, 32, 8)?,
        };
        segment.offset.checked_add(segment.file_bytes).ok_or_else(|| broken("a segment"))?;
        Ok(segment)
    };
    table.chunks_exact(PROGRAM_HEADER_BYTES as usize).map(read).collect()
}

/// Whether a file has a note of this name (with the NUL byte at its end) and number.
///
/// # Errors
/// `InvalidData` for a file of another kind.
pub(super) fn has_note(file: &[u8], (name, kind): (&[u8], u32)) -> io::Result<bool> {
    const NOTES: u32 = 4;
    let header = header(file)?;
    for segment in segments(file, &header)?.iter().filter(|it| it.kind == NOTES) {
        let notes = file.part(segment.offset, segment.file_bytes)?;
        let mut at = 0;
        // Length of the name, length of what it says, number; both parts end at a multiple of 4.
        while at + 12 <= notes.len() {
            let lengths = (number(&notes, at, 4)? as usize, number(&notes, at + 4, 4)? as usize);
            let named = notes[at + 12..].starts_with(name) && lengths.0 == name.len();
            if named && number(&notes, at + 8, 4)? == u64::from(kind) {
                return Ok(true);
            }
            at += 12 + lengths.0.next_multiple_of(4) + lengths.1.next_multiple_of(4);
        }
    }
    Ok(false)
}

/// Names of the modules that a kernel module (its whole file, not compressed) depends on.
///
/// # Errors
/// `InvalidData` for a file of another kind.
pub(super) fn module_depends(module: &[u8]) -> io::Result<Vec<String>> {
    let information = section(module, ".modinfo")?;
    let depends = information.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"depends="));
    let depends = String::from_utf8_lossy(depends.unwrap_or_default()).into_owned();
    Ok(depends.split(',').filter(|name| !name.is_empty()).map(String::from).collect())
}

/// The bytes of a section.
fn section(file: &[u8], wanted: &str) -> io::Result<Vec<u8>> {
    let header = header(file)?;
    let (at, size, count) = (number(&header, 0x28, 8)?, number(&header, 0x3a, 2)?, number(&header, 0x3c, 2)?);
    let names_index = number(&header, 0x3e, 2)? as usize;
    if size != SECTION_HEADER_BYTES || names_index >= count as usize {
        return Err(broken("the table of sections"));
    }
    let table = file.part(at, size * count)?;
    let entries: Vec<&[u8]> = table.chunks_exact(SECTION_HEADER_BYTES as usize).collect();
    let content = |entry: &[u8]| file.part(number(entry, 24, 8)?, number(entry, 32, 8)?);
    let names = content(entries[names_index])?;
    for entry in entries {
        if text(&names, number(entry, 0, 4)?)? == wanted {
            return content(entry);
        }
    }
    Err(broken(&format!("the section {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::PermissionsExt, process::Command};

    #[test]
    fn a_program_cut_to_what_is_loaded_runs_as_the_whole_does() {
        // This test itself: a program with all that debuggers want.
        let path = std::env::current_exe().expect("a program");
        let program = Program::open(&path).expect("an ELF file");
        let whole = std::fs::metadata(&path).expect("a file").len();
        assert!(program.loaded_bytes < whole, "{} of {whole}", program.loaded_bytes);
        assert!(program.needed.iter().any(|name| name.starts_with("libc.so")), "{:?}", program.needed);
        assert!(program.interpreter.is_some());

        let directory = tempfile::tempdir().expect("a directory");
        let cut = directory.path().join("cut");
        let mut file = File::create(&cut).expect("made");
        let copied = io::copy(&mut program.loaded().expect("read"), &mut file).expect("copied");
        assert_eq!(copied, program.loaded_bytes);
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).expect("set");
        drop(file);
        let output = Command::new(&cut).args(["--list", "--exact", "nothing::of_this_name"]).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(Program::open(&cut).expect("an ELF file").needed, program.needed);
    }

    /// An object with sections: none, `.modinfo`, and their names.
    fn module(information: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut file = vec![0; HEADER_BYTES];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut section = |name: u32, content: &[u8]| {
            let mut entry = vec![0_u8; SECTION_HEADER_BYTES as usize];
            entry[..4].copy_from_slice(&name.to_le_bytes());
            entry[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
            entry[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
            file.extend(content);
            entry
        };
        let table = [section(0, b""), section(1, information), section(10, names)].concat();
        let at = file.len() as u64;
        file.extend(table);
        file[0x28..0x30].copy_from_slice(&at.to_le_bytes());
        file[0x3a..0x3c].copy_from_slice(&(SECTION_HEADER_BYTES as u16).to_le_bytes());
        file[0x3c..0x3e].copy_from_slice(&3_u16.to_le_bytes());
        file[0x3e..0x40].copy_from_slice(&2_u16.to_le_bytes());
        file
    }

    #[test]
    fn a_module_tells_what_it_depends_on() {
        let depends = |text: &[u8]| module_depends(&module(text)).expect("a module");
        assert_eq!(depends(b"license=GPL\0depends=virtio,virtio_ring\0"), ["virtio", "virtio_ring"]);
        assert!(depends(b"license=GPL\0depends=\0").is_empty());
        assert!(depends(b"license=GPL\0").is_empty());
    }

    #[test]
    fn files_that_claim_what_is_not_so_are_refused() {
        let good = module(b"depends=a\0");
        for length in 0..good.len() {
            assert!(module_depends(&good[..length]).is_err(), "cut to {length}");
        }
        // Whatever a byte of the header becomes, the answer is a value or an error.
        for at in 0..HEADER_BYTES {
            let mut bad = good.clone();
            bad[at] = 0xff;
            let _ = module_depends(&bad);
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("text");
        std::fs::write(&path, "no program at all, but a text that is longer than a header of one would be")
            .expect("written");
        assert_eq!(Program::open(&path).expect_err("a text").kind(), io::ErrorKind::InvalidData);
    }
}
