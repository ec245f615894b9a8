//! What a guest may read of itself: the documents of the metadata service and of the config drive.
//!
//! Guests ask `http://169.254.169.254/…` or read a disk labelled `config-2`; both must say the same, so both are
//! made here from one value, [`GuestData`]. Two trees are spoken: OpenStack's (`/openstack/latest/meta_data.json`)
//! and EC2's (`/latest/meta-data/instance-id`), which is what cloud-init and cirros look for.
//!
//! Nothing here reads a clock, a file or a random source. No document may ever hold a secret of the cloud: all that
//! stands here is readable by every process inside the guest.
//!
//! Sources: docs.openstack.org/nova/latest/user/metadata.html, the JSON schema of nova's `network_data.json`, and
//! the EC2 instance metadata categories.

use crate::{
    address::Mac,
    id::{InstanceId, ProjectId},
    instance::tag::Tag,
    subnet::Ipv6Mode,
};
use base64::Engine as _;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr};

mod vendor;

/// Most bytes of user-data (Nova allows 65,535 of base64).
pub const USER_DATA_BYTES_MAX: usize = 64 * 1024;

/// Availability zone that guests are told.
pub const AVAILABILITY_ZONE: &str = "nova";

/// Versions of the OpenStack tree that are answered; every one has the same contents.
pub const OPENSTACK_VERSIONS: [&str; 12] = [
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "2022-10-01",
    "2025-04-04",
    "latest",
];

/// Versions of the EC2 tree that are answered; every one has the same contents.
pub const EC2_VERSIONS: [&str; 10] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "latest",
];

/// What a guest may read of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestData {
    /// The instance.
    pub id: InstanceId,
    /// Its project.
    pub project: ProjectId,
    /// Name as the user gave it.
    pub name: String,
    /// Host name with domain.
    pub hostname: String,
    /// Name of the flavor (EC2's instance-type).
    pub flavor: String,
    /// SSH keys: name and public key in OpenSSH's one-line form.
    pub keys: Vec<(String, String)>,
    /// Metadata of the user.
    pub metadata: BTreeMap<String, String>,
    /// User-data, base64 so that any bytes survive.
    pub user_data_base64: Option<String>,
    /// Interfaces.
    pub nics: Vec<GuestNic>,
    /// Floating IPv4 address, for EC2's public-ipv4.
    pub public_ipv4: Option<IpAddr>,
    /// Interfaces and disks that its user hung a word on.
    #[serde(default)]
    pub devices: Vec<GuestDevice>,
    /// It runs on the host's kernel, as a system container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_host_kernel: bool,
}

/// A device that a guest finds by a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDevice {
    /// The word.
    pub tag: Tag,
    /// Which device.
    pub mark: DeviceMark,
}

/// What a guest knows a device by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceMark {
    /// An interface, by its Ethernet address.
    Mac(Mac),
    /// A disk, by its serial number.
    Serial(String),
}

impl GuestDevice {
    /// As nova lists it. Where it is on the guest's bus is the guest's own business.
    fn entry(&self) -> Value {
        let (kind, key, value) = match &self.mark {
            DeviceMark::Mac(mac) => ("nic", "mac", mac.to_string()),
            DeviceMark::Serial(serial) => ("disk", "serial", serial.clone()),
        };
        json!({ "type": kind, "bus": "none", "address": "none", key: value, "tags": [self.tag] })
    }
}

/// An interface as the guest is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestNic {
    /// Name of the port's device on the host, the link's id.
    pub device: String,
    /// Ethernet address.
    pub mac: Mac,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Addresses with the prefix length of their subnet.
    pub addresses: Vec<IpNet>,
    /// Gateways, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// DNS servers.
    pub dns: Vec<IpAddr>,
    /// The addresses are told by DHCP or RA (else they are static).
    pub dhcp: bool,
    /// How IPv6 addresses are told.
    pub ipv6_mode: Ipv6Mode,
}

/// One answer of the metadata service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// MIME type for the HTTP header.
    pub content_type: &'static str,
    /// Body, byte for byte.
    pub body: Vec<u8>,
}

impl Document {
    fn json(value: &Value) -> Document {
        Document { content_type: "application/json", body: value.to_string().into_bytes() }
    }

