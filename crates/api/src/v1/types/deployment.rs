//! Deployments on the wire.

use super::{Fault, Head, instance::CreateInstance, patch::nullable};
use jiff::Timestamp;
use model::{
    deployment::{self, Kind},
    meta::Labels,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// So many copies of one instance, which holm makes, replaces and removes by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployment {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// `deployment`, or `daemonset`: one copy for each host.
    #[schema(value_type = String)]
    pub kind: Kind,
    /// Copies that are wanted.
    pub replicas: u32,
    /// Tells its copies from those before another template or a restart. They have it as their label `kube-digest`.
    pub revision: String,
    /// When copies anew were last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub restarted_at: Option<Timestamp>,
    /// The old copies go before new ones come.
    pub recreate: bool,
    /// All copies, those that are on their way out included.
    pub copies: u32,
    /// Copies of this revision that are there to stay.
    pub current: u32,
    /// Of these, those that can be given work.
    pub ready: u32,
    /// The rule by which there are more or fewer copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
    /// Percent of the CPU time that they ask for which copies used when that rule last looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_percent: Option<u32>,
    /// holm has looked at the last change.
    pub is_observed: bool,
    /// Why there are not as many copies as are wanted; holm goes on trying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

impl Deployment {
    /// Kind and name, like `deployment/web`: the label `kube` of its copies.
    pub fn reference(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.head.name)
    }

    /// There are as many copies as are wanted, all of this revision and all of use.
    pub fn is_complete(&self) -> bool {
        self.is_observed && [self.copies, self.current, self.ready] == [self.replicas; 3]
    }
}

/// A rule by which there are more or fewer copies: as many as use, on average, so much of the CPU time that they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Autoscale {
    /// Least copies, at least 1.
    pub replicas_min: u32,
    /// Most copies, at most 100.
    pub replicas_max: u32,
    /// Percent of the CPU time that they ask for which copies are to use; a tenth more or less changes nothing.
    pub cpu_percent: u32,
    /// CPU time that a copy asks for, in thousandths of a CPU.
    pub cpu_asked_millis: u32,
    /// Seconds within which the highest recommendation counts before there are fewer copies; 300 when missing, at most 3600.
    #[serde(default = "usual_window")]
    pub down_window_s: u32,
}

fn usual_window() -> u32 {
    deployment::autoscale::DOWN_WINDOW_S_USUAL
}

impl From<deployment::autoscale::Autoscale> for Autoscale {
    fn from(rule: deployment::autoscale::Autoscale) -> Self {
        let deployment::autoscale::Autoscale {
            replicas_min,
            replicas_max,
            cpu_percent,
            cpu_asked_millis,
            down_window_s,
        } = rule;
        Self { replicas_min, replicas_max, cpu_percent, cpu_asked_millis, down_window_s }
    }
}

impl From<Autoscale> for deployment::autoscale::Autoscale {
    fn from(rule: Autoscale) -> Self {
        let Autoscale { replicas_min, replicas_max, cpu_percent, cpu_asked_millis, down_window_s } = rule;
        Self { replicas_min, replicas_max, cpu_percent, cpu_asked_millis, down_window_s }
    }
}

/// What copies are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateRequest {
    /// A copy, without a name. Where its texts and files hold the character U+E000, `name of the copy` and U+E000 again, a
    /// copy has its own name there. It is kept sealed and not told again; at most 704 KiB.
    pub instance: CreateInstance,
    /// Tells it from others: 5 to 20 small letters and digits. Copies of another revision are replaced, one after the other.
    pub revision: String,
    /// The old copies go before new ones come.
    #[serde(default)]
    pub recreate: bool,
}

/// A new deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDeployment {
    /// Name; its copies are called after it.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// `deployment` or `daemonset`.
    #[schema(value_type = String)]
    pub kind: Kind,
    /// Copies that are wanted, at most 100.
    pub replicas: u32,
    /// What these are made of.
    pub template: TemplateRequest,
    /// The rule by which there are more or fewer; `replicas` is where it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
}

/// Changes to a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateDeployment {
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Copies that are wanted, at most 100. Alone it is refused where a rule scales it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// What these are made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateRequest>,
    /// The rule by which there are more or fewer; `null` for no longer.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    #[schema(value_type = Option<Autoscale>)]
    pub autoscale: Option<Option<Autoscale>>,
    /// When copies anew are asked for: another time than before replaces all that are there, as another template does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub restarted_at: Option<Timestamp>,
}
