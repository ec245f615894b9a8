//! Ids as docker has them, 64 hex digits, made of holm's UUIDs and read back.
//!
//! The first 32 digits are the UUID's own, so that an id and any beginning of it that docker shows (12 digits) is found
//! on every other door as well. The rest follows from the UUID.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Digits of an id that a table shows.
pub const SHORT_DIGITS: usize = 12;

/// The id of a record.
pub fn of(id: impl Into<Uuid>) -> String {
    let id: Uuid = id.into();
    let rest = hex::encode(&Sha256::digest(id.as_bytes())[..16]);
    format!("{}{rest}", id.simple())
}

/// The beginning of it that tables show.
pub fn short(id: impl Into<Uuid>) -> String {
    let mut id = of(id);
    id.truncate(SHORT_DIGITS);
    id
}

/// The UUID that a whole id stands for; also one written as a UUID.
pub fn parse(text: &str) -> Option<Uuid> {
    match text.len() {
        64 => {
            let id = Uuid::try_parse(text.get(..32)?).ok()?;
            (of(id) == text).then_some(id)
        }
        36 => Uuid::try_parse(text).ok(),
        _ => None,
    }
}

/// What of a beginning of an id is the UUID's own.
pub fn own_digits(prefix: &str) -> &str {
    &prefix[..prefix.len().min(32)]
}

/// Whether a text may be the beginning of an id.
pub fn is_prefix(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_back_to_their_records() {
        let uuid = Uuid::parse_str("6f1c2d3e-4a5b-4c6d-8e7f-001122334455").unwrap();
        let id = of(uuid);
        assert_eq!((id.len(), short(uuid).as_str()), (64, "6f1c2d3e4a5b"));
        assert!(id.starts_with("6f1c2d3e4a5b4c6d8e7f001122334455") && is_prefix(&id));
        assert_eq!(parse(&id), Some(uuid));
        assert_eq!(parse(&uuid.to_string()), Some(uuid));
        let forged = format!("{}{}", &id[..63], if id.ends_with('0') { '1' } else { '0' });
        assert_eq!(parse(&forged), None);
        assert!(!is_prefix("") && !is_prefix("web") && is_prefix("6f"));
    }
}
