//! A host key for the SSH server of a system container, in the form of OpenSSH's files.
//!
//! Most images bring the keys of the machine that they were made on, or none, and only some make new ones when they start.
//! So each instance is given one, made where it runs and written nowhere else. Form: PROTOCOL.key of OpenSSH, RFC 8709.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// Name of the kind of key.
const KIND: &str = "ssh-ed25519";
/// The parts of a private key end at a multiple of this where it is not encrypted.
const BLOCK_BYTES: usize = 8;
const LINE_CHARS: usize = 70;

/// The two files of a key: `ssh_host_ed25519_key` and the same with `.pub`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// Text of the private key.
    pub private: String,
    /// Its public line.
    pub public: String,
}

impl HostKey {
    /// The key of a seed, which must be random. `comment` is shown with the public key.
    pub fn of_seed(seed: &[u8; 32], comment: &str) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are a seed");
        let point = pair.public_key().as_ref();
        let public = [string(KIND.as_bytes()), string(point)].concat();
        // Equal numbers tell whether a password was right; there is none.
        let mut parts = [[0; 8].to_vec(), public.clone(), string(&[&seed[..], point].concat())].concat();
        parts.extend(string(comment.as_bytes()));
        parts.extend((1..).take(parts.len().next_multiple_of(BLOCK_BYTES) - parts.len()));
        let mut whole = b"openssh-key-v1\0".to_vec();
        for text in ["none", "none", ""] {
            whole.extend(string(text.as_bytes()));
        }
        whole.extend(1_u32.to_be_bytes());
        whole.extend([string(&public), string(&parts)].concat());
        let mut private = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
        let text = STANDARD.encode(whole);
        for line in text.as_bytes().chunks(LINE_CHARS) {
            private.extend(line.iter().map(|byte| char::from(*byte)));
            private.push('\n');
        }
        private.push_str("-----END OPENSSH PRIVATE KEY-----\n");
        Self { private, public: format!("{KIND} {} {comment}\n", STANDARD.encode(public)) }
    }
}

/// Bytes with their number before them (RFC 4251, section 5).
fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("parts of a key are short");
    [&length.to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::PermissionsExt, process::Command};

    /// OpenSSH's own program reads the private key and gives the same public one.
    #[test]
    fn openssh_reads_it() {
        let directory = tempfile::tempdir().expect("a directory");
        for seed in [[7; 32], [0; 32], rand::random()] {
            for comment in ["root@web", "a", ""] {
                let key = HostKey::of_seed(&seed, comment);
                let path = directory.path().join("key");
                std::fs::write(&path, &key.private).expect("written");
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
                let output =
                    Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output().expect("ssh-keygen");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                let public = String::from_utf8(output.stdout).expect("text");
                assert_eq!(public.trim(), key.public.trim());
            }
        }
    }
}