    fn text(text: impl Into<String>) -> Document {
        Document { content_type: "text/plain; charset=utf-8", body: text.into().into_bytes() }
    }

    fn bytes(body: Vec<u8>) -> Document {
        Document { content_type: "application/octet-stream", body }
    }
}

impl GuestData {
    /// Answers one GET of the metadata service. `path` is the URL's path; repeated and trailing slashes do not
    /// matter. `None` is a 404. `random_seed` is entropy for the guest's first boot; empty leaves it out.
    pub fn get(&self, path: &str, random_seed: &[u8]) -> Option<Document> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [] => Some(Document::text(EC2_VERSIONS.join("\n"))),
            ["openstack"] => Some(Document::text(OPENSTACK_VERSIONS.join("\n"))),
            ["openstack", version, rest @ ..] if OPENSTACK_VERSIONS.contains(version) => {
                self.openstack(rest, random_seed)
            }
            [version, rest @ ..] if EC2_VERSIONS.contains(version) => self.ec2(rest),
            _ => None,
        }
    }

    /// The files of a config drive, by path from its root, in a fixed order.
    pub fn config_drive_files(&self, random_seed: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        let mut add = |path: &str, document: Option<Document>| {
            if let Some(document) = document {
                files.push((path.to_owned(), document.body));
            }
        };
        for version in ["2012-08-10", "2018-08-27", "latest"] {
            for name in
                ["meta_data.json", "network_data.json", "user_data", "vendor_data.json", "vendor_data2.json"]
            {
                let path = format!("openstack/{version}/{name}");
                add(&path, self.get(&path, random_seed));
            }
        }
        for version in ["2009-04-04", "latest"] {
            let ec2 = Document::json(&self.ec2_tree());
            add(&format!("ec2/{version}/meta-data.json"), Some(ec2));
            add(&format!("ec2/{version}/user-data"), self.get(&format!("{version}/user-data"), &[]));
        }
        files
    }

    /// The user's opaque bytes, `None` when none were given (or what was stored is no base64).
    pub fn user_data(&self) -> Option<Vec<u8>> {
        let text = self.user_data_base64.as_deref()?;
        base64::engine::general_purpose::STANDARD.decode(text).ok()
    }

    /// `meta_data.json` of the OpenStack tree.
    pub fn meta_data(&self, random_seed: &[u8]) -> Value {
        let keys: Vec<Value> =
            self.keys.iter().map(|(name, data)| json!({"name": name, "type": "ssh", "data": data})).collect();
        let mut document = json!({
            "uuid": self.id.to_string(),
            "name": self.name,
            "hostname": self.hostname,
            "availability_zone": AVAILABILITY_ZONE,
            "launch_index": 0,
            "project_id": self.project.hex(),
            "meta": self.metadata,
            "keys": keys,
            "devices": self.devices.iter().map(GuestDevice::entry).collect::<Vec<_>>(),
            "dedicated_cpus": [],
        });
        if !self.keys.is_empty() {
            let by_name: BTreeMap<&String, &String> =
                self.keys.iter().map(|(name, data)| (name, data)).collect();
            document["public_keys"] = json!(by_name);
        }
        if !random_seed.is_empty() {
            document["random_seed"] = json!(base64::engine::general_purpose::STANDARD.encode(random_seed));
        }
        document
    }

    /// `network_data.json`: links, networks on them, and services, as nova's schema has it, and the domain to search.
    pub fn network_data(&self) -> Value {
        let mut links = Vec::new();
        let mut networks = Vec::new();
        let mut servers: Vec<IpAddr> = Vec::new();
        for nic in &self.nics {
            links.push(json!({
                "id": nic.device,
                "vif_id": nic.device,
                "type": "phy",
                "mtu": nic.mtu,
                "ethernet_mac_address": nic.mac.to_string(),
            }));
            for address in nic.addresses_to_announce() {
                let id = format!("network{}", networks.len());
                networks.push(nic.network_entry(&id, address));
            }
            for server in &nic.dns {
                if !servers.contains(server) {
                    servers.push(*server);
                }
            }
        }
        let mut services: Vec<Value> = servers.iter().map(|server| service(*server)).collect();
        // Beyond nova's schema: cloud-init tells it to every kind of guest, where many do not take the domain from DHCP;
        // without it a neighbour's short name would mean nothing. Once is enough for all servers.
        if let (Some(first), Some((_, domain))) = (services.first_mut(), self.hostname.split_once('.')) {
            first["search"] = json!([domain]);
        }
        json!({"links": links, "networks": networks, "services": services})
    }

    fn openstack(&self, rest: &[&str], random_seed: &[u8]) -> Option<Document> {
        match rest {
            [] => {
                let mut names =
                    vec!["meta_data.json", "network_data.json", "vendor_data.json", "vendor_data2.json"];
                if self.user_data_base64.is_some() {
                    names.insert(1, "user_data");
                }
                Some(Document::text(names.join("\n")))
            }
            ["meta_data.json"] => Some(Document::json(&self.meta_data(random_seed))),
            ["network_data.json"] => Some(Document::json(&self.network_data())),
            ["user_data"] => self.user_data().map(Document::bytes),
            ["vendor_data.json"] => Some(Document::json(&vendor::data(self.on_host_kernel))),
            ["vendor_data2.json"] => Some(Document::json(&json!({}))),
            _ => None,
        }
    }

    fn ec2(&self, rest: &[&str]) -> Option<Document> {
        match rest {
            [] if self.user_data_base64.is_some() => Some(Document::text("meta-data/\nuser-data")),
            [] => Some(Document::text("meta-data/")),
            ["user-data"] => self.user_data().map(Document::bytes),
            ["meta-data", path @ ..] => {
                let tree = self.ec2_tree();
                // A key may be asked for as `0` though the listing says `0=name`.
                path.iter().try_fold(&tree, |node, part| node.get(*part)).map(ec2_document)
            }
            _ => None,
        }
    }

    /// The EC2 tree as nested objects; its leaves are strings. Also `meta-data.json` of a config drive.
    pub fn ec2_tree(&self) -> Value {
        let address = self.nics.iter().flat_map(|nic| &nic.addresses).find(|net| net.addr().is_ipv4());
        let mut tree = json!({
            "ami-id": "ami-00000000",
            "ami-launch-index": "0",
            "ami-manifest-path": "",
            "block-device-mapping": {"ami": "vda", "root": "/dev/vda"},
            "hostname": self.hostname,
            "instance-action": "none",
            "instance-id": format!("i-{}", self.id.short()),
            "instance-type": self.flavor,
            "local-hostname": self.hostname,
            "local-ipv4": address.map(|net| net.addr().to_string()).unwrap_or_default(),
            "placement": {"availability-zone": AVAILABILITY_ZONE},
            "public-hostname": self.hostname,
            "public-ipv4": self.public_ipv4.map(|address| address.to_string()).unwrap_or_default(),
            "reservation-id": format!("r-{}", self.id.short()),
            "security-groups": "",
        });
        if !self.keys.is_empty() {
            let keys: BTreeMap<String, Value> = (self.keys.iter().enumerate())
                .map(|(index, (name, data))| (index.to_string(), json!({"_name": name, "openssh-key": data})))
                .collect();
            tree["public-keys"] = json!(keys);
        }
        tree
    }
}

