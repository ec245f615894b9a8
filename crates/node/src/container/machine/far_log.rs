//! A container's log where its files are elsewhere: output goes out over a socket as it comes, and whoever holds the
//! files stamps and writes it.
//!
//! ```text
//!   the container's name, a line's end, then records:   stream (1 byte)  length (4 bytes, little endian)  bytes
//! ```
//!
//! Stream 0 with no bytes says that lines which were begun will not be ended. Unlike a file, the socket may be full: then
//! the container waits, as long as the one who reads lives.

use crate::container::log::LogWriter;
use jiff::Timestamp;
use std::{io::Write, os::unix::net::UnixStream, path::Path};

/// Most bytes of one record.
const RECORD_BYTES_MAX: usize = 64 * 1024;
/// Longest name of a container, as bundles have them, with its end.
const NAME_BYTES_MAX: usize = 256;
const HEADER_BYTES: usize = 5;

/// The end that output is put in.
#[derive(Debug)]
pub struct FarLog {
    socket: Option<UnixStream>,
}

impl FarLog {
    /// Connects to who holds the files. Output is lost where that fails.
    pub fn connect(socket: &Path, container: &str) -> Self {
        let connected = UnixStream::connect(socket).and_then(|mut socket| {
            socket.write_all(format!("{container}\n").as_bytes())?;
            Ok(socket)
        });
        if let Err(error) = &connected {
            eprintln!("the log of {container} cannot be sent: {error}");
        }
        Self { socket: connected.ok() }
    }

    /// Takes output of stream 1 or 2.
    pub fn write(&mut self, stream: u8, bytes: &[u8]) {
        for part in bytes.chunks(RECORD_BYTES_MAX) {
            self.record(stream, part);
        }
    }

    /// Lines that were begun will not be ended.
    pub fn flush(&mut self) {
        self.record(0, &[]);
    }

    fn record(&mut self, stream: u8, bytes: &[u8]) {
        let Some(socket) = &mut self.socket else { return };
        let mut record = vec![stream];
        record.extend((bytes.len() as u32).to_le_bytes());
        record.extend(bytes);
        if let Err(error) = socket.write_all(&record) {
            eprintln!("a log cannot be sent any more: {error}");
            self.socket = None;
        }
    }
}

/// Takes the name off the beginning of what came. `None` until it is whole.
///
/// # Errors
/// There is none where one must be.
pub fn take_name(bytes: &mut Vec<u8>) -> Result<Option<String>, &'static str> {
    let Some(end) = bytes.iter().take(NAME_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() >= NAME_BYTES_MAX { Err("a log without a name") } else { Ok(None) };
    };
    let name: Vec<u8> = bytes.drain(..=end).collect();
    String::from_utf8(name[..end].to_vec()).map(Some).map_err(|_| "a log whose name is no text")
}

/// Writes the records that are whole, and leaves the rest.
///
/// # Errors
/// What came is none.
pub fn write_records(bytes: &mut Vec<u8>, log: &mut LogWriter) -> Result<(), &'static str> {
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let stream = header[0];
        if length > RECORD_BYTES_MAX || stream > 2 {
            return Err("a record of a log that is none");
        }
        let Some(text) = bytes.get(at + HEADER_BYTES..at + HEADER_BYTES + length) else { break };
        match stream {
            0 => log.flush(Timestamp::now()),
            stream => log.write(Timestamp::now(), stream, text),
        }
        at += HEADER_BYTES + length;
    }
    bytes.drain(..at);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::log::LogReader;
    use model::plan::LogLimits;
    use std::io::Read;

    #[test]
    fn what_is_put_in_here_is_written_there() {
        let place = tempfile::tempdir().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut log = FarLog { socket: Some(near) };
        log.write(1, b"one\ntw");
        log.write(2, b"wrong\n");
        log.flush();
        drop(log);
        let mut came = Vec::new();
        far.read_to_end(&mut came).unwrap();
        let path = place.path().join("c.log");
        let mut writer = LogWriter::new(&path, LogLimits::default());
        // However it is cut on the way.
        let mut waiting = Vec::new();
        for byte in came {
            waiting.push(byte);
            write_records(&mut waiting, &mut writer).unwrap();
        }
        assert!(waiting.is_empty());
        let lines = LogReader::open(&path, 1).read().unwrap();
        let seen: Vec<_> = lines.iter().map(|line| (line.stream, line.bytes.as_slice())).collect();
        assert_eq!(seen, [(1, &b"one\n"[..]), (2, b"wrong\n"), (1, b"tw")]);
    }

    #[test]
    fn names_come_first_and_nonsense_is_refused() {
        let mut bytes = b"we".to_vec();
        assert_eq!(take_name(&mut bytes), Ok(None));
        bytes.extend(b"b\n\x01");
        assert_eq!(take_name(&mut bytes), Ok(Some("web".into())));
        assert_eq!(bytes, [1]);
        assert!(take_name(&mut vec![b'x'; 300]).is_err());
        let mut writer = LogWriter::new(Path::new("/nonexistent/log"), LogLimits::default());
        assert!(write_records(&mut vec![7, 0, 0, 0, 0], &mut writer).is_err());
        assert!(write_records(&mut vec![1, 255, 255, 255, 255], &mut writer).is_err());
    }
}
