//! Tells plain, gzip and zstd apart by their first bytes and undoes them, streaming.
//!
//! What a document says about compression is never asked: media types lie, magic numbers do not.

use std::io::{self, BufReader, Cursor, Read};

/// Largest zstd window, as a power of two: what `zstd -19 --long` makes is read, more is refused.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const INPUT_BUFFER_BYTES: usize = 128 << 10;
const OUTPUT_BUFFER_BYTES: usize = 64 << 10;

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// It failed before its first bytes.
    #[error("the stream cannot be read")]
    Io(#[from] io::Error),
    /// Compressed in a way that is not supported.
    #[error("it is compressed with {0}, only gzip and zstd are supported")]
    Unsupported(&'static str),
}

/// Whether a stream with this beginning is one that [`decompress`] undoes.
pub fn is_compressed(magic: &[u8]) -> bool {
    magic.starts_with(&[0x1f, 0x8b]) || magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// The plain bytes of a stream.
pub fn decompress<'a>(mut input: impl Read + 'a) -> Result<Box<dyn Read + 'a>, CompressionError> {
    let mut magic = Vec::with_capacity(6);
    input.by_ref().take(6).read_to_end(&mut magic)?;
    let input =
        |magic: Vec<u8>| BufReader::with_capacity(INPUT_BUFFER_BYTES, Cursor::new(magic).chain(input));
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => {
            let decoder = flate2::bufread::MultiGzDecoder::new(input(magic));
            Box::new(BufReader::with_capacity(OUTPUT_BUFFER_BYTES, decoder))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input(magic))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(BufReader::with_capacity(OUTPUT_BUFFER_BYTES, decoder))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(CompressionError::Unsupported("xz")),
        [b'B', b'Z', b'h', ..] => return Err(CompressionError::Unsupported("bzip2")),
        _ => Box::new(input(magic)),
    })
}
