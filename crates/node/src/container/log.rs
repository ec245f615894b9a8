//! A container's log: lines in the form that Kubernetes' runtimes use, in files that are rotated by size and number.
//!
//! ```text
//! 2026-01-02T03:04:05.678901234Z stdout F a whole line
//! 2026-01-02T03:04:05.678901234Z stderr P part of a line, which goes on or never ended
//! ```
//!
//! Writing never fails to the caller: output that cannot be written (a full disk) is counted, and the loss is told in
//! the log as soon as there is room. A container is never blocked by its log.

use crate::driver::LogLine;
use jiff::Timestamp;
use model::plan::LogLimits;
use std::{
    fs, io,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Longest part of a line that is kept waiting for its end.
pub const PART_BYTES_MAX: usize = 16 * 1024;
/// Smallest size at which a log is rotated.
const ROTATE_BYTES_MIN: u64 = 4096;

/// Writes a log.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    limits: LogLimits,
    file: Option<fs::File>,
    size_bytes: u64,
    lost_bytes: u64,
    /// Lines begun, of standard output and of standard error.
    parts: [Vec<u8>; 2],
}

impl LogWriter {
    /// Goes on with the log at `path`, which is made with the first line.
    pub fn new(path: &Path, limits: LogLimits) -> Self {
        let size_bytes_max = limits.size_bytes_max.max(ROTATE_BYTES_MIN);
        Self {
            path: path.to_path_buf(),
            limits: LogLimits { size_bytes_max, files_max: limits.files_max.max(1) },
            file: None,
            size_bytes: 0,
            lost_bytes: 0,
            parts: [Vec::new(), Vec::new()],
        }
    }

    /// Takes output of stream 1 or 2.
    pub fn write(&mut self, now: Timestamp, stream: u8, mut bytes: &[u8]) {
        let part = &mut self.parts[usize::from(stream == 2)];
        let mut text = Vec::with_capacity(bytes.len() + 64);
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            part.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            entries(&mut text, now, stream, part, true);
            part.clear();
        }
        part.extend_from_slice(bytes);
        let whole = part.len() - part.len() % PART_BYTES_MAX;
        if whole > 0 {
            let rest = part.split_off(whole);
            entries(&mut text, now, stream, part, false);
            *part = rest;
        }
        self.append(now, &text);
    }

    /// Writes lines that were begun and will not be ended.
    pub fn flush(&mut self, now: Timestamp) {
        for stream in [1, 2] {
            let part = std::mem::take(&mut self.parts[usize::from(stream == 2)]);
            if !part.is_empty() {
                let mut text = Vec::new();
                entries(&mut text, now, stream, &part, false);
                self.append(now, &text);
            }
        }
    }

    fn append(&mut self, now: Timestamp, mut text: &[u8]) {
        while !text.is_empty() {
            let (piece, rest) = text.split_at(self.room(text));
            text = rest;
            match self.try_append(now, piece) {
                Ok(written) if written == piece.len() => {}
                result => {
                    self.lost_bytes += (piece.len() - result.unwrap_or(0)) as u64;
                    // Opened anew next time: perhaps the directory was away.
                    self.file = None;
                }
            }
        }
    }

    /// How much of a text of whole entries goes into the current file: at least one entry.
    fn room(&self, text: &[u8]) -> usize {
        let room = self.limits.size_bytes_max.saturating_sub(self.size_bytes).max(1) as usize;
        match text.get(room - 1..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
            Some(end) => room + end,
            None => text.len(),
        }
    }

    /// Appends entries, and tells how many bytes of whole entries are in the file.
    fn try_append(&mut self, now: Timestamp, text: &[u8]) -> io::Result<usize> {
        if self.file.is_some() && self.size_bytes >= self.limits.size_bytes_max {
            self.rotate()?;
        }
        if self.file.is_none() {
            self.open()?;
        }
        if self.lost_bytes > 0 {
            let mut notice = Vec::new();
            let message = format!(
                "[holm: {} bytes of output were lost: the log could not be written]",
                self.lost_bytes
            );
            entries(&mut notice, now, 2, message.as_bytes(), true);
            if self.put(&notice)? < notice.len() {
                return Ok(0);
            }
            self.lost_bytes = 0;
        }
        self.put(text)
    }

    /// Appends as many whole entries as there is room for on the disk.
    fn put(&mut self, text: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let written = match file.write_all(text) {
            Ok(()) => text.len(),
            Err(_) => {
                let length = file.metadata()?.len().saturating_sub(self.size_bytes) as usize;
                let whole = text[..length.min(text.len())]
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |end| end + 1);
                file.set_len(self.size_bytes + whole as u64)?;
                whole
            }
        };
        self.size_bytes += written as u64;
        Ok(written)
    }

    fn open(&mut self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?;
        self.size_bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (1..self.limits.files_max).rev() {
            match fs::rename(numbered(&self.path, number - 1), numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.limits.files_max == 1 {
            fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}

/// `log`, `log.1`, `log.2`: newest first.
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_path_buf();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The entries of one line, or of a part of one.
fn entries(text: &mut Vec<u8>, now: Timestamp, stream: u8, line: &[u8], ended: bool) {
    let stream = if stream == 2 { "stderr" } else { "stdout" };
    let mut rest = line;
    loop {
        let (part, after) = rest.split_at(rest.len().min(PART_BYTES_MAX));
        let last = after.is_empty();
        let kind = if last && ended { 'F' } else { 'P' };
        let _ = write!(text, "{now:.9} {stream} {kind} ");
        text.extend_from_slice(part);
        text.push(b'\n');
        if last {
            return;
        }
        rest = after;
    }
}

/// Reads one entry, without the line's end.
pub fn parse(entry: &[u8]) -> Option<LogLine> {
    let mut fields = entry.splitn(4, |byte| *byte == b' ');
    let (time, stream, kind, text) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let time: Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
    let stream = match stream {
        b"stdout" => 1,
        b"stderr" => 2,
        _ => return None,
    };
    let mut bytes = text.to_vec();
    if kind == b"F" {
        bytes.push(b'\n');
    }
    let time_ns = i64::try_from(time.as_nanosecond()).ok()?;
    Some(LogLine { time_ns, stream, bytes })
}

/// Reads a log from its oldest file on, and goes on as it grows and is rotated.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    files_max: u32,
    /// Files still to be read, the next one last.
    older: Vec<fs::File>,
    current: Option<fs::File>,
    /// Nothing is written to the current file any more: what was there when it was last read to its end may not have been all.
    is_rotated: bool,
    partial: Vec<u8>,
}

/// Whether two open files are one. What cannot be told of them is taken for that.
fn is_same(one: &fs::File, other: &fs::File) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => true,
    }
}

