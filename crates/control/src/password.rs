//! Passwords: hashed with Argon2id, a function that costs memory, away from the threads that serve everyone.
//!
//! The cost is OWASP's first choice for Argon2id: 19 MiB and two passes, some 20 ms of one core. No more than
//! [`AT_ONCE`] run at a time, so logging in can neither fill the memory nor take all cores.

use crate::{Control, Error, Result};
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString},
};
use model::{error::Code, user::PASSWORD_BYTES_MAX};
use std::sync::LazyLock;

/// Memory of one hash in KiB.
pub const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over that memory.
pub const PASSES: u32 = 2;
/// Most hashes at a time.
pub const AT_ONCE: usize = 2;
/// Most hashes that wait for their turn.
pub const WAITING_MAX: usize = 256;
/// Bytes of a salt.
const SALT_BYTES: usize = 16;

/// The hash of no password: what a login for a user that does not exist is compared with, so that it takes as long.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash_now("nobody has this password", [0; SALT_BYTES]));

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).expect("the parameters are constants in range");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash_now(password: &str, salt: [u8; SALT_BYTES]) -> String {
    let salt = SaltString::encode_b64(&salt).expect("16 bytes are a salt");
    let hash = hasher().hash_password(password.as_bytes(), &salt);
    hash.expect("the password's length was checked").to_string()
}

fn verify_now(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|kept| hasher().verify_password(password.as_bytes(), &kept).is_ok())
}

/// Refuses what cannot be a password.
///
/// # Errors
/// `invalid`.
pub fn check(password: &str) -> Result<()> {
    if password.is_empty() {
        return Err(Error::invalid("password", "a password has at least one character"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        let message = format!("a password has at most {PASSWORD_BYTES_MAX} bytes");
        return Err(Error::invalid("password", message));
    }
    Ok(())
}

impl Control {
    /// Hashes a password, with a salt of its own.
    ///
    /// # Errors
    /// `invalid`, `too_many`.
    pub async fn hash_password(&self, password: &str) -> Result<String> {
        check(password)?;
        let password = password.to_string();
        self.off_thread(move || hash_now(&password, rand::random())).await
    }

    /// Whether `password` has one of these hashes. Takes as long for nobody's as for somebody's.
    ///
    /// # Errors
    /// `too_many`.
    pub async fn password_matches(&self, password: &str, hashes: &[&str]) -> Result<bool> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let password = password.to_string();
        let hashes: Vec<String> = hashes.iter().map(|h| (*h).to_string()).collect();
        self.off_thread(move || match hashes.as_slice() {
            [] => {
                std::hint::black_box(verify_now(&password, &NOBODY));
                false
            }
            some => some.iter().any(|hash| verify_now(&password, hash)),
        })
        .await
    }

    /// Whether `password` has one of these hashes, of which there may be none.
    ///
    /// # Errors
    /// `too_many`.
    pub(crate) async fn password_matches_any(&self, password: &str, hashes: &[&str]) -> Result<bool> {
        Ok(!hashes.is_empty() && self.password_matches(password, hashes).await?)
    }

    async fn off_thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let busy = || {
            Error::new(Code::TooMany, "too many logins at the same time").hint("try again in a few seconds")
        };
        let _waiting = self.hashing.waiting.try_acquire().map_err(|_| busy())?;
        let _turn = self.hashing.turns.acquire().await.map_err(|_| busy())?;
        tokio::task::spawn_blocking(work).await.map_err(|e| Error::new(Code::Internal, e))
    }
}

/// Turns at hashing.
#[derive(Debug)]
pub(crate) struct Hashing {
    waiting: tokio::sync::Semaphore,
    turns: tokio::sync::Semaphore,
}

impl Default for Hashing {
    fn default() -> Self {
        Self {
            waiting: tokio::sync::Semaphore::new(WAITING_MAX),
            turns: tokio::sync::Semaphore::new(AT_ONCE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_knows_its_password_alone_and_names_its_cost() {
        let hash = hash_now("secret", [7; SALT_BYTES]);
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(verify_now("secret", &hash));
        assert!(!verify_now("Secret", &hash) && !verify_now("", &hash) && !verify_now("secret", "x"));
        assert_ne!(hash, hash_now("secret", [8; SALT_BYTES]));
    }

    #[test]
    fn lengths_are_limited_and_nothing_is_cut() {
        assert!(check("").is_err());
        assert!(check(&"x".repeat(PASSWORD_BYTES_MAX)).is_ok());
        assert!(check(&"x".repeat(PASSWORD_BYTES_MAX + 1)).is_err());
    }
}
