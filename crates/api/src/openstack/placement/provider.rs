//! Resource providers: the hosts, what they have and what instances take of it.

use crate::openstack::{Door, Fault, Microversion, Result, Session, paging::same_id, query::Query};
use crate::routing::{Router, get};
use axum::{
    Json,
    extract::{Path, State},
};
use control::{
    Control,
    instance::{CPU_OVERCOMMIT, CPU_SHARE_MAX, RESERVED_MIB},
};
use model::{
    id::{InstanceId, NodeId, ProjectId},
    instance::{Instance, Power},
    node::{Node, NodeStatus},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The classes of resources that hosts have here.
pub const CLASSES: [&str; 3] = ["VCPU", "MEMORY_MB", "DISK_GB"];

/// An amount of each class.
pub type Amounts = BTreeMap<&'static str, u64>;

/// A host as a provider of resources.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Raised with each change of what it has.
    pub generation: u64,
    /// What it has.
    pub has: Amounts,
    /// Whether new instances may be placed there.
    pub takes_new: bool,
    /// What each instance there takes.
    pub taken: Vec<(InstanceId, ProjectId, Amounts)>,
    /// What it can do, in Placement's words.
    pub traits: Vec<&'static str>,
}

/// What an instance takes, as control's scheduler counts it: processors and memory while it is meant to run, and memory
/// only for those with a kernel of their own, since a container's is a limit and not a promise.
fn amounts(instance: &Instance) -> Amounts {
    let size = &instance.size;
    let runs = instance.power != Power::Off;
    let all = [
        ("VCPU", if runs { u64::from(size.vcpus) } else { 0 }),
        ("MEMORY_MB", if runs && instance.has_own_kernel() { size.memory_mib } else { 0 }),
        ("DISK_GB", size.disk_gib),
    ];
    all.into_iter().filter(|(_, amount)| *amount > 0).collect()
}

