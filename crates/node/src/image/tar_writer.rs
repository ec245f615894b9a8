//! A tar writer for what is read from containers: streaming, with names and ids as they are.
//!
//! Ustar headers, and pax records for what does not fit into them: long names, large numbers, extended attributes
//! (POSIX.1-2017 "pax", "ustar Interchange Format"). Names are written as they are given: docker's clients expect some
//! that begin with a slash.

use super::tar::{Entry, Kind};
use std::io::{self, Read, Write};

const BLOCK_BYTES: usize = 512;
const NAME_BYTES: usize = 100;
/// Largest number of seven octal digits: modes and ids.
const SHORT_NUMBER_MAX: u64 = 0o7_777_777;
/// Largest number of eleven octal digits: sizes and times.
const LONG_NUMBER_MAX: u64 = 0o77_777_777_777;
const COPY_BYTES: usize = 128 << 10;

/// Writes entries one by one.
#[derive(Debug)]
pub struct TarWriter<W> {
    output: W,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Writes an archive to `output`.
    pub fn new(output: W) -> Self {
        Self { output, buffer: vec![0; COPY_BYTES] }
    }

    /// Writes an entry without content.
    ///
    /// # Errors
    /// The output's.
    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        self.header(entry, 0)
    }

    /// Writes a file with exactly the size that its entry has: of content that is longer the beginning, and zeros behind
    /// one that ends early, as tar(1) does with files that change while they are read.
    ///
    /// # Errors
    /// The output's, or the content's.
    pub fn add_file(&mut self, entry: &Entry, content: &mut impl Read) -> io::Result<()> {
        self.header(entry, entry.size_bytes)?;
        let mut left = entry.size_bytes;
        let mut ended = false;
        while left > 0 {
            let wanted = left.min(COPY_BYTES as u64) as usize;
            let count = if ended { 0 } else { read_some(content, &mut self.buffer[..wanted])? };
            let count = if count == 0 {
                ended = true;
                self.buffer[..wanted].fill(0);
                wanted
            } else {
                count
            };
            self.output.write_all(&self.buffer[..count])?;
            left -= count as u64;
        }
        self.pad(entry.size_bytes)
    }

    /// Ends without the archive's end: another part of it follows.
    ///
    /// # Errors
    /// The output's.
    pub fn flush(mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// Writes the end of the archive, and gives the output back.
    ///
    /// # Errors
    /// The output's.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn header(&mut self, entry: &Entry, size: u64) -> io::Result<()> {
        let records = pax_records(entry, size);
        if !records.is_empty() {
            let about = Entry { path: b"PaxHeader".to_vec(), link: vec![], mode: 0o644, ..entry.clone() };
            self.output.write_all(&block(&about, b'x', records.len() as u64))?;
            self.output.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.output.write_all(&block(entry, type_flag(entry.kind), size))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK_BYTES as u64) as usize;
        if over == 0 { Ok(()) } else { self.output.write_all(&[0; BLOCK_BYTES][over..]) }
    }
}

fn read_some(content: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match content.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn type_flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// What the header has no room for.
fn pax_records(entry: &Entry, size: u64) -> Vec<u8> {
    let mut records = vec![];
    let mut put = |key: &[u8], value: &[u8]| {
        // The length counts its own digits (POSIX.1-2017, "pax Header Block").
        let bare = key.len() + value.len() + 3;
        let mut length = bare + 1;
        while length != bare + length.to_string().len() {
            length = bare + length.to_string().len();
        }
        records.extend_from_slice(format!("{length} ").as_bytes());
        records.extend_from_slice(key);
        records.push(b'=');
        records.extend_from_slice(value);
        records.push(b'\n');
    };
    if entry.path.len() > NAME_BYTES {
        put(b"path", &entry.path);
    }
    if entry.link.len() > NAME_BYTES {
        put(b"linkpath", &entry.link);
    }
    for (key, number, max) in [
        ("uid", entry.uid, SHORT_NUMBER_MAX),
        ("gid", entry.gid, SHORT_NUMBER_MAX),
        ("size", size, LONG_NUMBER_MAX),
    ] {
        if number > max {
            put(key.as_bytes(), number.to_string().as_bytes());
        }
    }
    for (name, value) in &entry.xattrs {
        put(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

fn block(entry: &Entry, flag: u8, size: u64) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut text = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let cut = |bytes: &[u8]| bytes[..bytes.len().min(NAME_BYTES)].to_vec();
    let octal = |number: u64, digits: usize, max: u64| {
        let number = if number > max { 0 } else { number };
        format!("{number:0digits$o}\0").into_bytes()
    };
    text(0, &cut(&entry.path));
    text(100, &octal(entry.mode.into(), 7, SHORT_NUMBER_MAX));
    text(108, &octal(entry.uid, 7, SHORT_NUMBER_MAX));
    text(116, &octal(entry.gid, 7, SHORT_NUMBER_MAX));
    text(124, &octal(size, 11, LONG_NUMBER_MAX));
    text(136, &octal(u64::try_from(entry.mtime.0).unwrap_or(0), 11, LONG_NUMBER_MAX));
    // The checksum counts its own field as spaces.
    text(148, b"        ");
    text(156, &[flag]);
    text(157, &cut(&entry.link));
    text(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::{super::tar::TarReader, *};

    fn entry(path: &[u8], kind: Kind) -> Entry {
        Entry {
            path: path.to_vec(),
            link: vec![],
            kind,
            mode: 0o4755,
            uid: 7,
            gid: 8,
            size_bytes: 0,
            mtime: (1_700_000_000, 0),
            xattrs: vec![],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let long = [b"/deep/".as_slice(), &[b'n'; 300]].concat();
        let mut all =
            vec![entry(b"/", Kind::Directory), entry(&long, Kind::File), entry(b"l", Kind::Symlink)];
        all[1].size_bytes = 5;
        all[1].uid = 1 << 31;
        all[1].xattrs = vec![(b"security.capability".to_vec(), vec![0, b'\n', b'=', 255])];
        all[2].link = vec![b't'; 150];
        let mut writer = TarWriter::new(vec![]);
        writer.add(&all[0]).unwrap();
        // Three of five bytes come: the rest is zeros.
        writer.add_file(&all[1], &mut &b"abc"[..]).unwrap();
        writer.add(&all[2]).unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = TarReader::new(&bytes[..]);
        for wanted in &all {
            let got = reader.next_entry().unwrap().expect("an entry");
            assert_eq!((&got.path, &got.link, got.kind), (&wanted.path, &wanted.link, wanted.kind));
            assert_eq!((got.mode, got.uid, got.gid, got.mtime), (wanted.mode, wanted.uid, 8, wanted.mtime));
            assert_eq!(got.xattrs, wanted.xattrs);
            let mut content = vec![];
            reader.read_to_end(&mut content).unwrap();
            assert_eq!(content, if got.kind == Kind::File { &b"abc\0\0"[..] } else { b"" });
        }
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn pax_lengths_count_their_own_digits() {
        // Around the lengths at which one digit more is needed.
        for length in 80..1100 {
            let records = pax_records(&entry(&vec![b'n'; 101 + length], Kind::File), 0);
            let (stated, _) = std::str::from_utf8(&records).unwrap().split_once(' ').unwrap();
            assert_eq!(stated.parse::<usize>().unwrap(), records.len());
        }
    }
}
