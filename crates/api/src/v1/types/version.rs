//! Versions: what this holm is and which API it speaks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The native API's version; it changes only when clients would break.
pub const API_VERSION: &str = "v1";

/// What answers here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Always `holm`.
    pub name: String,
    /// Version of holm.
    pub version: String,
    /// Versions of the native API that it speaks.
    pub api_versions: Vec<String>,
    /// Who the caller is taken for.
    pub caller: CallerView,
    /// How OpenStack's clients get in, if that door is open; told to admins alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openstack: Option<OpenStackView>,
    /// Address at which everybody may fetch public root file systems, if the operator switched that on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_server: Option<String>,
}

/// How OpenStack's clients get in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenStackView {
    /// Address of Identity, for `OS_AUTH_URL`.
    pub auth_url: String,
    /// Name of the region.
    pub region: String,
    /// File on holm's host with the certificate to trust, if the door speaks TLS.
    pub ca_file: Option<String>,
    /// File on holm's host with the first password of the user `admin`, which root alone can read.
    pub password_file: String,
}

/// Who a caller is taken for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallerView {
    /// Name of the token, or `root` or a user id on the local socket.
    pub actor: String,
    /// `admin`, `member` or `reader`.
    pub role: String,
    /// The project that calls are about unless they name another.
    pub project: super::Reference,
}
