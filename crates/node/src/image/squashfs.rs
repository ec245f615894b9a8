//! Reads squashfs, the file system in one file that image servers hand roots around in, by the program `sqfs2tar`.
//!
//! The kernel could mount it, and would trust a stranger's file with the whole host. The program makes a tar of it instead,
//! which goes the way of any other tar, with all its limits. A file may say of few bytes that they are many files, or one
//! without an end: memory and time bound the one, the size of a layer the other.

use super::unpacker::{Program, StartError, Unpacker};
use std::fs::File;

/// The first bytes of a file in this form, in the order that is written today (`fs/squashfs/squashfs_fs.h`).
pub const MAGIC: [u8; 4] = *b"hsqs";
/// The list of all its files is held in memory, with some hundred bytes for each.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// What the largest layer takes, compressed as slowly as it can be.
const CPU_S_MAX: u64 = 1800;

/// A tar of what is in a file, which everybody may read: the program opens it anew, since it does not read from front to end.
pub fn as_tar(file: File) -> Result<Unpacker, StartError> {
    let program = Program {
        name: "sqfs2tar",
        // With the root itself, whose mode and owner would be lost. What no tar can hold (sockets) is left out.
        arguments: &["--root-becomes", ".", "/proc/self/fd/0"],
        input: "/proc/self/fd/0: ",
        memory_bytes_max: MEMORY_BYTES_MAX,
        cpu_s_max: Some(CPU_S_MAX),
        form: "a squashfs",
        package: "squashfs-tools-ng",
    };
    Unpacker::start(program, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testing::fixture::Tar;
    use std::{
        io::{self, Read, Write},
        os::unix::fs::PermissionsExt,
        process::{Command, Stdio},
    };

    /// A squashfs of what a tar holds.
    fn squashed(tar: &[u8]) -> Vec<u8> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("root.squashfs");
        let mut child = Command::new("tar2sqfs")
            .args(["--quiet", "--compressor", "xz"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("tar2sqfs");
        child.stdin.take().expect("a pipe").write_all(tar).expect("written");
        assert!(child.wait().expect("ended").success());
        std::fs::read(path).expect("made")
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile()?;
        file.set_permissions(std::fs::Permissions::from_mode(0o444))?;
        file.write_all(bytes)?;
        let mut tar = Vec::new();
        as_tar(file).expect("sqfs2tar").read_to_end(&mut tar).map(|_| tar)
    }

    fn root() -> Vec<u8> {
        let tar = Tar::new().dir("./", 0o750).dir("etc/", 0o755);
        tar.owned("etc/secret", 0o4640, 1000, 1001, b"secret").bytes()
    }

    #[test]
    fn a_tar_of_it_has_all_that_it_has() {
        let bytes = squashed(&root());
        assert!(bytes.starts_with(&MAGIC));
        let tar = read(&bytes).expect("a tar");
        let mut seen = Vec::new();
        for entry in ::tar::Archive::new(tar.as_slice()).entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let mut content = String::new();
            entry.read_to_string(&mut content).expect("content");
            let header = entry.header();
            let name = entry.path().expect("a path").to_string_lossy().into_owned();
            seen.push((
                name,
                header.mode().expect("a mode") & 0o7777,
                header.uid().expect("an owner"),
                content,
            ));
        }
        let of = |name: &str, mode, uid, content: &str| (name.to_string(), mode, uid, content.to_string());
        assert_eq!(
            seen,
            [of("./", 0o750, 0, ""), of("./etc/", 0o755, 0, ""), of("./etc/secret", 0o4640, 1000, "secret")]
        );
    }

    #[test]
    fn what_is_broken_is_told() {
        let bytes = squashed(&root());
        for (wrong, of) in [
            (bytes[..200].to_vec(), "cut"),
            ([&bytes[..8], &[0xff; 88], &bytes[96..]].concat(), "with a head that is nonsense"),
            (MAGIC.to_vec(), "its first word alone"),
        ] {
            let error = read(&wrong).expect_err(of).to_string();
            assert!(error.starts_with("sqfs2tar refuses it: "), "{of}: {error}");
        }
    }
}
