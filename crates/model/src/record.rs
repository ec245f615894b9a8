//! What a stored record is: a table, a version and a key.
//!
//! The store keeps every record in an envelope with its version. A newer holm reads older records through
//! [`Record::upgrade`]; golden records in the tests keep that promise honest.

use serde::{Serialize, de::DeserializeOwned};

/// A value that the store keeps in a typed table.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Name of the table, the same for the life of the product.
    const TABLE: &'static str;
    /// Version of the stored form; raised when the form changes in a way that serde defaults cannot carry.
    const VERSION: u32 = 1;

    /// The record's key inside its table.
    fn key(&self) -> String;

    /// Turns a stored value of version `from` into the form of [`Self::VERSION`].
    ///
    /// # Errors
    /// A sentence that says what in the old value cannot be understood.
    fn upgrade(from: u32, value: serde_json::Value) -> Result<serde_json::Value, String> {
        let _ = from;
        Ok(value)
    }
}
