//! Sealing: what the store keeps without being able to read it, and nobody who has only a copy of the store.
//!
//! ```text
//!   control ── seal(nonce, about, text) ──► Sealed, in a record ──► node ── open(about) ──► text, in a guest alone
//! ```
//! The key lies beside the store in a file of its own, so that a copy of the records gives nothing away. A text is sealed
//! for one instance: put into another's record it does not open (`about` is authenticated with it). ChaCha20-Poly1305 (RFC
//! 8439) by `ring`; chance comes in as an argument.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of chance for each text; never the same twice for one key.
pub const NONCE_BYTES: usize = NONCE_LEN;

/// The key of a cloud. It is never shown.
#[derive(Clone)]
pub struct SealKey([u8; KEY_BYTES]);

/// A text that only the key opens, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

/// It was sealed by another key, for another instance, or it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is sealed in the store does not open with this cloud's key")]
pub struct NotOpened;

impl SealKey {
    /// A key of these bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.0);
        LessSafeKey::new(key.expect("the key has the length of the cipher's"))
    }

    /// Seals bytes for what `about` names.
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], about: &[u8], bytes: &[u8]) -> Sealed {
        let mut text = bytes.to_vec();
        let sealed = self.cipher().seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(about),
            &mut text,
        );
        sealed.expect("records are far shorter than the cipher's limit of 256 GiB");
        Sealed(STANDARD.encode([nonce.as_slice(), &text].concat()))
    }

    /// Opens what was sealed for `about`.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open(&self, about: &[u8], sealed: &Sealed) -> Result<Vec<u8>, NotOpened> {
        let bytes = STANDARD.decode(&sealed.0).map_err(|_| NotOpened)?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(NotOpened)?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.cipher().open_in_place(nonce, Aad::from(about), &mut text);
        opened.map(|opened| opened.to_vec()).map_err(|_| NotOpened)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_key_opens_it_and_only_for_whom_it_was_sealed() {
        let key = SealKey::new([1; KEY_BYTES]);
        for text in [&b""[..], b"hunter2", &[0; 70_000]] {
            let sealed = key.seal([7; NONCE_BYTES], b"web", text);
            assert_eq!(key.open(b"web", &sealed).as_deref(), Ok(text));
            assert_eq!(key.open(b"other", &sealed), Err(NotOpened));
            assert_eq!(SealKey::new([2; KEY_BYTES]).open(b"web", &sealed), Err(NotOpened));
        }
        let sealed = key.seal([7; NONCE_BYTES], b"web", b"hunter2");
        assert!(!format!("{sealed:?} {key:?}").contains("hunter2"));
        let mut bytes = STANDARD.decode(&sealed.0).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_eq!(key.open(b"web", &Sealed(STANDARD.encode(&bytes))), Err(NotOpened), "byte {at}");
            bytes[at] ^= 1;
        }
        for text in ["", "AAAA", "!"] {
            assert_eq!(key.open(b"web", &Sealed(text.into())), Err(NotOpened));
        }
    }
}
