//! SSH keys on the wire.

use super::{Head, Reference, patch::LabelChanges, schema};
use model::{keypair::KeyKind, meta::Labels};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An SSH public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keypair {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// One line in OpenSSH's form, or a certificate in PEM.
    pub public_key: String,
    /// SHA256 fingerprint as `ssh-keygen -l` prints it, or of the certificate.
    pub fingerprint: String,
    /// What it is.
    #[serde(default)]
    #[schema(value_type = schema::KeyKind)]
    pub kind: KeyKind,
    /// User whose own it is, in every project; missing for one of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Reference>,
    /// Instances that are to let its holder in.
    #[serde(default)]
    pub instances: Vec<Reference>,
}

/// A public key to import. holm never sees a private key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKeypair {
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// What it is: an SSH key unless said.
    #[serde(default)]
    #[schema(value_type = schema::KeyKind)]
    pub kind: KeyKind,
    /// One line in OpenSSH's form, or a certificate in PEM.
    pub public_key: String,
}

/// What came of taking a key back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokedKeypair {
    /// Instances that were to let its holder in and are no more. What their guests still do, each says itself
    /// (`keys_pending`).
    pub instances: Vec<Reference>,
}

/// Changes to a key's record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateKeypair {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Labels to set; `null` removes one.
    #[serde(skip_serializing_if = "LabelChanges::is_empty")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub labels: LabelChanges,
}
