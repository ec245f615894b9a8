//! Builds of images on the wire.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What is to be built of the context that is the call's body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct BuildQuery {
    /// Names of the image, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
    /// Path of the Dockerfile in the context; `Dockerfile` when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// Build arguments: a JSON object of texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<String>,
    /// Labels of the image: a JSON object of texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// The stage that is wanted; the last when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `1` to take nothing from earlier builds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_cache: Option<u8>,
    /// `1` to ask registries for the images anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<u8>,
    /// Network of programs that are run: `none`, or a network's name or id; the project's own when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Memory of programs that are run, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
}

/// One line of what a build tells. The last one has an image or an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildLine {
    /// Text as it comes, with its line ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Id of the image that was made: the digest of its config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Exit code of the program that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
}
