//! Security groups and their rules on the wire.

use super::{Head, Reference, patch::LabelChanges, schema};
use model::{
    meta::Labels,
    security_group::{Direction, Family},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A set of rules. Nothing passes that no rule lets pass; answers to what passed pass too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecurityGroup {
    /// Head.
    #[serde(flatten)]
    pub head: Head,
    /// Rules.
    pub rules: Vec<Rule>,
    /// The project's default group; cannot be deleted.
    pub is_default: bool,
}

/// One rule: traffic that passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    /// Id.
    pub id: Uuid,
    /// Into or out of the instance.
    #[schema(value_type = schema::Direction)]
    pub direction: Direction,
    /// Address family.
    #[schema(value_type = schema::Family)]
    pub family: Family,
    /// Protocol: `any`, a name like `tcp` or a number.
    pub protocol: String,
    /// Destination ports, `80` or `8000-8080`; missing for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
    /// ICMP type; missing for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// ICMP code; missing for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// The other side: `any` or a range of addresses; missing when it is a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The other side as a group: ports that are members of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_group: Option<Reference>,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A new rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRule {
    /// Into or out of the instance.
    #[schema(value_type = schema::Direction)]
    pub direction: Direction,
    /// Address family. When missing it is the peer's; where the peer and protocol have none, a rule is made for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Family>)]
    pub family: Option<Family>,
    /// Protocol: `any`, a name like `tcp` or a number; any when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Destination ports, `80` or `8000-8080`; all when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
    /// ICMP type; all when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// ICMP code; all when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// The other side: `any`, an address or a range; any when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The other side as a group, instead of `peer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_group: Option<String>,
    /// Free text.
    #[serde(default)]
    pub description: String,
}

/// A new group. It lets all traffic out and none in, beside its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSecurityGroup {
    /// Name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// Rules beside those that let all traffic out.
    #[serde(default)]
    pub rules: Vec<CreateRule>,
    /// Leave out the rules that let all traffic out.
    #[serde(default)]
    pub closed: bool,
}

/// Changes to a group. Rules have calls of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateSecurityGroup {
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
