//! The network service against what a real Neutron replied, and through the flows that its own tests make.

mod floating_ips;
mod routers;
mod security_groups;
mod subnet_pools;

use crate::cloud::{Cloud, Reply};
use api::v1::types::{network::Network, port::Port};
use axum::http::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const V2: &str = "/network/v2.0";

/// A caller of the service.
struct Client {
    cloud: Cloud,
    token: String,
}

impl Client {
    async fn member() -> Self {
        let cloud = Cloud::open().await;
        let token = cloud.as_role("member").await;
        Self { cloud, token }
    }

    async fn admin() -> Self {
        let cloud = Cloud::open().await;
        let token = cloud.admin.clone();
        Self { cloud, token }
    }

    async fn get(&self, path: &str) -> Reply {
        self.cloud.get(&self.token, &format!("{V2}/{path}")).await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.cloud.post(&self.token, &format!("{V2}/{path}"), &body).await
    }

    async fn put(&self, path: &str, body: Value) -> Reply {
        self.cloud.send(Method::PUT, &self.token, &format!("{V2}/{path}"), &body).await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.cloud.delete(&self.token, &format!("{V2}/{path}")).await
    }

    /// Makes a resource and gives it.
    async fn make(&self, path: &str, one: &str, body: Value) -> Value {
        self.post(path, json!({ one: body })).await.expect(201)[one].clone()
    }

    async fn network(&self, name: &str) -> String {
        text(&self.make("networks", "network", json!({ "name": name })).await["id"])
    }

    async fn subnet(&self, network: &str, cidr: &str) -> String {
        let version = if cidr.contains(':') { 6 } else { 4 };
        let body = json!({ "network_id": network, "cidr": cidr, "ip_version": version });
        text(&self.make("subnets", "subnet", body).await["id"])
    }