impl Provider {
    /// All hosts, by name.
    pub fn all(control: &Control) -> Vec<Self> {
        let instances = control.store().list::<Instance>();
        let mut all: Vec<Self> = control
            .store()
            .list::<Node>()
            .iter()
            .map(|stored| {
                let node = &stored.record;
                let status = control.store().get::<NodeStatus>(&node.id.to_string());
                let status = status.as_ref().map(|s| &s.record);
                let has = [
                    ("VCPU", status.map_or(0, |s| u64::from(s.cpus))),
                    ("MEMORY_MB", status.map_or(0, |s| s.memory_mib)),
                    ("DISK_GB", status.map_or(0, |s| s.disk_gib)),
                ];
                let here = instances.iter().filter(|i| i.record.node == Some(node.id));
                let taken =
                    here.map(|i| (i.record.meta.id, i.record.meta.project, amounts(&i.record))).collect();
                Self {
                    id: node.id,
                    name: node.name.to_string(),
                    generation: stored.mod_revision.0,
                    has: has.into_iter().filter(|(_, amount)| *amount > 0).collect(),
                    takes_new: node.schedulable,
                    taken,
                    traits: traits(status),
                }
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The host of this id.
    ///
    /// # Errors
    /// 404.
    pub fn find(control: &Control, id: &str) -> Result<Self> {
        let missing = || Fault::not_found("Resource provider", id);
        Self::all(control).into_iter().find(|p| same_id(&p.id.to_string(), id)).ok_or_else(missing)
    }

    /// What is taken of each class.
    pub fn used(&self) -> Amounts {
        let mut used: Amounts = self.has.keys().map(|class| (*class, 0)).collect();
        for (_, _, amounts) in &self.taken {
            for (class, amount) in amounts {
                *used.entry(*class).or_default() += amount;
            }
        }
        used
    }

    /// How much of a class may be taken in all: processors are shared, memory and disks are not.
    pub fn capacity(&self, class: &str) -> u64 {
        let total = self.has.get(class).copied().unwrap_or(0);
        total.saturating_sub(reserved(class)) * ratio(class)
    }

    /// How much of a class one instance may have.
    pub fn share_max(&self, class: &str) -> u64 {
        let total = self.has.get(class).copied().unwrap_or(0);
        if class == "VCPU" { total.max(1) * CPU_SHARE_MAX } else { total }
    }

    fn inventory(&self, class: &str) -> Option<Value> {
        let total = *self.has.get(class)?;
        Some(json!({
            "total": total,
            "reserved": reserved(class),
            "min_unit": 1,
            "max_unit": self.share_max(class),
            "step_size": 1,
            "allocation_ratio": ratio(class) as f64,
        }))
    }

    fn view(&self, version: Microversion) -> Value {
        let path = format!("/resource_providers/{}", self.id);
        let mut links = vec![json!({ "rel": "self", "href": path })];
        let further =
            [(0, "inventories"), (0, "usages"), (1, "aggregates"), (6, "traits"), (11, "allocations")];
        for (_, name) in further.iter().filter(|(since, _)| version.has(1, *since)) {
            links.push(json!({ "rel": name, "href": format!("{path}/{name}") }));
        }
        let mut view =
            json!({ "uuid": self.id, "name": self.name, "generation": self.generation, "links": links });
        if version.has(1, 14) {
            view["root_provider_uuid"] = json!(self.id);
            view["parent_provider_uuid"] = Value::Null;
        }
        view
    }
}

/// How often a class is promised by control's scheduler.
fn ratio(class: &str) -> u64 {
    if class == "VCPU" { CPU_OVERCOMMIT } else { 1 }
}

/// What a host keeps of a class for itself.
fn reserved(class: &str) -> u64 {
    if class == "MEMORY_MB" { RESERVED_MIB } else { 0 }
}

fn traits(status: Option<&NodeStatus>) -> Vec<&'static str> {
    let mut all = vec!["COMPUTE_IMAGE_TYPE_ISO", "COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_IMAGE_TYPE_RAW"];
    if status.is_some_and(|status| status.arch == "x86_64") {
        all.push("HW_ARCH_X86_64");
    }
    all.sort_unstable();
    all
}

/// The routes.
pub fn router() -> Router<Door> {
    Router::new()
        .route("/resource_providers", get(list))
        .route("/resource_providers/{id}", get(show))
        .route("/resource_providers/{id}/inventories", get(inventories))
        .route("/resource_providers/{id}/inventories/{class}", get(inventory))
        .route("/resource_providers/{id}/usages", get(usages))
        .route("/resource_providers/{id}/aggregates", get(aggregates))
        .route("/resource_providers/{id}/traits", get(traits_of))
        .route("/resource_providers/{id}/allocations", get(allocations))
}

async fn list(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    query: Query,
) -> Result<Json<Value>> {
    session.require_admin("placement:resource_providers:list")?;
    let mut all = Provider::all(door.control());
    for (key, text) in query.pairs() {
        match key {
            "name" => all.retain(|p| p.name == text),
            "uuid" | "in_tree" => all.retain(|p| same_id(&p.id.to_string(), text)),
            "resources" => {
                let wanted = super::candidate::resources(text)?;
                all.retain(|p| super::candidate::fits(p, &wanted));
            }
            "required" => {
                let wanted = super::candidate::Traits::parse(text)?;
                all.retain(|p| wanted.fit(p));
            }
            // There are no aggregates, so nobody is a member of one.
            "member_of" => all.retain(|_| text.starts_with('!')),
            _ => {
                return Err(Fault::invalid(format!(
                    "Invalid query string parameters: '{key}' was unexpected"
                )));
            }
        }
    }
    let views: Vec<Value> = all.iter().map(|p| p.view(version)).collect();
    Ok(Json(json!({ "resource_providers": views })))
}

async fn show(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    session.require_admin("placement:resource_providers:show")?;
    Ok(Json(Provider::find(door.control(), &id)?.view(version)))
}

async fn inventories(
    State(door): State<Door>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    session.require_admin("placement:resource_providers:inventories:list")?;
    let provider = Provider::find(door.control(), &id)?;
    let all: Map<String, Value> =
        CLASSES.iter().filter_map(|class| Some(((*class).to_string(), provider.inventory(class)?))).collect();
    Ok(Json(json!({ "inventories": all, "resource_provider_generation": provider.generation })))
}

async fn inventory(
    State(door): State<Door>,
    session: Session,
    Path((id, class)): Path<(String, String)>,
) -> Result<Json<Value>> {
    session.require_admin("placement:resource_providers:inventories:show")?;
    let provider = Provider::find(door.control(), &id)?;
    let missing = || Fault::not_found("Inventory of class", &class);
    let mut view = provider.inventory(&class).ok_or_else(missing)?;
    view["resource_provider_generation"] = json!(provider.generation);
    Ok(Json(view))
}

async fn usages(State(door): State<Door>, session: Session, Path(id): Path<String>) -> Result<Json<Value>> {
    session.require_admin("placement:resource_providers:usages")?;
    let provider = Provider::find(door.control(), &id)?;
    Ok(Json(json!({ "usages": provider.used(), "resource_provider_generation": provider.generation })))
}

async fn aggregates(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    version.require(1, 1)?;
    session.require_admin("placement:resource_providers:aggregates:list")?;
    let provider = Provider::find(door.control(), &id)?;
    let mut view = json!({ "aggregates": [] });
    if version.has(1, 19) {
        view["resource_provider_generation"] = json!(provider.generation);
    }
    Ok(Json(view))
}

async fn traits_of(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    version.require(1, 6)?;
    session.require_admin("placement:resource_providers:traits:list")?;
    let provider = Provider::find(door.control(), &id)?;
    Ok(Json(json!({ "traits": provider.traits, "resource_provider_generation": provider.generation })))
}

async fn allocations(
    State(door): State<Door>,
    session: Session,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    session.require_admin("placement:resource_providers:allocations:list")?;
    let provider = Provider::find(door.control(), &id)?;
    let all: Map<String, Value> = provider
        .taken
        .iter()
        .map(|(consumer, _, amounts)| {
            let mut one = json!({ "resources": amounts });
            if version.has(1, 28) {
                one["consumer_generation"] = json!(1);
            }
            (consumer.to_string(), one)
        })
        .collect();
    Ok(Json(json!({ "allocations": all, "resource_provider_generation": provider.generation })))
}
