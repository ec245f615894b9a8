//! A tar reader for archives made by strangers: streaming, with a limit on everything that is held in memory.
//!
//! It knows what image layers use: ustar, GNU long names, pax records (path, linkpath, size, uid, gid, mtime and
//! `SCHILY.xattr.*`) and base-256 numbers (POSIX.1-2017 "pax", GNU tar manual "Basic Tar Format"). Sparse files are
//! refused: no image tool writes them. It touches no file: what names may mean is decided by its caller.

use std::io::{self, Read};

/// Longest name or link target in bytes (PATH_MAX).
pub const PATH_BYTES_MAX: usize = 4096;
/// Longest pax header in bytes.
pub const PAX_BYTES_MAX: u64 = 1 << 20;
/// Most extended attributes of one entry.
pub const XATTRS_MAX: usize = 64;
/// Longest value of an extended attribute (XATTR_SIZE_MAX of the kernel).
pub const XATTR_BYTES_MAX: usize = 64 << 10;
/// Most headers in a row that only describe the next entry.
const EXTENSIONS_MAX: u32 = 16;
const BLOCK_BYTES: usize = 512;
const BAD_CHECKSUM: TarError = TarError::Malformed("a header's checksum is wrong, this is no tar archive");

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream failed or its compression is broken.
    #[error("the archive cannot be read")]
    Io(#[from] io::Error),
    /// It ends within an entry.
    #[error("the archive ends too early")]
    Truncated,
    /// A header breaks the format.
    #[error("the archive is damaged: {0}")]
    Malformed(&'static str),
    /// A header uses a feature that is refused.
    #[error("the archive uses {0}, which is not supported")]
    Unsupported(&'static str),
    /// A header is past a limit.
    #[error("the archive has {what} past the limit of {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its bytes follow.
    File,
    /// Another name of an earlier file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One member of the archive. Names are bytes as written: nothing in them is safe.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// Permission bits, set-id and sticky included.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Bytes of content.
    pub size_bytes: u64,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a pax header says of the next entry.
#[derive(Debug, Clone, Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entries one by one; the content of the current one is read through [`Read`].
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    content_left: u64,
    padding_left: u64,
    ended: bool,
}

impl<R: Read> TarReader<R> {
    /// Reads the archive that `input` starts with.
    pub fn new(input: R) -> Self {
        Self { input, content_left: 0, padding_left: 0, ended: false }
    }

    /// The stream behind, which stands at the beginning of the current entry's content until that is read.
    pub fn position(&self) -> &R {
        &self.input
    }

    /// The stream behind, to read what follows the archive.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next entry, or `None` at the end. Skips what was not read of the last one's content.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pax = Pax::default();
        let mut long_name = None;
        let mut long_link = None;
        for _ in 0..EXTENSIONS_MAX {
            self.skip_content()?;
            let Some(header) = self.next_header()? else {
                return Ok(None);
            };
            let size = number(&header.as_old().size, header.entry_size())?;
            match header.entry_type().as_byte() {
                b'L' => long_name = Some(self.long_text(size)?),
                b'K' => long_link = Some(self.long_text(size)?),
                b'x' | b'X' => {
                    self.begin_content(size, PAX_BYTES_MAX, "a pax header's bytes")?;
                    pax = self.read_pax()?;
                }
                b'g' => self.begin_content(size, PAX_BYTES_MAX, "a pax header's bytes")?,
                b'S' => return Err(TarError::Unsupported("sparse files")),
                kind => {
                    let entry = entry_of(&header, kind, size, pax, long_name, long_link)?;
                    self.begin_content(entry.size_bytes, i64::MAX as u64, "a file's bytes")?;
                    return Ok(Some(entry));
                }
            }
        }
        Err(TarError::Limit { what: "headers in a row", limit: u64::from(EXTENSIONS_MAX) })
    }

    fn next_header(&mut self) -> Result<Option<tar::Header>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0u8; BLOCK_BYTES];
        let count = read_full(&mut self.input, &mut block)?;
        // Some writers leave the two empty blocks at the end out.
        if count == 0 || block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return if count == 0 || count == BLOCK_BYTES { Ok(None) } else { Err(TarError::Truncated) };
        }
        if count < BLOCK_BYTES {
            return Err(TarError::Truncated);
        }
        let header = tar::Header::from_byte_slice(&block).clone();
        let stated = header.cksum().map_err(|_| BAD_CHECKSUM)?;
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(n, b)| if (148..156).contains(&n) { 32 } else { u32::from(*b) })
            .sum();
        if stated != sum {
            return Err(TarError::Malformed("a header's checksum is wrong, this is no tar archive"));
        }
        Ok(Some(header))
    }

    fn begin_content(&mut self, size: u64, limit: u64, what: &'static str) -> Result<(), TarError> {
        if size > limit {
            return Err(TarError::Limit { what, limit });
        }
        self.content_left = size;
        self.padding_left = (BLOCK_BYTES as u64 - size % BLOCK_BYTES as u64) % BLOCK_BYTES as u64;
        Ok(())
    }

    fn skip_content(&mut self) -> Result<(), TarError> {
        let mut left = self.content_left + self.padding_left;
        self.content_left = 0;
        self.padding_left = 0;
        let mut waste = [0u8; 8192];
        while left > 0 {
            let count = left.min(waste.len() as u64) as usize;
            if read_full(&mut self.input, &mut waste[..count])? < count {
                return Err(TarError::Truncated);
            }
            left -= count as u64;
        }
        Ok(())
    }

    /// The content of a GNU long name header.
    fn long_text(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        self.begin_content(size, PATH_BYTES_MAX as u64 + 1, "a name's bytes")?;
        let mut text = self.content()?;
        if let Some(end) = text.iter().position(|byte| *byte == 0) {
            text.truncate(end);
        }
        Ok(text)
    }

    /// All of the current content; its size was checked before.
    fn content(&mut self) -> Result<Vec<u8>, TarError> {
        let mut content = vec![0; self.content_left as usize];
        if read_full(&mut self.input, &mut content)? < content.len() {
            return Err(TarError::Truncated);
        }
        self.content_left = 0;
        Ok(content)
    }

    fn read_pax(&mut self) -> Result<Pax, TarError> {
        let content = self.content()?;
        let mut pax = Pax::default();
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let (record, after) = split_pax_record(rest)?;
            rest = after;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or(TarError::Malformed("a pax record has no '='"))?;
            pax.set(&record[..equals], &record[equals + 1..])?;
        }
        Ok(pax)
    }
}