impl GuestNic {
    /// What is told by DHCP needs one entry, whatever the number of addresses; static ones need one each.
    fn addresses_to_announce(&self) -> Vec<&IpNet> {
        let first = |v4: bool| self.addresses.iter().find(move |net| net.addr().is_ipv4() == v4);
        if self.dhcp {
            first(true).into_iter().chain(first(false)).collect()
        } else {
            self.addresses.iter().collect()
        }
    }

    fn network_entry(&self, id: &str, address: &IpNet) -> Value {
        let is_v4 = address.addr().is_ipv4();
        let kind = match (is_v4, self.dhcp) {
            (true, true) => "ipv4_dhcp",
            (true, false) => "ipv4",
            (false, true) => match self.ipv6_mode {
                Ipv6Mode::Stateful => "ipv6_dhcpv6-stateful",
                Ipv6Mode::Stateless => "ipv6_dhcpv6-stateless",
                Ipv6Mode::Slaac => "ipv6_slaac",
            },
            (false, false) => "ipv6",
        };
        let mut entry = json!({"id": id, "type": kind, "link": self.device, "network_id": self.device});
        if self.dhcp {
            if !is_v4 {
                // As Nova does, for guests that know no DHCPv6.
                entry["ip_address"] = json!(address.addr().to_string());
                entry["netmask"] = json!(address.netmask().to_string());
            }
            return entry;
        }
        let any = if is_v4 { "0.0.0.0" } else { "::" };
        let routes: Vec<Value> = (self.gateways.iter().filter(|gateway| gateway.is_ipv4() == is_v4))
            .map(|gateway| json!({"network": any, "netmask": any, "gateway": gateway.to_string()}))
            .collect();
        entry["ip_address"] = json!(address.addr().to_string());
        entry["netmask"] = json!(address.netmask().to_string());
        entry["routes"] = json!(routes);
        entry["services"] = self.dns.iter().map(|server| service(*server)).collect();
        entry
    }
}

