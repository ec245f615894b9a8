//! Keys: public keys and certificates that are put into instances. holm keeps no private key; one that it makes for a
//! caller is told once and forgotten.

use crate::{
    id::{KeypairId, UserId},
    meta::Meta,
    record::Record,
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest public key line in bytes (an RSA key of 16,384 bits has about 2,800).
pub const PUBLIC_KEY_BYTES_MAX: usize = 16 * 1024;

/// A public key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keypair {
    /// Head.
    pub meta: Meta<KeypairId>,
    /// One line in OpenSSH's form: type, base64, comment.
    pub public_key: String,
    /// SHA256 fingerprint: as `ssh-keygen -l` prints it, or of the certificate.
    pub fingerprint: String,
    /// What it is.
    #[serde(default)]
    pub kind: KeyKind,
    /// User whose own it is, in every project; `None`: its project's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
}

/// Kinds of public key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// A line in OpenSSH's form.
    #[default]
    Ssh,
    /// An X.509 certificate in PEM, for guests that know people by these (Windows).
    X509,
}

impl KeyKind {
    /// Name on every door.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::X509 => "x509",
        }
    }
}

/// Why a text is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A private key: it must stay with its owner.
    #[error("this is a private key; give the public one (the file that ends in .pub)")]
    Private,
    /// Too long or several lines.
    #[error("a public key is one line of at most {PUBLIC_KEY_BYTES_MAX} bytes")]
    Shape,
    /// A type that sshd no longer takes or nobody knows.
    #[error(
        "unknown or unsafe key type {0:?}: use ssh-ed25519, ecdsa-sha2-nistp256/384/521, ssh-rsa or a security key (sk-…)"
    )]
    Type(String),
    /// The base64 part is broken or names another type.
    #[error("the key's data is damaged: copy the whole line from the .pub file")]
    Data,
    /// No PEM of one certificate.
    #[error("a certificate is PEM text: from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----")]
    Certificate,
}

/// Checks a certificate in PEM (RFC 7468) as far as its form goes, and gives it with its SHA256 fingerprint.
///
/// # Errors
/// Says what is wrong with the text.
pub fn check_certificate(text: &str) -> Result<(String, String), KeyError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    if text.contains("PRIVATE KEY") {
        return Err(KeyError::Private);
    }
    let text = text.trim();
    if text.len() > PUBLIC_KEY_BYTES_MAX {
        return Err(KeyError::Shape);
    }
    let body =
        text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or(KeyError::Certificate)?;
    let letters: String = body.split_whitespace().collect();
    let bytes = STANDARD.decode(letters).map_err(|_| KeyError::Certificate)?;
    // A DER sequence (X.690): whatever else it is, a certificate begins as one.
    if bytes.first() != Some(&0x30) || bytes.len() < 64 {
        return Err(KeyError::Certificate);
    }
    let digest = STANDARD_NO_PAD.encode(Sha256::digest(&bytes));
    Ok((format!("{text}\n"), format!("SHA256:{digest}")))
}

const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// Checks a public key in OpenSSH's one-line form (RFC 4253, section 6.6) and gives the trimmed line and its SHA256 fingerprint.
///
/// # Errors
/// Says what is wrong with the text.
pub fn check_public_key(text: &str) -> Result<(String, String), KeyError> {
    if text.contains("PRIVATE KEY") {
        return Err(KeyError::Private);
    }
    let line = text.trim();
    if line.is_empty() || line.len() > PUBLIC_KEY_BYTES_MAX || line.contains(['\n', '\r', '\0']) {
        return Err(KeyError::Shape);
    }
    let mut words = line.split_whitespace();
    let kind = words.next().unwrap_or_default();
    if !TYPES.contains(&kind) {
        return Err(KeyError::Type(kind.chars().take(40).collect()));
    }
    let data = STANDARD.decode(words.next().unwrap_or_default()).map_err(|_| KeyError::Data)?;
    let length = data.first_chunk::<4>().map(|b| u32::from_be_bytes(*b) as usize).ok_or(KeyError::Data)?;
    if data.get(4..4 + length.min(64)) != Some(kind.as_bytes()) || data.len() <= 4 + length {
        return Err(KeyError::Data);
    }
    let digest = STANDARD_NO_PAD.encode(Sha256::digest(&data));
    Ok((line.to_string(), format!("SHA256:{digest}")))
}

impl Record for Keypair {
    const TABLE: &'static str = "keypair";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked() {
        let good =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here\n";
        let (line, fingerprint) = check_public_key(good).unwrap();
        assert!(line.ends_with("me@here"));
        assert_eq!(fingerprint, "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
        for (bad, error) in [
            ("-----BEGIN OPENSSH PRIVATE KEY-----", KeyError::Private),
            ("", KeyError::Shape),
            ("ssh-dss AAAA", KeyError::Type("ssh-dss".into())),
            ("ssh-ed25519 AAAAB3NzaC1yc2E=", KeyError::Data),
            ("ssh-ed25519 !!", KeyError::Data),
        ] {
            assert_eq!(check_public_key(bad).unwrap_err(), error, "{bad}");
        }
    }
}