/// Longest entry that is read: a part of a line and what stands before it.
const ENTRY_BYTES_MAX: usize = PART_BYTES_MAX + 256;

impl LogReader {
    /// Opens the files that are there.
    pub fn open(path: &Path, files_max: u32) -> Self {
        let mut reader = Self {
            path: path.to_path_buf(),
            files_max: files_max.max(1),
            older: Vec::new(),
            current: None,
            is_rotated: false,
            partial: Vec::new(),
        };
        reader.older = reader.files();
        reader
    }

    /// The files that are there, newest first. One that is rotated meanwhile is met again under its next name, and is the
    /// same: as long as it is open, no other has its number.
    fn files(&self) -> Vec<fs::File> {
        let mut found: Vec<fs::File> = Vec::new();
        for number in 0..self.files_max {
            let Ok(file) = fs::File::open(numbered(&self.path, number)) else { continue };
            if !found.last().is_some_and(|last| is_same(last, &file)) {
                found.push(file);
            }
        }
        found
    }

    /// The next entries that are whole, at most about 64 KiB of them. Empty when there are none now.
    pub fn read(&mut self) -> io::Result<Vec<LogLine>> {
        use io::Read;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if self.current.is_none() {
                self.current = self.older.pop().or_else(|| fs::File::open(&self.path).ok());
            }
            let Some(file) = &mut self.current else {
                return Ok(Vec::new());
            };
            let length = file.read(&mut buffer)?;
            if length == 0 {
                if !self.next_file()? {
                    return Ok(Vec::new());
                }
                continue;
            }
            let lines = self.split(&buffer[..length]);
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    /// At the end of a file: goes to a newer one, if there is one. False when there is nothing to read now.
    fn next_file(&mut self) -> io::Result<bool> {
        let Some(file) = &self.current else {
            return Ok(false);
        };
        if self.older.is_empty() && !self.is_rotated {
            let Ok(newest) = fs::File::open(&self.path) else {
                return Ok(false);
            };
            // The writer has let go of this one, after a last line perhaps: it is read to its end once more.
            self.is_rotated = !is_same(&newest, file);
            return Ok(self.is_rotated);
        }
        if self.older.is_empty() {
            self.older = self.files();
            // Of those that are gone already nothing can be told: the oldest that is left is next.
            let place = self.older.iter().position(|newer| is_same(newer, file));
            self.older.truncate(place.unwrap_or(self.older.len()));
        }
        let Some(next) = self.older.pop() else {
            return Ok(false);
        };
        self.partial.clear();
        self.is_rotated = false;
        self.current = Some(next);
        Ok(true)
    }

    fn split(&mut self, bytes: &[u8]) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if let Some(entry) = self.partial.strip_suffix(b"\n") {
                lines.extend(parse(entry));
                self.partial.clear();
            } else if self.partial.len() > ENTRY_BYTES_MAX {
                self.partial.clear();
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05.678901234Z".parse().unwrap()
    }

    fn all(reader: &mut LogReader) -> Vec<(u8, String)> {
        let mut lines = Vec::new();
        loop {
            let more = reader.read().unwrap();
            if more.is_empty() {
                return lines;
            }
            lines.extend(more.into_iter().map(|line| (line.stream, String::from_utf8(line.bytes).unwrap())));
        }
    }

    #[test]
    fn lines_come_back_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/web.log");
        let mut writer = LogWriter::new(&path, LogLimits::default());
        writer.write(now(), 1, b"one\ntw");
        writer.write(now(), 2, b"oops\n");
        writer.write(now(), 1, b"o\n\nprompt> ");
        writer.flush(now());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("2026-01-02T03:04:05.678901234Z stdout F one\n"), "{text}");
        assert!(text.ends_with("stdout P prompt> \n"), "{text}");
        let lines = all(&mut LogReader::open(&path, 3));
        let wanted = [(1, "one\n"), (2, "oops\n"), (1, "two\n"), (1, "\n"), (1, "prompt> ")];
        assert_eq!(lines, wanted.map(|(stream, text)| (stream, text.to_string())));
    }

    #[test]
    fn a_line_without_end_is_cut_and_needs_no_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = LogWriter::new(&path, LogLimits::default());
        for _ in 0..10 {
            writer.write(now(), 1, &[b'x'; 10_000]);
            assert!(writer.parts[0].len() < PART_BYTES_MAX);
        }
        writer.write(now(), 1, b"\n");
        let text: String = all(&mut LogReader::open(&path, 1)).into_iter().map(|(_, text)| text).collect();
        assert_eq!(text, "x".repeat(100_000) + "\n");
    }

    #[test]
    fn rotation_keeps_so_many_files_and_a_reader_goes_along() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let limits = LogLimits { size_bytes_max: 4096, files_max: 3 };
        let mut writer = LogWriter::new(&path, limits);
        writer.write(now(), 1, b"0\n");
        let mut follower = LogReader::open(&path, limits.files_max);
        let mut seen = all(&mut follower).len();
        for number in 1..1000 {
            writer.write(now(), 1, format!("{number}\n").as_bytes());
            seen += all(&mut follower).len();
        }
        assert_eq!(seen, 1000, "a follower misses nothing");
        assert!(numbered(&path, 2).exists() && !numbered(&path, 3).exists());
        let total: u64 = (0..3).map(|number| fs::metadata(numbered(&path, number)).unwrap().len()).sum();
        assert!(total < 3 * 4300, "{total}");
        let kept = all(&mut LogReader::open(&path, limits.files_max));
        assert_eq!(kept.last().unwrap().1, "999\n");
    }

    #[test]
    fn a_follower_that_is_behind_reads_every_file_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let limits = LogLimits { size_bytes_max: 4096, files_max: 5 };
        let mut writer = LogWriter::new(&path, limits);
        let mut numbers = 0..;
        let mut write_until = |is_enough: &dyn Fn() -> bool| {
            while !is_enough() {
                let number = numbers.next().unwrap();
                writer.write(now(), 1, format!("{number}\n").as_bytes());
            }
            numbers.start
        };
        write_until(&|| path.exists());
        let mut follower = LogReader::open(&path, limits.files_max);
        let mut seen = all(&mut follower);
        for _ in 0..3 {
            // Two files are full before it looks again.
            let before = fs::metadata(&path).unwrap().ino();
            let has_number =
                |number| fs::metadata(numbered(&path, number)).is_ok_and(|it| it.ino() == before);
            write_until(&|| has_number(2));
            seen.extend(all(&mut follower));
        }
        // It has seen the end of the file, then comes the file's last line.
        let before = fs::metadata(&path).unwrap().ino();
        let written = write_until(&|| fs::metadata(&path).is_ok_and(|it| it.ino() != before));
        assert!(follower.next_file().unwrap());
        seen.extend(all(&mut follower));
        let wanted: Vec<(u8, String)> = (0..written).map(|number| (1, format!("{number}\n"))).collect();
        assert_eq!(seen.len(), wanted.len());
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_loss_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::create_dir(&path).unwrap();
        let mut writer = LogWriter::new(&path, LogLimits::default());
        writer.write(now(), 1, b"gone\n");
        fs::remove_dir(&path).unwrap();
        writer.write(now(), 1, b"kept\n");
        let lines = all(&mut LogReader::open(&path, 1));
        assert!(lines[0].1.contains("bytes of output were lost"), "{lines:?}");
        assert_eq!(lines[1].1, "kept\n");
    }
}
