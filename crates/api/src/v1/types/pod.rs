//! What only pods have, on the wire: files, mounts and probes of containers.

use model::{
    health::probe::{self, Action},
    instance::{
        content::{File, FileSet, Mount, Shows},
        tag::Tag,
    },
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A set of files that are mounted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSetRequest {
    /// What `mounts` call it.
    #[schema(value_type = String)]
    pub name: Tag,
    /// The files.
    pub files: Vec<FileRequest>,
}

/// A file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRequest {
    /// Path in the set.
    pub path: String,
    /// Permissions; 420 (0644 in octal digits) when missing.
    #[serde(default = "usual_mode")]
    pub mode: u32,
    /// Its bytes in base64.
    pub content: String,
}

impl std::fmt::Debug for FileRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} characters)", self.path, self.content.len())
    }
}

/// Values by name that are not shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretValues(pub BTreeMap<String, String>);

impl SecretValues {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn usual_mode() -> u32 {
    0o644
}

/// A set of files, as its instance tells it: what is in them is not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileSetNames {
    /// What `mounts` call it.
    pub name: String,
    /// Its files.
    pub files: Vec<FileName>,
}

/// A file of a set, without what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileName {
    /// Path in the set.
    pub path: String,
    /// Permissions.
    pub mode: u32,
}

impl From<&FileSet> for FileSetNames {
    fn from(set: &FileSet) -> Self {
        let file = |file: &File| FileName { path: file.path.clone(), mode: file.mode };
        Self { name: set.name.to_string(), files: set.files.iter().map(file).collect() }
    }
}

/// Where a container sees a volume or a set of files of its instance: one of the two is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerMount {
    /// Tag of the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub volume: Option<Tag>,
    /// Name of the set of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub files: Option<Tag>,
    /// Where.
    pub path: String,
    /// One file or directory of the set, instead of all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
    /// Writes are refused; of files they always are.
    pub read_only: bool,
}

impl ContainerMount {
    /// The same for the cloud; `None` unless one of volume and files is named.
    pub fn mount(&self) -> Option<Mount> {
        let shows = match (&self.volume, &self.files) {
            (Some(tag), None) => Shows::Volume(tag.clone()),
            (None, Some(name)) => Shows::Files(name.clone()),
            _ => return None,
        };
        let (path, sub_path, read_only) = (self.path.clone(), self.sub_path.clone(), self.read_only);
        Some(Mount { shows, path, sub_path, read_only })
    }
}

impl From<&Mount> for ContainerMount {
    fn from(mount: &Mount) -> Self {
        let (volume, files) = match &mount.shows {
            Shows::Volume(tag) => (Some(tag.clone()), None),
            Shows::Files(name) => (None, Some(name.clone())),
        };
        let (path, sub_path, read_only) = (mount.path.clone(), mount.sub_path.clone(), mount.read_only);
        Self { volume, files, path, sub_path, read_only }
    }
}

/// What is asked of a container again and again, and what follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Probes {
    /// Until it has succeeded no other is asked; failed too often, the container is ended and its restart policy decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// While it fails, no name that several instances share leads here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// Failed too often, the container is ended and its restart policy decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
}

/// A probe: one of `exec`, `tcp` and `http`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ContainerProbe)]
pub struct Probe {
    /// A program in the container, which ends with 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// A port on which the pod takes connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<u16>,
    /// A page that the pod serves with a status from 200 to 399.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// Milliseconds from the container's start to the first, at most 86400000; 0 is usual.
    pub delay_ms: u64,
    /// Milliseconds from the end of one to the next, 100 to 86400000; 10000 is usual.
    pub interval_ms: u64,
    /// Milliseconds that one may take, 100 to 86400000; 1000 is usual.
    pub timeout_ms: u64,
    /// Successes in a row until it counts as good, 1 to 1000; 1 is usual.
    pub successes: u32,
    /// Failures in a row until it counts as bad, 1 to 1000; 3 is usual.
    pub failures: u32,
}

/// A question by HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// Port.
    pub port: u16,
    /// Path and query; `/` when missing.
    #[serde(default = "root")]
    pub path: String,
    /// Further headers, as pairs of name and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Vec<String>>)]
    pub headers: Vec<(String, String)>,
}

fn root() -> String {
    "/".into()
}

impl Default for Probe {
    fn default() -> Self {
        let (delay_ms, interval_ms, timeout_ms, successes, failures) = (0, 10_000, 1_000, 1, 3);
        let (exec, tcp, http) = (None, None, None);
        Self { exec, tcp, http, delay_ms, interval_ms, timeout_ms, successes, failures }
    }
}

impl Probe {
    /// The same for the cloud; `None` unless one of the three questions is asked.
    pub fn probe(&self) -> Option<probe::Probe> {
        let action = match (&self.exec, self.tcp, &self.http) {
            (Some(argv), None, None) => Action::Exec { argv: argv.clone() },
            (None, Some(port), None) => Action::Tcp { port },
            (None, None, Some(asked)) => {
                let (port, path, headers) = (asked.port, asked.path.clone(), asked.headers.clone());
                Action::Http { port, path, headers }
            }
            _ => return None,
        };
        let Self { delay_ms, interval_ms, timeout_ms, successes, failures, .. } = *self;
        Some(probe::Probe { action, delay_ms, interval_ms, timeout_ms, successes, failures })
    }
}

impl From<&probe::Probe> for Probe {
    fn from(probe: &probe::Probe) -> Self {
        let probe::Probe { delay_ms, interval_ms, timeout_ms, successes, failures, .. } = *probe;
        let rest = Self { delay_ms, interval_ms, timeout_ms, successes, failures, ..Self::default() };
        match probe.action.clone() {
            Action::Exec { argv } => Self { exec: Some(argv), ..rest },
            Action::Tcp { port } => Self { tcp: Some(port), ..rest },
            Action::Http { port, path, headers } => {
                Self { http: Some(HttpProbe { port, path, headers }), ..rest }
            }
        }
    }
}

impl Probes {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.startup.is_none() && self.readiness.is_none() && self.liveness.is_none()
    }

    /// The same for the cloud.
    ///
    /// # Errors
    /// The name of a probe that asks nothing, or more than one question.
    pub fn probes(&self) -> Result<probe::Probes, &'static str> {
        let read = |name, asked: &Option<Probe>| match asked {
            None => Ok(None),
            Some(asked) => asked.probe().map(Some).ok_or(name),
        };
        Ok(probe::Probes {
            startup: read("startup", &self.startup)?,
            readiness: read("readiness", &self.readiness)?,
            liveness: read("liveness", &self.liveness)?,
        })
    }
}

impl From<&probe::Probes> for Probes {
    fn from(probes: &probe::Probes) -> Self {
        let told = |probe: &Option<probe::Probe>| probe.as_ref().map(Probe::from);
        Self {
            startup: told(&probes.startup),
            readiness: told(&probes.readiness),
            liveness: told(&probes.liveness),
        }
    }
}
