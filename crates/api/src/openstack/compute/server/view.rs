//! What clients see of a server, in the form of each microversion.
//!
//! Nova's clients check replies strictly, so each field stands here beside the version that brought it.

use super::state::State;
use crate::openstack::{Base, Microversion, Session, door::Service};
use control::Control;
use jiff::Timestamp;
use model::{
    flavor::{Flavor, Size},
    instance::{Instance, InstanceStatus, Kind, State as Seen},
    network::Network,
    node::Node,
    port::Port,
    security_group::SecurityGroup,
    server_group::ServerGroup,
    volume::Volume,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha224};
use std::collections::BTreeSet;

/// The zone that all hosts are in.
pub const ZONE: &str = "nova";

/// The cloud as one call sees it.
pub struct Looker<'a> {
    /// The cloud.
    pub control: &'a Control,
    /// Links begin with it.
    pub base: &'a Base,
    /// The form that is asked for.
    pub version: Microversion,
    /// Fields for admins are shown.
    pub is_admin: bool,
}

/// How much of a server a reply has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// One server, as it is shown.
    Whole,
    /// One of a list.
    Listed,
    /// After a change or a rebuild, which had fewer fields before 2.75.
    Changed,
}

impl<'a> Looker<'a> {
    /// For one reply.
    pub fn new(control: &'a Control, session: &Session, base: &'a Base, version: Microversion) -> Self {
        Self { control, base, version, is_admin: session.is_admin() }
    }

    /// Name, id and links alone.
    pub fn brief(&self, instance: &Instance) -> Value {
        let id = instance.meta.id.to_string();
        json!({ "id": id, "name": instance.meta.name, "links": self.links("servers", &id) })
    }

    /// The links of a thing.
    pub fn links(&self, collection: &str, id: &str) -> Value {
        json!([
            { "rel": "self", "href": self.base.link(&format!("/v2.1/{collection}/{id}")) },
            { "rel": "bookmark", "href": self.base.link(&format!("/{collection}/{id}")) },
        ])
    }

    fn bookmark(&self, service: Service, collection: &str, id: &str) -> Value {
        json!([{ "rel": "bookmark", "href": self.base.link_to(service, &format!("/{collection}/{id}")) }])
    }

    /// A server.
    pub fn server(&self, instance: &Instance, extent: Extent) -> Value {
        let known = self.control.instance_status(instance.meta.id);
        let status = known.as_ref().map(|s| &s.record);
        let state = State::of(instance, self.control.phase(instance), status);
        let ports = self.control.ports_of(&instance.ports);
        let full = extent != Extent::Changed || self.version.has(2, 75);
        let mut out = Map::new();
        self.common(&mut out, instance, state, status, &ports, full);
        if full {
            self.extensions(&mut out, instance, state, status, &ports);
        }
        self.newer(&mut out, instance, extent);
        Value::Object(out)
    }

    fn common(
        &self,
        out: &mut Map<String, Value>,
        instance: &Instance,
        state: State,
        status: Option<&InstanceStatus>,
        ports: &[Port],
        full: bool,
    ) {
        let id = instance.meta.id.to_string();
        out.insert("links".into(), self.links("servers", &id));
        out.insert("id".into(), id.into());
        out.insert("name".into(), json!(instance.meta.name));
        out.insert("status".into(), state.status.into());
        out.insert("tenant_id".into(), instance.meta.project.hex().into());
        out.insert("user_id".into(), user_of(instance).into());
        out.insert("metadata".into(), json!(instance.meta.labels));
        out.insert("hostId".into(), host_id(instance).into());
        out.insert("image".into(), self.image(instance));
        out.insert("flavor".into(), self.flavor(instance));
        out.insert("created".into(), seconds(instance.meta.created_at).into());
        let updated = status.map_or(instance.meta.updated_at, |s| s.at.max(instance.meta.updated_at));
        out.insert("updated".into(), seconds(updated).into());
        out.insert("addresses".into(), self.addresses(ports, full));
        out.insert("accessIPv4".into(), instance.access.v4.map_or(String::new(), |a| a.to_string()).into());
        out.insert("accessIPv6".into(), instance.access.v6.map_or(String::new(), |a| a.to_string()).into());
        out.insert("OS-DCF:diskConfig".into(), "MANUAL".into());
        if state.has_progress() {
            out.insert("progress".into(), if state.vm_state == "building" { 0 } else { 100 }.into());
        }
        if let (Some(fault), "ERROR") = (status.and_then(|s| s.fault.as_ref()), state.status) {
            let code = fault.code.http_status();
            let shown = json!({ "code": code, "created": seconds(fault.since), "message": fault.message });
            out.insert("fault".into(), shown);
        }
    }