fn service(server: IpAddr) -> Value {
    json!({"type": "dns", "address": server.to_string()})
}

/// A node of the EC2 tree as text: a leaf is its value, a directory lists its children, directories with a slash;
/// a child that has a `_name` is listed as `0=name`, which is how keys are listed.
fn ec2_document(node: &Value) -> Document {
    let Some(children) = node.as_object() else {
        return Document::text(node.as_str().unwrap_or_default());
    };
    let line = |(name, child): (&String, &Value)| match (child.get("_name"), child.is_object()) {
        (Some(label), _) => format!("{name}={}", label.as_str().unwrap_or_default()),
        (None, true) => format!("{name}/"),
        (None, false) => name.clone(),
    };
    let lines: Vec<String> = children.iter().filter(|(name, _)| *name != "_name").map(line).collect();
    Document::text(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> GuestData {
        GuestData {
            id: "12345678-9abc-4def-8000-000000000001".parse().unwrap(),
            project: "00000000-0000-0000-0000-000000000002".parse().unwrap(),
            name: "web".into(),
            hostname: "web.holm.internal".into(),
            flavor: "m1.small".into(),
            keys: vec![("me".into(), "ssh-ed25519 AAAA me@home".into())],
            metadata: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
            user_data_base64: Some("I2Nsb3VkLWNvbmZpZwo=".into()),
            nics: vec![GuestNic {
                device: "t12345678".into(),
                mac: "fa:16:3e:00:00:01".parse().unwrap(),
                mtu: 1450,
                addresses: vec!["10.0.0.5/24".parse().unwrap(), "fd00::5/64".parse().unwrap()],
                gateways: vec!["10.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap()],
                dns: vec!["10.0.0.2".parse().unwrap()],
                dhcp: false,
                ipv6_mode: Ipv6Mode::Stateful,
            }],
            public_ipv4: None,
            devices: vec![],
            on_host_kernel: false,
        }
    }

    fn body(metadata: &GuestData, path: &str) -> Option<String> {
        metadata
            .get(path, &[])
            .map(|document| String::from_utf8(document.body).expect("documents here are text"))
    }

    #[test]
    fn every_path_a_guest_asks_has_its_answer() {
        let metadata = sample();
        let cases: [(&str, Option<&str>); 14] = [
            ("/latest/meta-data/instance-id", Some("i-12345678")),
            ("/2009-04-04//meta-data/hostname/", Some("web.holm.internal")),
            ("/latest/meta-data/local-ipv4", Some("10.0.0.5")),
            ("/latest/meta-data/public-keys", Some("0=me")),
            ("/latest/meta-data/public-keys/0", Some("openssh-key")),
            ("/latest/meta-data/public-keys/0/openssh-key", Some("ssh-ed25519 AAAA me@home")),
            ("/latest/meta-data/placement", Some("availability-zone")),
            ("/latest/user-data", Some("#cloud-config\n")),
            ("/latest", Some("meta-data/\nuser-data")),
            ("/openstack/latest/user_data", Some("#cloud-config\n")),
            ("/openstack/latest/vendor_data2.json", Some("{}")),
            ("/openstack/1999-01-01/meta_data.json", None),
            ("/latest/meta-data/public-keys/1", None),
            ("/latest/meta-data/../../etc", None),
        ];
        for (path, expected) in cases {
            assert_eq!(body(&metadata, path).as_deref(), expected, "{path}");
        }
        let listing = body(&metadata, "/latest/meta-data/").expect("listed");
        assert!(listing.contains("placement/") && listing.contains("public-keys/"), "{listing}");
        for version in OPENSTACK_VERSIONS {
            assert!(body(&metadata, &format!("/openstack/{version}/meta_data.json")).is_some(), "{version}");
        }
    }

    #[test]
    fn meta_data_has_what_cloud_init_reads() {
        let document = sample().meta_data(&[1, 2, 3]);
        assert_eq!(document["uuid"], "12345678-9abc-4def-8000-000000000001");
        assert_eq!(document["public_keys"]["me"], "ssh-ed25519 AAAA me@home");
        assert_eq!(document["random_seed"], "AQID");
        assert_eq!(document["meta"]["role"], "web");
        assert_eq!(document["project_id"], "00000000000000000000000000000002");
        assert_eq!(document["devices"], json!([]));
        let tagged = |tag: &str, mark| GuestDevice { tag: tag.parse().unwrap(), mark };
        let devices = vec![
            tagged("inside", DeviceMark::Mac("fa:16:3e:00:00:01".parse().unwrap())),
            tagged("logs", DeviceMark::Serial("0a1b".into())),
        ];
        let document = GuestData { devices, ..sample() }.meta_data(&[]);
        assert_eq!(document["devices"][0]["mac"], "fa:16:3e:00:00:01");
        assert_eq!(
            document["devices"][1],
            json!({ "type": "disk", "bus": "none", "address": "none", "serial": "0a1b", "tags": ["logs"] })
        );
        let bare = GuestData { keys: vec![], ..sample() }.meta_data(&[]);
        assert!(bare.get("public_keys").is_none() && bare.get("random_seed").is_none());
    }

    #[test]
    fn network_data_follows_novas_schema() {
        let document = sample().network_data();
        assert_eq!(document["links"][0]["ethernet_mac_address"], "fa:16:3e:00:00:01");
        let networks = document["networks"].as_array().expect("array");
        assert_eq!(networks.len(), 2);
        assert_eq!(networks[0]["type"], "ipv4");
        assert_eq!(networks[0]["netmask"], "255.255.255.0");
        assert_eq!(networks[0]["routes"][0]["gateway"], "10.0.0.1");
        assert_eq!(networks[1]["type"], "ipv6");
        assert_eq!(networks[1]["netmask"], "ffff:ffff:ffff:ffff::");
        assert_eq!(networks[1]["routes"][0]["gateway"], "fe80::1");
        assert_eq!(document["services"][0]["address"], "10.0.0.2");
        assert_eq!(document["services"][0]["search"], json!(["holm.internal"]));
        assert_eq!(networks[0]["link"], document["links"][0]["id"]);
    }

    #[test]
    fn dhcp_announces_one_ipv4_entry_without_an_address() {
        let mut metadata = sample();
        metadata.nics[0].dhcp = true;
        metadata.nics[0].addresses.push("10.0.0.6/24".parse().expect("literal"));
        let document = metadata.network_data();
        let kinds: Vec<&str> = document["networks"]
            .as_array()
            .expect("array")
            .iter()
            .filter_map(|n| n["type"].as_str())
            .collect();
        assert_eq!(kinds, ["ipv4_dhcp", "ipv6_dhcpv6-stateful"]);
        assert!(document["networks"][0].get("ip_address").is_none());
        assert_eq!(document["networks"][1]["ip_address"], "fd00::5", "as Nova tells it");
    }

    #[test]
    fn the_config_drive_says_what_the_service_says() {
        let metadata = sample();
        let files = metadata.config_drive_files(&[9]);
        for (path, body) in &files {
            if path.starts_with("openstack/") {
                assert_eq!(
                    metadata.get(path, &[9]).map(|document| document.body).as_ref(),
                    Some(body),
                    "{path}"
                );
            }
        }
        let names: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
        assert!(
            names.contains(&"openstack/latest/meta_data.json")
                && names.contains(&"ec2/latest/meta-data.json")
        );
    }
}
