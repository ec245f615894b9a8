//! Key pairs made for those who have no way to make their own. The private half leaves in the reply and is forgotten.
//!
//! An SSH key is Ed25519 in OpenSSH's own form (PROTOCOL.key of OpenSSH); a certificate is signed by its own key, with
//! the user's name in it, as Windows asks for when it maps certificates to users.

use crate::openstack::{Fault, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use model::{error::Code, keypair::KeyKind};
use rcgen::{CertificateParams, DnType, KeyPair};

/// A pair.
pub struct Pair {
    /// As it is kept.
    pub public: String,
    /// As it is told once.
    pub private: String,
}

/// Makes a pair. `check` is any number: both copies of it in the private key must be the same when it is read.
///
/// # Errors
/// Where the library makes none.
pub fn pair(kind: KeyKind, user: &str, check: u32) -> Result<Pair> {
    let failed = |error: rcgen::Error| Fault::new(Code::Internal, format!("no key could be made: {error}"));
    match kind {
        KeyKind::Ssh => {
            let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(failed)?;
            let seed = seed_of(key.serialized_der());
            let seed = seed.ok_or_else(|| Fault::new(Code::Internal, "a new key has an unknown form"))?;
            Ok(openssh(&seed, key.public_key_raw(), user, check))
        }
        KeyKind::X509 => {
            let key = KeyPair::generate().map_err(failed)?;
            let mut params = CertificateParams::new(vec![]).map_err(failed)?;
            params.distinguished_name.push(DnType::CommonName, user);
            let certificate = params.self_signed(&key).map_err(failed)?;
            Ok(Pair { public: certificate.pem(), private: key.serialize_pem() })
        }
    }
}

/// The 32 bytes of an Ed25519 key: an octet string in an octet string (RFC 8410, section 7).
fn seed_of(der: &[u8]) -> Option<[u8; 32]> {
    const HEAD: [u8; 4] = [0x04, 0x22, 0x04, 0x20];
    let at = der.windows(HEAD.len()).position(|window| window == HEAD)? + HEAD.len();
    der.get(at..at + 32)?.try_into().ok()
}

/// A string of the SSH protocol (RFC 4251, section 5).
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys are short");
    out.extend(length.to_be_bytes());
    out.extend(bytes);
}

fn openssh(seed: &[u8; 32], public: &[u8], comment: &str, check: u32) -> Pair {
    const KIND: &[u8] = b"ssh-ed25519";
    const LINE: usize = 70;
    let mut blob = vec![];
    put(&mut blob, KIND);
    put(&mut blob, public);
    let mut inner = vec![];
    inner.extend(check.to_be_bytes());
    inner.extend(check.to_be_bytes());
    put(&mut inner, KIND);
    put(&mut inner, public);
    put(&mut inner, &[seed.as_slice(), public].concat());
    put(&mut inner, comment.as_bytes());
    // Filled up to whole blocks of 8 with 1, 2, 3 and so on.
    let missing = (8 - inner.len() % 8) % 8;
    inner.extend((1u8..).take(missing));
    let mut whole = b"openssh-key-v1\0".to_vec();
    for field in [b"none".as_slice(), b"none", b""] {
        put(&mut whole, field);
    }
    whole.extend(1u32.to_be_bytes());
    put(&mut whole, &blob);
    put(&mut whole, &inner);
    let letters = STANDARD.encode(&whole);
    let lines: Vec<&str> =
        letters.as_bytes().chunks(LINE).map(|line| std::str::from_utf8(line).expect("base64")).collect();
    let private = format!(
        "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
        lines.join("\n")
    );
    Pair { public: format!("ssh-ed25519 {} {comment}", STANDARD.encode(&blob)), private }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::keypair::{check_certificate, check_public_key};
    use std::{io::Write, os::unix::fs::OpenOptionsExt, process::Command};

    #[test]
    fn ssh_keygen_reads_the_public_key_out_of_the_private_one() {
        let made = pair(KeyKind::Ssh, "demo", 7).unwrap_or_else(|e| panic!("{e:?}"));
        check_public_key(&made.public).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(made.private.as_bytes()).unwrap();
        drop(file);
        let output = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), made.public);
    }

    #[test]
    fn a_certificate_is_one_that_can_be_imported() {
        let make = || pair(KeyKind::X509, "demo", 7).unwrap_or_else(|e| panic!("{e:?}"));
        let made = make();
        check_certificate(&made.public).unwrap();
        assert!(made.private.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_ne!(made.private, make().private);
    }
}
