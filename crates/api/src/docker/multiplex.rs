//! Standard output and standard error in one stream, as docker multiplexes them.
//!
//! ```text
//!   0        1        2        3        4        5        6        7        8 ...
//!   +--------+--------+--------+--------+--------+--------+--------+--------+-----------
//!   | 0 in, 1 out, 2 err |   0, 0, 0    |        length, big endian         |  bytes
//!   +--------+--------+--------+--------+--------+--------+--------+--------+-----------
//! ```
//!
//! Where the program has a terminal there is one output, and its bytes are sent as they are.

use axum::http::HeaderValue;
use bytes::{BufMut, Bytes, BytesMut};

use super::frame::Version;

/// Most bytes of one frame.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Which of a program's outputs bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The form of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Bytes as they come.
    Raw,
    /// Frames.
    Multiplexed,
}

impl Form {
    /// The form that fits a program.
    pub fn of(has_terminal: bool) -> Self {
        if has_terminal { Self::Raw } else { Self::Multiplexed }
    }

    /// The media type that tells it.
    pub fn media_type(self, version: Version) -> HeaderValue {
        match self {
            Self::Multiplexed if version.has(1, 42) => {
                HeaderValue::from_static("application/vnd.docker.multiplexed-stream")
            }
            _ => HeaderValue::from_static("application/vnd.docker.raw-stream"),
        }
    }

    /// Appends bytes of an output.
    pub fn put(self, buffer: &mut BytesMut, output: Output, bytes: &[u8]) {
        if self == Self::Raw {
            return buffer.put_slice(bytes);
        }
        for part in bytes.chunks(FRAME_BYTES_MAX) {
            buffer.reserve(8 + part.len());
            buffer.put_u8(if output == Output::Stderr { 2 } else { 1 });
            buffer.put_bytes(0, 3);
            buffer.put_u32(u32::try_from(part.len()).expect("at most FRAME_BYTES_MAX"));
            buffer.put_slice(part);
        }
    }

    /// Bytes of an output as they are sent.
    pub fn wrap(self, output: Output, bytes: &[u8]) -> Bytes {
        let mut buffer = BytesMut::with_capacity(8 + bytes.len());
        self.put(&mut buffer, output, bytes);
        buffer.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_dockers() {
        assert_eq!(&Form::Multiplexed.wrap(Output::Stdout, b"hi\n")[..], b"\x01\0\0\0\0\0\0\x03hi\n");
        assert_eq!(&Form::Multiplexed.wrap(Output::Stderr, b"no")[..], b"\x02\0\0\0\0\0\0\x02no");
        assert_eq!(&Form::Raw.wrap(Output::Stderr, b"no")[..], b"no");
        assert!(Form::Multiplexed.wrap(Output::Stdout, b"").is_empty());
        let long = Form::Multiplexed.wrap(Output::Stdout, &vec![7; FRAME_BYTES_MAX + 1]);
        assert_eq!(long.len(), FRAME_BYTES_MAX + 1 + 2 * 8);
    }
}
