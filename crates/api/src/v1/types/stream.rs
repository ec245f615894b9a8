//! What streams are asked for: exec, attach, logs and the console's log.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A program to run in a container beside its own. Sent as the body of the upgrade request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExecRequest {
    /// Container of the pod; the first when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment beside the container's.
    pub env: std::collections::BTreeMap<String, String>,
    /// Working directory; the container's when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User; the container's when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A terminal.
    pub tty: bool,
    /// Send standard input; else it is empty.
    pub stdin: bool,
    /// Rows of the terminal at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// Columns of the terminal at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<u16>,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Container of the pod; the first when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Only the last lines; all when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
    /// Only lines at or after this time: RFC 3339 or seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// `1` to go on as new lines come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<u8>,
    /// `plain` for the bytes alone, `ndjson` (the default) for one [`LogLine`] per line.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub format: Option<LogFormat>,
}

/// How a log is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Ndjson,
    /// The bytes that were written, both streams as they came.
    Plain,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When it was written, RFC 3339 with nanoseconds.
    #[schema(value_type = String, format = DateTime)]
    pub time: jiff::Timestamp,
    /// `stdout` or `stderr`.
    pub stream: LogStream,
    /// The line with its end, if it had one; bytes that are no UTF-8 are replaced.
    pub text: String,
    /// The bytes in base64, only where they are no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// Which stream a line came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How much of the console's log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ConsoleLogQuery {
    /// Most bytes, of the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    /// Most lines, of the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
}

/// How the console is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ConsoleQuery {
    /// With root of the VM logged in, without a password, as long as this console is open. Its guest agent and systemd do
    /// that; whoever was logged in there is logged out.
    pub login: bool,
}

/// Which container to attach to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AttachQuery {
    /// Container of the pod; the first when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}
