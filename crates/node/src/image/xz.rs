//! Undoes xz, the compression in which root file systems are handed around, by the program `xz`: as nobody, with little memory
//! and nothing to open.
//!
//! The format is decoded by one library in C, which has had holes and worse. It sees the file that was sent as its standard
//! input and writes to a pipe; a file that wants more memory than what `xz -9` makes is refused by it.

use nix::sys::{resource::Resource, signal::Signal};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    time::Duration,
};
use sys::{
    pidfd::Exit,
    spawn::{Child, Command, SpawnError, Stdio},
};

/// The first bytes of a file in this form.
pub const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
/// What `xz -9` needs to unpack, and some more.
const MEMORY_BYTES_MAX: u64 = 192 << 20;
/// Most bytes of its complaint that are told.
const COMPLAINT_BYTES_MAX: u64 = 1000;
/// A program whose pipe is closed, or that was killed, ends at once.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// `nobody`.
const NOBODY: u32 = 65534;

/// The plain bytes of a file.
#[derive(Debug)]
pub struct Xz {
    output: io::PipeReader,
    errors: File,
    child: Option<Child>,
}

impl Xz {
    /// Begins with what is no file, and may be a part of one.
    ///
    /// A thread reads it, and ends with it or with the program.
    pub fn fed(mut input: impl Read + Send + 'static) -> io::Result<Self> {
        let (far, mut near) = io::pipe()?;
        let xz = Self::of(far)?;
        std::thread::Builder::new().name("xz-input".into()).spawn(move || {
            // The program says what it misses.
            let _ = io::copy(&mut input, &mut near);
        })?;
        Ok(xz)
    }

    /// Begins with a file at its present place, or with a pipe.
    pub fn of(file: impl Into<OwnedFd>) -> io::Result<Self> {
        let (output, far) = io::pipe()?;
        // A file, because nobody reads it before the end, and a full pipe would stop the program.
        let errors = tempfile::tempfile()?;
        let limit = format!("--memlimit={MEMORY_BYTES_MAX}");
        let child = Command::new("xz")
            .args(["--decompress", "--stdout", "--threads=1", &limit])
            .env("LC_ALL", "C")
            .stdin(Stdio::Fd(file.into()))
            .stdout(Stdio::Fd(OwnedFd::from(far)))
            .stderr(Stdio::Fd(OwnedFd::from(errors.try_clone()?)))
            .current_dir("/")
            .credentials(NOBODY, NOBODY, Vec::new())
            .no_new_privs()
            .private_network()
            .setsid()
            .rlimit(Resource::RLIMIT_AS, 2 * MEMORY_BYTES_MAX)
            .rlimit(Resource::RLIMIT_FSIZE, COMPLAINT_BYTES_MAX)
            .rlimit(Resource::RLIMIT_CORE, 0)
            .spawn();
        let child = child.map_err(|error| match error {
            SpawnError::NotFound { .. } => io::Error::other(
                "it is compressed by xz, and xz is not installed here (apt install xz-utils)",
            ),
            error => io::Error::other(error),
        })?;
        Ok(Self { output, errors, child: Some(child) })
    }

    /// The end of its output is the end of the file only if it says so.
    fn ended(&mut self) -> io::Result<()> {
        let Some(child) = self.child.take() else { return Ok(()) };
        match child.wait(END_TIMEOUT)? {
            Some(Exit::Code(0)) => Ok(()),
            _ => {
                use std::io::Seek;
                let mut text = String::new();
                let _ = self.errors.rewind();
                let _ = (&self.errors).take(COMPLAINT_BYTES_MAX).read_to_string(&mut text);
                let text = text.trim().trim_start_matches("xz: (stdin): ");
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("xz refuses it: {text}")))
            }
        }
    }
}

impl Read for Xz {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.output.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.ended()?;
        }
        Ok(count)
    }
}

impl Drop for Xz {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            // Nobody reads on. What does not die is no matter of ours.
            let _ = child.process.send_signal(Signal::SIGKILL);
            let _ = child.wait(END_TIMEOUT);
        }
    }
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
        Xz::of(file)?.read_to_end(&mut plain).map(|_| plain)
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

    #[test]
    fn who_reads_no_more_leaves_no_program() {
        let bytes = packed(&vec![0; 8 << 20]);
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("written");
        std::io::Seek::rewind(&mut file).expect("rewound");
        let mut xz = Xz::of(file).expect("begun");
        xz.read_exact(&mut [0; 10]).expect("read");
        let pid = xz.child.as_ref().expect("runs").pid();
        drop(xz);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
