//! Tells plain, gzip, zstd, bzip2 and xz apart by their first bytes and undoes them, streaming.
//!
//! What a document says about compression is never asked: media types lie, magic numbers do not.

use super::{
    unpacker::{Missing, StartError},
    xz,
};
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
    #[error("it is compressed with {0}, only gzip, zstd and bzip2 are supported")]
    Unsupported(&'static str),
    /// What undoes it is not installed.
    #[error(transparent)]
    Missing(#[from] Missing),
}

impl From<StartError> for CompressionError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Missing(missing) => missing.into(),
            StartError::Io(error) => error.into(),
        }
    }
}

/// Whether a stream with this beginning is one that [`decompress`] undoes.
pub fn is_compressed(magic: &[u8]) -> bool {
    let begins = |sign: &[u8]| magic.starts_with(sign);
    begins(&[0x1f, 0x8b]) || begins(&[0x28, 0xb5, 0x2f, 0xfd]) || is_bzip2(magic)
}

/// Whether a stream with this beginning is one that [`decompress_any`] undoes.
pub fn is_compressed_any(magic: &[u8]) -> bool {
    is_compressed(magic) || magic.starts_with(&xz::MAGIC)
}

/// `BZh`, and how large its blocks are.
fn is_bzip2(magic: &[u8]) -> bool {
    matches!(magic, [b'B', b'Z', b'h', b'1'..=b'9', ..])
}

/// The plain bytes of a stream, which may be xz as well: that takes a program of its own, so what lives as long as that must
/// be given.
pub fn decompress_any(mut input: impl Read + Send + 'static) -> Result<Box<dyn Read>, CompressionError> {
    let mut magic = Vec::with_capacity(xz::MAGIC.len());
    input.by_ref().take(xz::MAGIC.len() as u64).read_to_end(&mut magic)?;
    let is_xz = magic == xz::MAGIC;
    let whole = Cursor::new(magic).chain(input);
    if is_xz {
        return Ok(Box::new(BufReader::with_capacity(OUTPUT_BUFFER_BYTES, xz::fed(whole)?)));
    }
    decompress(whole)
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
        all if is_bzip2(all) => {
            let decoder = bzip2::bufread::MultiBzDecoder::new(input(magic));
            Box::new(BufReader::with_capacity(OUTPUT_BUFFER_BYTES, decoder))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(CompressionError::Unsupported("xz")),
        _ => Box::new(input(magic)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    /// By the programs that people pack by.
    fn packed(program: &str, plain: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program)
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut input = child.stdin.take().expect("a pipe");
        let plain = plain.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&plain).expect("written"));
        let packed = child.wait_with_output().expect("packed").stdout;
        writer.join().expect("the writer");
        packed
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = vec![];
        let input = decompress_any(Cursor::new(bytes.to_vec())).map_err(io::Error::other);
        input?.read_to_end(&mut plain).map(|_| plain)
    }

    #[test]
    fn what_was_packed_comes_out() {
        // No program of ours has it in a pipe whole.
        let large: Vec<u8> = (0..200_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for program in ["gzip", "bzip2", "xz"] {
            for plain in [&b""[..], b"a text", &large] {
                let bytes = packed(program, plain);
                assert!(is_compressed_any(&bytes), "{program}");
                assert!(read(&bytes).expect(program) == plain, "{program}");
                let twice = [bytes.clone(), bytes.clone()].concat();
                assert_eq!(
                    read(&twice).expect(program).len(),
                    2 * plain.len(),
                    "{program}: two streams are one"
                );
            }
            let bytes = packed(program, &large);
            assert!(read(&bytes[..bytes.len() - 9]).is_err(), "{program}: cut");
        }
        assert_eq!(read(b"BZ is no sign").expect("plain"), b"BZ is no sign");
        assert!(matches!(decompress(&packed("xz", b"x")[..]), Err(CompressionError::Unsupported("xz"))));
    }
}
