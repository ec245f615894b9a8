//! Frames of an exec or attach stream: what flows after the upgrade.
//!
//! A client asks with `Connection: Upgrade` and `Upgrade: holm-stream`; the server answers `101` and then both sides
//! send frames:
//!
//! ```text
//!   0        1        2        3        4        5 ...
//!   +--------+--------+--------+--------+--------+-----------------
//!   |  type  |       length, big endian          |  data (length bytes, at most 1 MiB)
//!   +--------+--------+--------+--------+--------+-----------------
//!
//!   type  name         sent by   data
//!   0     stdin        client    bytes; no bytes: end of standard input
//!   1     stdout       server    bytes
//!   2     stderr       server    bytes (never with a terminal)
//!   3     resize       client    rows, columns: two big-endian 16-bit numbers
//!   4     exit         server    exit code, a big-endian signed 32-bit number; the last frame
//!   5     error        server    a UTF-8 text; the last frame
//!   6     signal       client    a signal's number, big-endian 32 bits
//! ```
//!
//! Console and VNC streams have no frames: bytes both ways.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use tokio_util::codec::{Decoder, Encoder};

/// Value of the `Upgrade` header.
pub const PROTOCOL: &str = "holm-stream";
/// Most data bytes of one frame.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
const HEADER_BYTES: usize = 5;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes for standard input; none: its end.
    Stdin(Bytes),
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// New size of the terminal.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// The program ended.
    Exit(i32),
    /// It could not be run or was lost.
    Error(String),
    /// A signal for the program.
    Signal(i32),
}

/// Reads and writes frames.
#[derive(Debug, Default, Clone, Copy)]
pub struct FrameCodec;

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        if buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(broken("a frame is longer than 1 MiB"));
        }
        if buffer.len() < HEADER_BYTES + length {
            buffer.reserve(HEADER_BYTES + length - buffer.len());
            return Ok(None);
        }
        let kind = buffer[0];
        buffer.advance(HEADER_BYTES);
        parse(kind, buffer.split_to(length).freeze()).map(Some)
    }
}

fn parse(kind: u8, mut data: Bytes) -> io::Result<Frame> {
    let sized = |size: usize| {
        if data.len() == size { Ok(()) } else { Err(broken("a frame has the wrong length")) }
    };
    match kind {
        0 => Ok(Frame::Stdin(data)),
        1 => Ok(Frame::Stdout(data)),
        2 => Ok(Frame::Stderr(data)),
        3 => sized(4).map(|()| Frame::Resize { rows: data.get_u16(), columns: data.get_u16() }),
        4 => sized(4).map(|()| Frame::Exit(data.get_i32())),
        5 => Ok(Frame::Error(String::from_utf8_lossy(&data).into_owned())),
        6 => sized(4).map(|()| Frame::Signal(data.get_i32())),
        _ => Err(broken("a frame has an unknown type")),
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = io::Error;

    /// Writes a frame; data longer than a frame may be is cut into several.
    fn encode(&mut self, frame: Frame, buffer: &mut BytesMut) -> io::Result<()> {
        match frame {
            Frame::Stdin(data) => put_bytes(buffer, 0, &data),
            Frame::Stdout(data) => put_bytes(buffer, 1, &data),
            Frame::Stderr(data) => put_bytes(buffer, 2, &data),
            Frame::Resize { rows, columns } => {
                put_head(buffer, 3, 4);
                buffer.put_u16(rows);
                buffer.put_u16(columns);
            }
            Frame::Exit(code) => {
                put_head(buffer, 4, 4);
                buffer.put_i32(code);
            }
            Frame::Error(text) => {
                let end = text.floor_char_boundary(text.len().min(FRAME_BYTES_MAX));
                put_bytes(buffer, 5, &text.as_bytes()[..end]);
            }
            Frame::Signal(signal) => {
                put_head(buffer, 6, 4);
                buffer.put_i32(signal);
            }
        }
        Ok(())
    }
}

fn put_head(buffer: &mut BytesMut, kind: u8, length: usize) {
    buffer.reserve(HEADER_BYTES + length);
    buffer.put_u8(kind);
    buffer.put_u32(u32::try_from(length).expect("checked against FRAME_BYTES_MAX"));
}

fn put_bytes(buffer: &mut BytesMut, kind: u8, data: &[u8]) {
    if data.is_empty() {
        put_head(buffer, kind, 0);
    }
    for part in data.chunks(FRAME_BYTES_MAX) {
        put_head(buffer, kind, part.len());
        buffer.put_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_byte_by_byte() {
        let frames = vec![
            Frame::Stdin(Bytes::from_static(b"ls\n")),
            Frame::Stdin(Bytes::new()),
            Frame::Stdout(Bytes::from_static(&[0, 255, 10])),
            Frame::Stderr(Bytes::from_static(b"no")),
            Frame::Resize { rows: 24, columns: 80 },
            Frame::Signal(15),
            Frame::Error("gone".into()),
            Frame::Exit(-1),
        ];
        let mut wire = BytesMut::new();
        for frame in frames.clone() {
            FrameCodec.encode(frame, &mut wire).unwrap();
        }
        let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
        for byte in wire {
            buffer.put_u8(byte);
            while let Some(frame) = FrameCodec.decode(&mut buffer).unwrap() {
                read.push(frame);
            }
        }
        assert_eq!(read, frames);
    }

    #[test]
    fn long_data_is_cut_and_broken_frames_are_refused() {
        let mut wire = BytesMut::new();
        let long = Bytes::from(vec![7; FRAME_BYTES_MAX + 1]);
        FrameCodec.encode(Frame::Stdout(long), &mut wire).unwrap();
        let first = FrameCodec.decode(&mut wire).unwrap();
        assert!(matches!(first, Some(Frame::Stdout(data)) if data.len() == FRAME_BYTES_MAX));
        assert_eq!(FrameCodec.decode(&mut wire).unwrap(), Some(Frame::Stdout(Bytes::from_static(&[7]))));
        for bad in [&[9u8, 0, 0, 0, 0][..], &[0, 0, 16, 0, 1], &[3, 0, 0, 0, 1, 0]] {
            assert!(FrameCodec.decode(&mut BytesMut::from(bad)).is_err());
        }
    }
}
