//! Undoes xz, the compression in which root file systems are handed around, by the program `xz`.
//!
//! The format is decoded by one library in C. A file that wants more memory than what `xz -9` makes is refused by it.

use super::unpacker::{Program, StartError, Unpacker};
use std::{
    io::{self, Read},
    os::fd::OwnedFd,
};

/// The first bytes of a file in this form.
pub const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
/// What `xz -9` needs to unpack, and some more.
const MEMORY_BYTES_MAX: u64 = 192 << 20;

/// The plain bytes of what is no file, and may be a part of one.
///
/// A thread reads it, and ends with it or with the program.
pub fn fed(mut input: impl Read + Send + 'static) -> Result<Unpacker, StartError> {
    let (far, mut near) = io::pipe()?;
    let xz = of(far)?;
    std::thread::Builder::new().name("xz-input".into()).spawn(move || {
        // The program says what it misses.
        let _ = io::copy(&mut input, &mut near);
    })?;
    Ok(xz)
}

/// The plain bytes of a file from its present place on, or of a pipe.
pub fn of(file: impl Into<OwnedFd>) -> Result<Unpacker, StartError> {
    let limit = format!("--memlimit={MEMORY_BYTES_MAX}");
    let program = Program {
        name: "xz",
        arguments: &["--decompress", "--stdout", "--threads=1", &limit],
        input: "xz: (stdin): ",
        memory_bytes_max: 2 * MEMORY_BYTES_MAX,
        // It goes forward only.
        cpu_s_max: None,
        form: "compressed by xz",
        package: "xz-utils",
    };
    Unpacker::start(program, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(plain: &[u8]) -> Vec<u8> {
        let mut child = std::process::Command::new("xz")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("xz");
        child.stdin.take().expect("a pipe").write_all(plain).expect("written");
        child.wait_with_output().expect("packed").stdout
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        std::io::Seek::rewind(&mut file)?;
        let mut plain = Vec::new();
        of(file).expect("xz").read_to_end(&mut plain).map(|_| plain)
    }

    #[test]
    fn what_was_packed_comes_out_and_what_is_broken_is_told() {
        for plain in [&b""[..], b"a text", &[7; 60_000]] {
            let bytes = packed(plain);
            assert!(bytes.starts_with(&MAGIC));
            assert_eq!(read(&bytes).expect("unpacked"), plain);
        }
        let mut bytes = packed(&[1; 10_000]);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        let error = read(&bytes).expect_err("broken").to_string();
        assert!(error.contains("xz refuses it"), "{error}");
        let cut = packed(b"a text that is long enough");
        let error = read(&cut[..cut.len() - 9]).expect_err("cut").to_string();
        assert!(error.contains("xz refuses it"), "{error}");
    }
}