    async fn external(&self) -> String {
        let list = self.get("networks?router:external=True").await.expect(200);
        text(&list["networks"][0]["id"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}")).to_string()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap_or_else(|| panic!("an object, not {value}")).keys().cloned().collect()
}

fn ids(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| text(&item["id"])).collect()
}

#[track_caller]
fn refused(reply: &Reply, status: u16, kind: &str) {
    let json = reply.expect(status);
    assert_eq!(json["NeutronError"]["type"], kind, "{json}");
    assert_eq!(json["NeutronError"]["detail"], "");
    assert!(json["NeutronError"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
}

/// Attributes that a real Neutron has by extensions which this cloud does not list.
const FOREIGN: [&str; 14] = [
    "qinq",
    "vlan_transparent",
    "provider:network_type",
    "provider:physical_network",
    "provider:segmentation_id",
    "extra_dhcp_opts",
    "distributed",
    "ha",
    "flavor_id",
    "standard_attr_id",
    "belongs_to_default_sg",
    "remote_address_group_id",
    "is_default",
    "tags",
];

#[tokio::test]
async fn views_have_the_attributes_of_a_real_cloud() {
    let admin = Client::admin().await;
    let network = admin.network("net").await;
    let subnet = admin.subnet(&network, "10.9.0.0/24").await;
    let port = admin.make("ports", "port", json!({ "network_id": network })).await;
    let external = admin.external().await;
    let gateway = json!({ "name": "r", "external_gateway_info": { "network_id": external } });
    let router = admin.make("routers", "router", gateway).await;
    let floating = admin.make("floatingips", "floatingip", json!({ "floating_network_id": external })).await;
    let group = admin.make("security-groups", "security_group", json!({ "name": "g" })).await;
    let one = async |path: String| admin.get(&path).await.expect(200);
    let common = "id tenant_id project_id description created_at updated_at revision_number name";
    for (view, own) in [
        (
            one(format!("networks/{network}")).await["network"].clone(),
            "admin_state_up mtu status subnets shared availability_zone_hints availability_zones ipv4_address_scope ipv6_address_scope router:external port_security_enabled",
        ),
        (
            one(format!("subnets/{subnet}")).await["subnet"].clone(),
            "network_id ip_version subnetpool_id enable_dhcp ipv6_ra_mode ipv6_address_mode gateway_ip cidr allocation_pools host_routes dns_nameservers router:external service_types",
        ),
        (
            port.clone(),
            "network_id mac_address admin_state_up status device_id device_owner fixed_ips allowed_address_pairs security_groups binding:vnic_type binding:profile binding:host_id binding:vif_type binding:vif_details port_security_enabled",
        ),
        (
            router.clone(),
            "admin_state_up status external_gateway_info availability_zones availability_zone_hints routes",
        ),
        (group.clone(), "stateful shared security_group_rules"),
    ] {
        let expected: BTreeSet<String> =
            common.split(' ').chain(own.split(' ')).chain(["tags"]).map(str::to_string).collect();
        assert_eq!(keys(&view), expected);
        assert!(FOREIGN.iter().filter(|key| **key != "tags").all(|key| view.get(key).is_none()));
    }
    assert!(floating.get("name").is_none(), "floating IPs have none");
    for key in ["floating_ip_address", "router_id", "port_id", "fixed_ip_address", "status", "port_details"] {
        assert!(floating.get(key).is_some(), "{key}");
    }
    let view = one(format!("subnets/{subnet}")).await;
    let view = &view["subnet"];
    assert_eq!(view["name"], "", "nothing was given");
    assert_eq!(view["gateway_ip"], "10.9.0.1");
    assert_eq!(view["allocation_pools"], json!([{ "start": "10.9.0.2", "end": "10.9.0.254" }]));
    assert_eq!((&view["ipv6_ra_mode"], &view["enable_dhcp"]), (&Value::Null, &json!(true)));
    assert_eq!((&port["status"], &port["device_owner"]), (&json!("DOWN"), &json!("")));
    assert_eq!(router["external_gateway_info"]["enable_snat"], true);
    assert_eq!(group["security_group_rules"].as_array().unwrap().len(), 2, "out is open");
    assert_eq!(text(&group["project_id"]).len(), 32);
    let times = [&group["created_at"], &group["updated_at"]].map(text);
    assert!(times.iter().all(|time| time.len() == 20 && time.ends_with('Z')), "{times:?}");
}

#[tokio::test]
async fn names_are_looked_up_by_filters_and_may_repeat() {
    let client = Client::member().await;
    refused(&client.get("networks/rnet").await, 404, "NetworkNotFound");
    let message = client.get("networks/nope").await.expect(404);
    assert_eq!(message["NeutronError"]["message"], "Network nope could not be found.");
    let (one, two) = (client.network("rnet").await, client.network("rnet").await);
    let list = client.get("networks?name=rnet").await.expect(200);
    assert_eq!(BTreeSet::from_iter(ids(&list["networks"])), BTreeSet::from([one.clone(), two.clone()]));
    let nameless = client.make("networks", "network", json!({})).await;
    assert_eq!(nameless["name"], "");
    let changed =
        client.put(&format!("networks/{one}"), json!({ "network": { "name": "" } })).await.expect(200);
    assert_eq!(changed["network"]["name"], "");
    client.delete(&format!("networks/{one}")).await.expect(204);
    refused(&client.delete(&format!("networks/{one}")).await, 404, "NetworkNotFound");
    // The native door sees the same network under the same id, and its description and labels.
    let body = json!({ "network": { "description": "words", "admin_state_up": false, "mtu": 1400 } });
    client.put(&format!("networks/{two}"), body).await.expect(200);
    client.put(&format!("networks/{two}/tags"), json!({ "tags": ["a", "env=prod"] })).await.expect(200);
    let seen = client.cloud.house.client.get::<Network>(&two).await.unwrap();
    assert_eq!((seen.head.description.as_str(), seen.mtu, seen.admin_up), ("words", 1400, false));
    assert_eq!(seen.head.labels["env"], "prod");
    refused(&client.post("networks", json!({ "network": { "colour": 1 } })).await, 400, "HTTPBadRequest");
    refused(&client.post("networks", json!({ "network": { "mtu": 10 } })).await, 400, "InvalidInput");
    for key in ["shared", "router:external"] {
        refused(
            &client.post("networks", json!({ "network": { key: true } })).await,
            403,
            "PolicyNotAuthorized",
        );
    }
}

#[tokio::test]
async fn lists_are_filtered_sorted_paged_and_cut() {
    let client = Client::member().await;
    for name in ["c", "a", "b"] {
        client.network(name).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["networks"].as_array().unwrap().iter().map(|n| text(&n["name"])).collect()
    };
    let own = "project_id";
    let me = text(&client.get("networks?name=a").await.expect(200)["networks"][0][own]);
    let sorted =
        client.get(&format!("networks?project_id={me}&sort_key=name&sort_dir=desc&fields=name")).await;
    assert_eq!(names(&sorted.expect(200))[..3], ["default", "c", "b"]);
    assert_eq!(keys(&sorted.json()["networks"][0]), BTreeSet::from(["name".to_string()]));
    let first = client.get(&format!("networks?tenant_id={me}&sort_key=name&limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    let link = text(&first["networks_links"][0]["href"]);
    assert_eq!(first["networks_links"].as_array().unwrap().len(), 1);
    let rest = client.get(link.split("/v2.0/").nth(1).unwrap()).await.expect(200);
    assert_eq!(names(&rest), ["c", "default"]);
    assert_eq!(rest["networks_links"][0]["rel"], "previous");
    let back = text(&rest["networks_links"][0]["href"]);
    let back = client.get(back.split("/v2.0/").nth(1).unwrap()).await.expect(200);
    assert_eq!(names(&back), ["a", "b"]);
    let shown =
        client.get(&format!("networks/{}?fields=id&fields=name", text(&first["networks"][0]["id"]))).await;
    assert_eq!(keys(&shown.expect(200)["network"]), BTreeSet::from(["id".to_string(), "name".to_string()]));
    refused(&client.get("networks?colour=red").await, 400, "HTTPBadRequest");
    client.get("networks?limit=x").await.expect(400);
    client.get("networks?sort_key=colour").await.expect(400);
}

#[tokio::test]
async fn subnets_take_every_attribute_and_refuse_what_cannot_be() {
    let client = Client::member().await;
    let network = client.network("net").await;
    let new = |more: Value| {
        let mut body = json!({ "network_id": network, "cidr": "10.1.0.0/24", "ip_version": 4 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "subnet": body })
    };
    let full = json!({
        "name": "s", "gateway_ip": "10.1.0.254", "enable_dhcp": false, "description": "d",
        "allocation_pools": [{ "start": "10.1.0.10", "end": "10.1.0.20" }],
        "dns_nameservers": ["8.8.4.4", "7.8.8.8"],
        "host_routes": [{ "destination": "10.20.0.0/24", "nexthop": "10.1.0.9" }],
    });
    let made = client.post("subnets", new(full.clone())).await.expect(201)["subnet"].clone();
    for (key, value) in full.as_object().unwrap() {
        assert_eq!(made[key], *value, "{key}");
    }
    let id = text(&made["id"]);
    let change = json!({ "subnet": {
        "name": "t", "gateway_ip": "10.1.0.2", "dns_nameservers": ["8.8.4.5"], "enable_dhcp": true,
        "host_routes": [{ "destination": "10.21.0.0/24", "nexthop": "10.1.0.3" }],
    }});
    let changed = client.put(&format!("subnets/{id}"), change.clone()).await.expect(200)["subnet"].clone();
    for (key, value) in change["subnet"].as_object().unwrap() {
        assert_eq!(changed[key], *value, "{key}");
    }
    for (more, status, kind) in [
        (json!({ "cidr": "10.1.0.128/25" }), 400, "InvalidInput"),
        (json!({ "cidr": "10.2.0.0/33" }), 400, "HTTPBadRequest"),
        (json!({ "ip_version": 6, "cidr": "10.2.0.0/24" }), 400, "InvalidInput"),
        (json!({ "ip_version": 5, "cidr": "10.2.0.0/24" }), 400, "HTTPBadRequest"),
        (json!({ "cidr": null }), 400, "BadRequest"),
        (json!({ "cidr": "10.2.0.0/24", "network_id": "nope" }), 404, "NetworkNotFound"),
        (json!({ "cidr": "10.2.0.0/24", "gateway_ip": "10.3.0.1" }), 400, "InvalidInput"),
        (
            json!({ "cidr": "10.2.0.0/24", "allocation_pools": [{ "start": "10.2.0.1", "end": "10.2.0.9" }] }),
            409,
            "GatewayConflictWithAllocationPools",
        ),
        (json!({ "cidr": "10.2.0.0/24", "ipv6_ra_mode": "slaac" }), 400, "InvalidInput"),
    ] {
        refused(&client.post("subnets", new(more)).await, status, kind);
    }
    let none =
        client.post("subnets", new(json!({ "cidr": "10.3.0.0/24", "gateway_ip": null }))).await.expect(201);
    assert_eq!(none["subnet"]["gateway_ip"], Value::Null);
    assert_eq!(none["subnet"]["allocation_pools"][0]["start"], "10.3.0.1");
    let list = client.get(&format!("subnets?network_id={network}&fields=id&fields=cidr")).await.expect(200);
    assert_eq!(list["subnets"].as_array().unwrap().len(), 2);
    client.delete(&format!("subnets/{id}")).await.expect(204);
    refused(&client.get(&format!("subnets/{id}")).await, 404, "SubnetNotFound");
    client.delete(&format!("networks/{network}")).await.expect(204);
}

#[tokio::test]
async fn ipv6_modes_decide_the_addresses_of_ports() {
    let client = Client::member().await;
    let mac = "fa:16:3e:11:22:33";
    for (ra, address) in [("slaac", true), ("dhcpv6-stateless", true), ("dhcpv6-stateful", false)] {
        for (ra, mode) in [(Some(ra), Some(ra)), (None, Some(ra)), (Some(ra), None)] {
            let network = client.network("six").await;
            let mut body = json!({ "network_id": network, "cidr": "2003:0:0:1::/64", "ip_version": 6 });
            if let Some(ra) = ra {
                body["ipv6_ra_mode"] = json!(ra);
            }
            if let Some(mode) = mode {
                body["ipv6_address_mode"] = json!(mode);
            }
            let subnet = client.make("subnets", "subnet", body).await;
            assert_eq!((subnet["ipv6_ra_mode"].as_str(), subnet["ipv6_address_mode"].as_str()), (ra, mode));
            let port =
                client.make("ports", "port", json!({ "network_id": network, "mac_address": mac })).await;
            let has = text(&port["fixed_ips"][0]["ip_address"]);
            assert_eq!(has == "2003::1:f816:3eff:fe11:2233", address, "{ra:?} {mode:?}: {has}");
            client.delete(&format!("ports/{}", text(&port["id"]))).await.expect(204);
            client.delete(&format!("networks/{network}")).await.expect(204);
        }
    }
    let network = client.network("six").await;
    for (ra, mode, dhcp) in [
        (Some("slaac"), Some("dhcpv6-stateful"), true),
        (Some("slaac"), Some("slaac"), false),
        (Some("nonsense"), None, true),
    ] {
        let body = json!({ "subnet": {
            "network_id": network, "cidr": "2003::/64", "ip_version": 6, "ipv6_ra_mode": ra,
            "ipv6_address_mode": mode, "enable_dhcp": dhcp,
        }});
        client.post("subnets", body).await.expect(400);
    }
    // Without a mode nobody tells the address, and it is chosen.
    let plain = client.subnet(&network, "2003::/64").await;
    let fixed =
        json!({ "network_id": network, "fixed_ips": [{ "subnet_id": plain, "ip_address": "2003::9" }] });
    let port = client.make("ports", "port", fixed.clone()).await;
    assert_eq!(port["fixed_ips"], json!([{ "subnet_id": plain, "ip_address": "2003::9" }]));
    refused(&client.post("ports", json!({ "port": fixed })).await, 409, "IpAddressAlreadyAllocated");
    let outside = json!({ "port": { "network_id": network, "fixed_ips": [{ "ip_address": "2004::9" }] } });
    refused(&client.post("ports", outside).await, 400, "InvalidInput");
}

#[tokio::test]
async fn ports_are_made_in_bulk_changed_and_refused() {
    let client = Client::member().await;
    let (one, two) = (client.network("one").await, client.network("two").await);
    let (a, b) = (client.subnet(&one, "10.1.0.0/24").await, client.subnet(&two, "10.2.0.0/24").await);
    let bulk = json!({ "ports": [{ "network_id": one, "name": "p" }, { "network_id": two }] });
    let made = client.post("ports", bulk).await.expect(201)["ports"].clone();
    let nets: Vec<String> = made.as_array().unwrap().iter().map(|p| text(&p["network_id"])).collect();
    assert_eq!(nets, [one.clone(), two.clone()]);
    let id = text(&made[0]["id"]);
    let group = text(&client.make("security-groups", "security_group", json!({ "name": "g" })).await["id"]);
    let mac = text(&made[0]["mac_address"]);
    let change = json!({ "port": {
        "name": "q", "admin_state_up": false, "security_groups": [group],
        "fixed_ips": [{ "subnet_id": a, "ip_address": "10.1.0.77" }, { "subnet_id": a }],
        "allowed_address_pairs": [{ "ip_address": "10.1.0.200" }, { "ip_address": "10.8.0.0/16" }],
        "device_id": "d-1", "device_owner": "somebody",
    }});
    let changed = client.put(&format!("ports/{id}"), change).await.expect(200)["port"].clone();
    assert_eq!((&changed["name"], &changed["admin_state_up"]), (&json!("q"), &json!(false)));
    assert_eq!(changed["security_groups"], json!([group]));
    assert_eq!(changed["fixed_ips"].as_array().unwrap().len(), 2);
    assert_eq!(
        changed["allowed_address_pairs"],
        json!([
            { "ip_address": "10.1.0.200", "mac_address": mac },
            { "ip_address": "10.8.0.0/16", "mac_address": mac },
        ])
    );
    assert_eq!((&changed["device_id"], &changed["device_owner"]), (&json!("d-1"), &json!("somebody")));
    let seen = client.cloud.house.client.get::<Port>(&id).await.unwrap();
    assert_eq!((seen.addresses.len(), seen.allowed_pairs.len(), seen.admin_up), (2, 2, false));
    for (filter, count) in [
        ("device_id=d-1".to_string(), 1),
        (format!("network_id={two}"), 1),
        (format!("fixed_ips=subnet_id={b}"), 1),
        ("fixed_ips=ip_address=10.1.0.77".to_string(), 1),
        (format!("security_groups={group}"), 1),
        (format!("mac_address={mac}&network_id={two}"), 0),
    ] {
        let list = client.get(&format!("ports?{filter}")).await.expect(200);
        assert_eq!(list["ports"].as_array().unwrap().len(), count, "{filter}");
    }
    for (body, status, kind) in [
        (json!({ "port_security_enabled": false }), 409, "PortSecurityPortHasSecurityGroup"),
        (
            json!({ "security_groups": ["00000000-0000-0000-0000-000000000000"] }),
            404,
            "SecurityGroupNotFound",
        ),
        (json!({ "fixed_ips": [{ "subnet_id": b }] }), 400, "InvalidInput"),
        (json!({ "binding:vnic_type": "direct" }), 400, "HTTPBadRequest"),
        (json!({ "mac_address": "nonsense" }), 400, "HTTPBadRequest"),
        (json!({ "network_id": two }), 400, "HTTPBadRequest"),
    ] {
        refused(&client.put(&format!("ports/{id}"), json!({ "port": body })).await, status, kind);
    }
    let off = json!({ "port": {
        "security_groups": [], "allowed_address_pairs": [], "port_security_enabled": false,
    }});
    assert_eq!(
        client.put(&format!("ports/{id}"), off).await.expect(200)["port"]["port_security_enabled"],
        false
    );
    refused(&client.delete(&format!("networks/{one}")).await, 409, "NetworkInUse");
    refused(&client.delete(&format!("subnets/{a}")).await, 409, "SubnetInUse");
    client.delete(&format!("ports/{id}")).await.expect(204);
    client.delete(&format!("subnets/{a}")).await.expect(204);
}

#[tokio::test]
async fn quotas_are_shown_set_and_kept() {
    let admin = Client::admin().await;
    let project = text(&admin.make("networks", "network", json!({})).await["project_id"]);
    let path = format!("quotas/{project}");
    let quota = admin.get(&path).await.expect(200)["quota"].clone();
    for key in [
        "network",
        "subnet",
        "subnetpool",
        "port",
        "router",
        "floatingip",
        "security_group",
        "security_group_rule",
    ] {
        assert!(quota[key].is_i64() || quota[key].is_u64(), "{key}");
    }
    let set = json!({ "quota": { "network": 2, "check_limit": true } });
    assert_eq!(admin.put(&path, set).await.expect(200)["quota"]["network"], 2);
    let details = admin.get(&format!("{path}/details")).await.expect(200)["quota"]["network"].clone();
    let used = details["used"].as_u64().unwrap();
    assert_eq!(details["limit"], 2);
    for _ in used..2 {
        admin.network("more").await;
    }
    refused(&admin.post("networks", json!({ "network": {} })).await, 409, "OverQuota");
    let low = json!({ "quota": { "network": 0, "check_limit": true } });
    refused(&admin.put(&path, low).await, 400, "InvalidQuotaValue");
    assert_eq!(admin.get("quotas").await.expect(200)["quotas"].as_array().unwrap().len(), 1);
    admin.delete(&path).await.expect(204);
    let default = admin.get(&format!("{path}/default")).await.expect(200);
    assert_eq!(admin.get(&path).await.expect(200), default);
    let member = admin.cloud.as_role("member").await;
    refused(&admin.cloud.get(&member, &format!("{V2}/{path}")).await, 403, "PolicyNotAuthorized");
    refused(&admin.cloud.delete(&member, &format!("{V2}/{path}")).await, 403, "PolicyNotAuthorized");
}

#[tokio::test]
async fn tags_extensions_and_inventory() {
    let client = Client::member().await;
    let network = client.network("net").await;
    let path = format!("networks/{network}/tags");
    assert_eq!(client.get(&path).await.expect(200)["tags"], json!([]));
    client.put(&format!("{path}/red"), json!({})).await.expect(201);
    client.put(&format!("{path}/red"), json!({})).await.expect(201);
    client.get(&format!("{path}/red")).await.expect(204);
    refused(&client.get(&format!("{path}/blue")).await, 404, "TagNotFound");
    client.post(&path, json!({ "tags": ["blue"] })).await.expect(201);
    assert_eq!(
        client.get(&format!("networks/{network}")).await.expect(200)["network"]["tags"],
        json!(["blue", "red"])
    );
    assert_eq!(
        ids(&client.get("networks?tags=red,blue").await.expect(200)["networks"]),
        std::slice::from_ref(&network)
    );
    client.delete(&format!("{path}/red")).await.expect(204);
    refused(&client.delete(&format!("{path}/red")).await, 404, "TagNotFound");
    client.delete(&path).await.expect(204);

    let extensions = client.get("extensions").await.expect(200);
    let aliases: BTreeSet<String> =
        extensions["extensions"].as_array().unwrap().iter().map(|e| text(&e["alias"])).collect();
    for alias in ["router", "security-group", "external-net", "extraroute", "quotas", "standard-attr-tag"] {
        assert!(aliases.contains(alias), "{alias}");
        client.get(&format!("extensions/{alias}")).await.expect(200);
    }
    for alias in ["dvr", "qos", "trunk", "provider", "external-gateway-multihoming"] {
        assert!(!aliases.contains(alias), "{alias}");
        refused(&client.get(&format!("extensions/{alias}")).await, 404, "ExtensionNotFound");
    }
    let zones = client.get("availability_zones").await.expect(200);
    assert_eq!(zones["availability_zones"].as_array().unwrap().len(), 2);
    assert_eq!(client.get("service-providers").await.expect(200)["service_providers"], json!([]));
    client.get("agents").await.expect(403);
    let admin = Client::admin().await;
    assert_eq!(admin.get("agents").await.expect(200)["agents"], json!([]));
    let network = admin.network("net").await;
    admin.subnet(&network, "10.1.0.0/29").await;
    admin.make("ports", "port", json!({ "network_id": network })).await;
    let left = admin.get(&format!("network-ip-availabilities/{network}")).await.expect(200);
    let left = &left["network_ip_availability"];
    assert_eq!((&left["total_ips"], &left["used_ips"]), (&json!(5), &json!(1)));
    admin.get("network-ip-availabilities").await.expect(200);
}

#[tokio::test]
async fn what_belongs_to_others_is_not_there() {
    let admin = Client::admin().await;
    let member = admin.cloud.as_role("member").await;
    let get = |path: String| {
        let (cloud, member) = (&admin.cloud, &member);
        async move { cloud.get(member, &format!("{V2}/{path}")).await }
    };
    let network = admin.network("hidden").await;
    let subnet = admin.subnet(&network, "10.1.0.0/24").await;
    refused(&get(format!("networks/{network}")).await, 404, "NetworkNotFound");
    refused(&get(format!("subnets/{subnet}")).await, 404, "SubnetNotFound");
    // Shared, it can be used, and not changed.
    admin.put(&format!("networks/{network}"), json!({ "network": { "shared": true } })).await.expect(200);
    get(format!("networks/{network}")).await.expect(200);
    assert_eq!(
        get(format!("subnets?network_id={network}")).await.expect(200)["subnets"].as_array().unwrap().len(),
        1
    );
    let body = json!({ "port": { "network_id": network, "fixed_ips": [{ "subnet_id": subnet }] } });
    let port = admin.cloud.post(&member, &format!("{V2}/ports"), &body).await.expect(201);
    // What a port says of itself is the network owner's to decide.
    for (key, value) in [
        ("mac_address", json!("fa:16:3e:00:00:09")),
        ("fixed_ips", json!([{ "ip_address": "10.1.0.1" }])),
        ("port_security_enabled", json!(false)),
        ("allowed_address_pairs", json!([{ "ip_address": "10.1.0.0/24" }])),
    ] {
        let mut wish = json!({ "port": { "network_id": network } });
        wish["port"][key] = value;
        let made = admin.cloud.post(&member, &format!("{V2}/ports"), &wish).await;
        refused(&made, 403, "PolicyNotAuthorized");
    }
    let path = format!("{V2}/networks/{network}");
    let rename = json!({ "network": { "name": "mine" } });
    refused(&admin.cloud.send(Method::PUT, &member, &path, &rename).await, 403, "PolicyNotAuthorized");
    let unshare = admin.put(&format!("networks/{network}"), json!({ "network": { "shared": false } })).await;
    refused(&unshare, 409, "InvalidSharedSetting");
    // The owner of the network sees the port of another in it.
    admin.get(&format!("ports/{}", text(&port["port"]["id"]))).await.expect(200);
    // External networks are seen, and where their addresses come from.
    let list = get("networks?router:external=True".into()).await.expect(200);
    let external = text(&list["networks"][0]["id"]);
    let subnets = get(format!("subnets?network_id={external}")).await.expect(200);
    let ids: Vec<&Value> = subnets["subnets"].as_array().unwrap().iter().map(|s| &s["id"]).collect();
    assert!(!ids.is_empty());
    assert_eq!(list["networks"][0]["subnets"].as_array().unwrap().len(), ids.len());
    let path = format!("{V2}/subnets/{}", text(ids[0]));
    let rename = json!({ "subnet": { "name": "mine" } });
    refused(&admin.cloud.send(Method::PUT, &member, &path, &rename).await, 403, "PolicyNotAuthorized");
    // Only an admin makes things for another project.
    let theirs = text(&port["port"]["project_id"]);
    let made = admin.make("networks", "network", json!({ "name": "gift", "project_id": theirs })).await;
    assert_eq!(made["tenant_id"], json!(theirs));
    get(format!("networks/{}", text(&made["id"]))).await.expect(200);
    let admins = text(&admin.get(&format!("networks/{network}")).await.expect(200)["network"]["project_id"]);
    let body = json!({ "network": { "tenant_id": admins } });
    refused(&admin.cloud.post(&member, &format!("{V2}/networks"), &body).await, 403, "PolicyNotAuthorized");
    let nobody = admin.cloud.get("", &format!("{V2}/networks")).await.expect(401);
    assert_eq!(nobody["error"]["title"], "Unauthorized");
}