/// The content of the current entry.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content_left.min(buffer.len() as u64) as usize;
        if count == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..count])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a file"));
        }
        self.content_left -= count as u64;
        Ok(count)
    }
}

/// `<length> <key>=<value>\n`, where the length counts all of it.
fn split_pax_record(rest: &[u8]) -> Result<(&[u8], &[u8]), TarError> {
    let bad = TarError::Malformed("a pax record's length is wrong");
    let Some(space) = rest.iter().take(20).position(|byte| *byte == b' ') else {
        return Err(bad);
    };
    let length = std::str::from_utf8(&rest[..space]).ok().and_then(|digits| digits.parse::<usize>().ok());
    match length {
        Some(length) if length > space + 1 && length <= rest.len() && rest[length - 1] == b'\n' => {
            Ok((&rest[space + 1..length - 1], &rest[length..]))
        }
        _ => Err(bad),
    }
}

impl Pax {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let number = || -> Result<u64, TarError> {
            let text = std::str::from_utf8(value).unwrap_or_default();
            text.parse().map_err(|_| TarError::Malformed("a pax number is none"))
        };
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(parse_time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => return Err(TarError::Unsupported("sparse files")),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if self.xattrs.len() == XATTRS_MAX {
                        return Err(TarError::Limit {
                            what: "attributes of a file",
                            limit: XATTRS_MAX as u64,
                        });
                    }
                    if value.len() > XATTR_BYTES_MAX || name.len() > 255 {
                        return Err(TarError::Limit {
                            what: "an attribute's bytes",
                            limit: XATTR_BYTES_MAX as u64,
                        });
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// `-12.5` and the like; digits past nanoseconds are dropped.
fn parse_time(text: &[u8]) -> Result<(i64, u32), TarError> {
    let bad = || TarError::Malformed("a pax time is none");
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| bad())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let nanos = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    if whole.starts_with('-') && nanos > 0 {
        return Ok((seconds.checked_sub(1).ok_or_else(bad)?, 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}

fn entry_of(
    header: &tar::Header,
    kind: u8,
    size: u64,
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
) -> Result<Entry, TarError> {
    let path = pax.path.or(long_name).unwrap_or_else(|| header.path_bytes().into_owned());
    let link = pax
        .link
        .or(long_link)
        .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
        .unwrap_or_default();
    let kind = match kind {
        // Archives older than ustar mark a directory by its name alone.
        b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return Err(TarError::Unsupported("an unknown kind of entry")),
    };
    if path.len() > PATH_BYTES_MAX || link.len() >= PATH_BYTES_MAX {
        return Err(TarError::Limit { what: "a name's bytes", limit: PATH_BYTES_MAX as u64 });
    }
    if path.contains(&0) || link.contains(&0) {
        return Err(TarError::Malformed("a name has a zero byte"));
    }
    let size = pax.size.unwrap_or(size);
    let old = header.as_old();
    Ok(Entry {
        path,
        link,
        kind,
        mode: (number(&old.mode, header.mode().map(u64::from))? & 0o7777) as u32,
        uid: pax.uid.map_or_else(|| number(&old.uid, header.uid()), Ok)?,
        gid: pax.gid.map_or_else(|| number(&old.gid, header.gid()), Ok)?,
        // Only files have content; some writers give a size for links too, with no bytes behind it.
        size_bytes: if kind == Kind::File { size } else { 0 },
        mtime: pax.mtime.unwrap_or_else(|| {
            let seconds = header.mtime().unwrap_or(0);
            (i64::try_from(seconds).unwrap_or(0), 0)
        }),
        xattrs: pax.xattrs,
    })
}

/// A number of a header; an empty field means 0.
fn number(field: &[u8], value: io::Result<u64>) -> Result<u64, TarError> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    value.map_err(|_| TarError::Malformed("a header's number is none"))
}

/// Fills the buffer unless the input ends; gives the count.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads all of `bytes` as an archive and counts its entries: the door for fuzzing.
pub fn count_entries(bytes: &[u8]) -> Result<u64, TarError> {
    let mut reader = TarReader::new(bytes);
    let mut count = 0;
    while reader.next_entry()?.is_some() {
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().expect("in memory")
    }

    fn header(kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        header
    }

    #[test]
    fn pax_records_go_first_and_content_follows() {
        let bytes = archive(|builder| {
            let value = [0u8, 61, 10];
            builder
                .append_pax_extensions([
                    ("path", &b"long/name"[..]),
                    ("mtime", b"-1.25"),
                    ("uid", b"5000000"),
                    ("SCHILY.xattr.user.x", &value),
                ])
                .expect("appends");
            builder
                .append_data(&mut header(tar::EntryType::Regular, 5), "short", &b"hello"[..])
                .expect("appends");
            builder
                .append_data(&mut header(tar::EntryType::Regular, 3), "x".repeat(300), &b"abc"[..])
                .expect("appends");
        });
        let mut reader = TarReader::new(&bytes[..]);
        let entry = reader.next_entry().expect("reads").expect("an entry");
        assert_eq!(entry.path, b"long/name");
        assert_eq!(entry.mtime, (-2, 750_000_000));
        assert_eq!(entry.uid, 5_000_000);
        assert_eq!(entry.xattrs, [(b"user.x".to_vec(), vec![0, 61, 10])]);
        let mut content = String::new();
        reader.read_to_string(&mut content).expect("reads");
        assert_eq!(content, "hello");
        let entry = reader.next_entry().expect("reads").expect("an entry");
        assert_eq!(entry.path.len(), 300);
        assert!(reader.next_entry().expect("reads").is_none());
    }

    #[test]
    fn hostile_headers_are_refused() {
        let long = archive(|builder| {
            builder.append(&header(tar::EntryType::GNULongName, 1 << 40), io::empty()).expect("appends");
        });
        assert!(matches!(count_entries(&long), Err(TarError::Limit { what: "a name's bytes", .. })));
        let pax = archive(|builder| {
            builder
                .append(&header(tar::EntryType::XHeader, PAX_BYTES_MAX + 1), io::empty())
                .expect("appends");
        });
        assert!(matches!(count_entries(&pax), Err(TarError::Limit { .. })));
        let chain = archive(|builder| {
            for _ in 0..40 {
                builder.append(&header(tar::EntryType::XGlobalHeader, 0), io::empty()).expect("appends");
            }
        });
        assert!(matches!(count_entries(&chain), Err(TarError::Limit { what: "headers in a row", .. })));
        let sparse = archive(|builder| {
            builder.append(&header(tar::EntryType::GNUSparse, 0), io::empty()).expect("appends");
        });
        assert!(matches!(count_entries(&sparse), Err(TarError::Unsupported(_))));
        let records = archive(|builder| {
            let body = b"99999 path=x\n";
            builder.append(&header(tar::EntryType::XHeader, body.len() as u64), &body[..]).expect("appends");
        });
        assert!(matches!(count_entries(&records), Err(TarError::Malformed(_))));
        let whole = archive(|builder| {
            builder
                .append_data(&mut header(tar::EntryType::Regular, 5), "a", &b"hello"[..])
                .expect("appends");
        });
        assert!(matches!(count_entries(&whole[..514]), Err(TarError::Truncated)));
        assert!(matches!(count_entries(&whole[..100]), Err(TarError::Truncated)));
        assert!(matches!(count_entries(&[b'x'; 1024]), Err(TarError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(mut bytes in proptest::collection::vec(any::<u8>(), 512..2048), kind in any::<u8>()) {
            // A right checksum lets the bytes through to the parsers behind.
            bytes[156] = kind;
            let sum: u32 = bytes[..512].iter().enumerate()
                .map(|(n, b)| if (148..156).contains(&n) { 32 } else { u32::from(*b) }).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            let _ = count_entries(&bytes);
        }
    }
}
