//! The stored form of a record: `{"v":VERSION,"r":{...}}`.
//!
//! It exists so that a newer binary can read what an older one wrote: the version is read first, an
//! older value is upgraded, and only then it is parsed. It must never write during a read; an upgraded record
//! gets its new form when it is next changed.

use bytes::Bytes;
use model::record::Record;
use serde::{Deserialize, Serialize, de::Error as _};
use serde_json::{Value, value::RawValue};

#[derive(Serialize)]
struct Written<'a, R> {
    v: u32,
    r: &'a R,
}

#[derive(Deserialize)]
struct Read<'a> {
    v: u32,
    #[serde(borrow)]
    r: &'a RawValue,
}

/// Why stored bytes are no record of this table.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the envelope at all.
    #[error("it is not a record envelope: {0}")]
    Envelope(serde_json::Error),
    /// Written by a newer version of the program.
    #[error("it was written in version {found} by a newer holm; this one knows versions up to {known}")]
    Newer {
        /// The version found.
        found: u32,
        /// The newest version this program knows.
        known: u32,
    },
    /// The record could not be brought from an older version to today's.
    #[error("upgrade from version {from} failed: {reason}")]
    Upgrade {
        /// The version found.
        from: u32,
        /// What the record said.
        reason: String,
    },
    /// The right version, but not the right shape.
    #[error("it does not have the shape of version {version}: {error}")]
    Shape {
        /// The version whose shape it should have.
        version: u32,
        /// What the parser said.
        error: serde_json::Error,
    },
}

/// The stored form of a record. Fails only for a record that JSON cannot express.
pub fn encode<R: Record>(record: &R) -> Result<Bytes, serde_json::Error> {
    if R::TABLE.is_empty() || R::TABLE.contains('/') {
        return Err(serde_json::Error::custom(format!("{:?} cannot be the name of a table", R::TABLE)));
    }
    serde_json::to_vec(&Written { v: R::VERSION, r: record }).map(Bytes::from)
}

/// The record from its stored form, upgraded if an older version wrote it.
pub fn decode<R: Record>(bytes: &[u8]) -> Result<R, DecodeError> {
    let read: Read<'_> = serde_json::from_slice(bytes).map_err(DecodeError::Envelope)?;
    let shape = |error| DecodeError::Shape { version: R::VERSION, error };
    if read.v == R::VERSION {
        return serde_json::from_str(read.r.get()).map_err(shape);
    }
    if read.v > R::VERSION {
        return Err(DecodeError::Newer { found: read.v, known: R::VERSION });
    }
    let value: Value = serde_json::from_str(read.r.get()).map_err(DecodeError::Envelope)?;
    let value = R::upgrade(read.v, value).map_err(|reason| DecodeError::Upgrade { from: read.v, reason })?;
    serde_json::from_value(value).map_err(shape)
}