    fn image(&self, instance: &Instance) -> Value {
        let image = instance.image.or_else(|| instance.containers.first()?.image);
        match image {
            None => "".into(),
            Some(id) => {
                let id = id.to_string();
                json!({ "id": id, "links": self.bookmark(Service::Compute, "images", &id) })
            }
        }
    }

    fn flavor(&self, instance: &Instance) -> Value {
        if self.version.has(2, 47) {
            let extra = instance.flavor.and_then(|id| self.control.get::<Flavor>(id));
            let extra = extra.map(|f| f.record.extra_specs.clone()).unwrap_or_default();
            let Size { vcpus, memory_mib, .. } = instance.size;
            return json!({
                "vcpus": vcpus, "ram": memory_mib, "disk": self.disk_of(instance), "ephemeral": 0, "swap": 0,
                "original_name": instance.flavor_name, "extra_specs": extra,
            });
        }
        match instance.flavor {
            // What was given its size by number has no flavor to link to.
            None => json!({}),
            Some(id) => {
                // One that is gone has no more than its id.
                let known = self.control.get::<Flavor>(id);
                let id = known.map_or(id.to_string(), |flavor| flavor.record.openstack_id());
                json!({ "id": id, "links": self.bookmark(Service::Compute, "flavors", &id) })
            }
        }
    }

    fn disk_of(&self, instance: &Instance) -> u64 {
        instance.size.disk_gib
    }

    /// Addresses by the names of networks.
    pub fn addresses(&self, ports: &[Port], full: bool) -> Value {
        let mut by_network: Map<String, Value> = Map::new();
        for port in ports {
            let network = self.control.get::<Network>(port.network);
            let name = network.map_or(port.network.to_string(), |n| n.record.meta.name.to_string());
            let list = by_network.entry(name).or_insert_with(|| json!([]));
            let fixed = port.addresses.iter().map(|fixed| (fixed.address, "fixed"));
            let floating = self.control.floating_of(port.meta.id);
            let floating =
                floating.iter().filter(|f| !f.record.internal).map(|f| (f.record.address, "floating"));
            for (address, kind) in fixed.chain(floating) {
                let version = if address.is_ipv4() { 4 } else { 6 };
                let mut shown = json!({ "version": version, "addr": address });
                if full {
                    shown["OS-EXT-IPS:type"] = kind.into();
                    shown["OS-EXT-IPS-MAC:mac_addr"] = port.mac.to_string().into();
                }
                list.as_array_mut().expect("made as one").push(shown);
            }
        }
        Value::Object(by_network)
    }

    fn extensions(
        &self,
        out: &mut Map<String, Value>,
        instance: &Instance,
        state: State,
        status: Option<&InstanceStatus>,
        ports: &[Port],
    ) {
        out.insert(
            "OS-EXT-AZ:availability_zone".into(),
            if instance.node.is_some() { ZONE } else { "" }.into(),
        );
        out.insert("config_drive".into(), if instance.config_drive { "True" } else { "" }.into());
        out.insert("key_name".into(), json!(instance.keys.first().map(|(name, _)| name)));
        let launched = match status.map(|s| &s.state) {
            Some(Seen::Running { since } | Seen::Paused { since }) => Some(micros(*since)),
            Some(Seen::Stopped { at, .. }) => Some(micros((*at).min(instance.meta.updated_at))),
            Some(Seen::Absent) | None => None,
        };
        out.insert("OS-SRV-USG:launched_at".into(), json!(launched));
        out.insert("OS-SRV-USG:terminated_at".into(), Value::Null);
        let groups = self.group_names(ports);
        if !groups.is_empty() {
            let named: Vec<Value> = groups.iter().map(|name| json!({ "name": name })).collect();
            out.insert("security_groups".into(), named.into());
        }
        out.insert("OS-EXT-STS:task_state".into(), json!(state.task));
        out.insert("OS-EXT-STS:vm_state".into(), state.vm_state.into());
        out.insert("OS-EXT-STS:power_state".into(), state.power.into());
        out.insert("os-extended-volumes:volumes_attached".into(), self.volumes(instance).into());
        if self.is_admin {
            self.for_admins(out, instance);
        }
    }

    /// Names of the groups on the ports.
    pub fn group_names(&self, ports: &[Port]) -> BTreeSet<String> {
        let ids: BTreeSet<_> = ports.iter().flat_map(|port| port.security_groups.iter().copied()).collect();
        ids.into_iter()
            .filter_map(|id| Some(self.control.get::<SecurityGroup>(id)?.record.meta.name.to_string()))
            .collect()
    }

