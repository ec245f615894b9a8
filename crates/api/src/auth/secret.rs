//! Secrets of tokens: `holm_<id>_<secret>`, 16 and 64 hex digits. Only the secret's SHA-256 is kept.
//!
//! The secret has 256 random bits, so a plain hash is enough: there is nothing to guess from a dictionary.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "holm_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// A token just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// Public part.
    pub id: String,
    /// What the client sends.
    pub text: String,
    /// What is kept.
    pub secret_sha256: String,
}

/// Makes a token from random bytes.
pub fn make(random: [u8; ID_BYTES + SECRET_BYTES]) -> Fresh {
    let (id, secret) = random.split_at(ID_BYTES);
    let (id, secret) = (hex::encode(id), hex::encode(secret));
    Fresh { text: format!("{PREFIX}{id}_{secret}"), secret_sha256: hash(&secret), id }
}

/// The id and the secret of what a client sent, if it has the form.
pub fn split(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let is_hex = |part: &str, bytes: usize| {
        part.len() == 2 * bytes && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    (is_hex(id, ID_BYTES) && is_hex(secret, SECRET_BYTES)).then_some((id, secret))
}

/// Whether a secret has the hash that was kept; in a time that does not depend on where they differ.
pub fn matches(secret: &str, kept_sha256: &str) -> bool {
    let given = hash(secret);
    bool::from(given.as_bytes().ct_eq(kept_sha256.as_bytes()))
}

fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let fresh = make(std::array::from_fn(|i| i as u8));
        let (id, secret) = split(&fresh.text).unwrap();
        assert_eq!(id, fresh.id);
        assert!(matches(secret, &fresh.secret_sha256));
        assert!(!fresh.secret_sha256.contains(secret));
        let other = secret.replacen('0', "1", 1);
        assert!(!matches(&other, &fresh.secret_sha256));
        assert!(!matches(secret, ""));
        for bad in ["", "holm_", "holm_ab_cd", &fresh.text[1..], &fresh.text.to_uppercase()] {
            assert!(split(bad).is_none(), "{bad}");
        }
    }
}