    /// Volumes that users made and attached. The disk that came with the server is its own affair.
    fn volumes(&self, instance: &Instance) -> Vec<Value> {
        let all = instance.volumes.iter().filter_map(|id| self.control.get::<Volume>(*id));
        let attached = all.filter(|volume| is_attachment(instance, &volume.record));
        attached
            .map(|volume| {
                let mut shown = json!({ "id": volume.record.meta.id });
                if self.version.has(2, 3) {
                    shown["delete_on_termination"] = volume.record.delete_with_instance.into();
                }
                shown
            })
            .collect()
    }

    fn for_admins(&self, out: &mut Map<String, Value>, instance: &Instance) {
        let node = instance.node.and_then(|id| self.control.store().get::<Node>(&id.to_string()));
        let host = node.map(|node| node.record.name.to_string());
        let name = format!("instance-{}", instance.meta.id.short());
        out.insert("OS-EXT-SRV-ATTR:host".into(), json!(host));
        out.insert("OS-EXT-SRV-ATTR:hypervisor_hostname".into(), json!(host));
        out.insert("OS-EXT-SRV-ATTR:instance_name".into(), name.into());
        if self.version.has(2, 3) {
            for (key, value) in [
                ("kernel_id", json!("")),
                ("launch_index", json!(0)),
                ("ramdisk_id", json!("")),
                ("reservation_id", json!(format!("r-{}", instance.meta.id.short()))),
                ("root_device_name", json!("/dev/vda")),
                ("user_data", json!(instance.user_data_base64)),
            ] {
                out.insert(format!("OS-EXT-SRV-ATTR:{key}"), value);
            }
        }
        if self.version.has(2, 16) {
            out.insert("host_status".into(), if instance.node.is_some() { "UP" } else { "" }.into());
        }
    }

    /// Fields that came with microversions and are for everyone.
    fn newer(&self, out: &mut Map<String, Value>, instance: &Instance, extent: Extent) {
        let rebuilt_or_whole = extent != Extent::Changed || self.version.has(2, 75);
        let mut add = |minor: u16, key: &str, value: Value| {
            if self.version.has(2, minor) {
                out.insert(key.to_string(), value);
            }
        };
        let hostname = json!(model::name::dns_label(instance.meta.name.as_str(), "server"));
        if rebuilt_or_whole && (self.version.has(2, 90) || self.is_admin) {
            add(3, "OS-EXT-SRV-ATTR:hostname", hostname);
        }
        add(9, "locked", instance.lock.is_some().into());
        let description = &instance.meta.description;
        add(19, "description", if description.is_empty() { Value::Null } else { description.clone().into() });
        add(26, "tags", json!(instance.tags));
        add(63, "trusted_image_certificates", Value::Null);
        if extent != Extent::Listed {
            let group = instance.server_group.filter(|id| self.control.get::<ServerGroup>(*id).is_some());
            add(71, "server_groups", json!(group.into_iter().collect::<Vec<_>>()));
        }
        add(73, "locked_reason", json!(instance.lock.as_ref().and_then(|lock| lock.reason.as_ref())));
        if rebuilt_or_whole {
            add(96, "pinned_availability_zone", Value::Null);
        }
    }
}

/// Whether a volume of an instance is one that Nova tells of: not the disk that was made along with it.
pub fn is_attachment(instance: &Instance, volume: &Volume) -> bool {
    let id = volume.meta.id;
    let is_for_rescue = instance.rescue.as_ref().is_some_and(|rescue| rescue.volume == id);
    let is_root = instance.root_volume() == Some(id) && volume.delete_with_instance;
    !is_for_rescue && (!is_root || is_volume_backed(instance))
}

/// Whether a server boots from a volume: no image was named as the one to start from, as Nova's `image: ""` says.
pub fn is_volume_backed(instance: &Instance) -> bool {
    instance.kind == Kind::Vm && instance.image.is_none()
}

/// The user who made it; the project itself where that is not known, as for what the native door made.
pub fn user_of(instance: &Instance) -> String {
    instance.user.map_or_else(|| instance.meta.project.hex(), |user| user.hex())
}

/// A text that tells hosts apart for one project, and tells nothing else.
pub fn host_id(instance: &Instance) -> String {
    instance.node.map_or(String::new(), |node| {
        hex::encode(Sha224::digest(format!("{}{node}", instance.meta.project.hex())))
    })
}

/// `2026-11-21T04:34:02Z`.
pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-11-21T04:34:02.000000`.
pub fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
}
