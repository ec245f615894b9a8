//! Security groups and their rules.

use super::{Client, refused, text};
use api::v1::types::security_group::SecurityGroup;
use serde_json::{Value, json};

#[tokio::test]
async fn security_groups_and_rules() {
    let client = Client::member().await;
    let group =
        client.make("security-groups", "security_group", json!({ "name": "g", "description": "d" })).await;
    let id = text(&group["id"]);
    let rule = |more: Value| rule_of(&id, &more);
    for (more, expected) in [
        (
            json!({ "protocol": "tcp", "port_range_min": 77, "port_range_max": 77 }),
            json!({ "protocol": "tcp", "port_range_min": 77, "port_range_max": 77, "remote_ip_prefix": null }),
        ),
        (json!({ "protocol": 17 }), json!({ "protocol": "17", "port_range_min": null })),
        (
            json!({ "protocol": "icmp", "port_range_min": 3, "port_range_max": 5 }),
            json!({ "protocol": "icmp", "port_range_min": 3, "port_range_max": 5 }),
        ),
        (
            json!({ "protocol": "icmp", "ethertype": "IPv6" }),
            json!({ "protocol": "ipv6-icmp", "ethertype": "IPv6" }),
        ),
        (
            json!({ "protocol": "tcp", "port_range_min": 1, "port_range_max": 2, "remote_ip_prefix": "0.0.0.0/0" }),
            json!({ "remote_ip_prefix": "0.0.0.0/0", "normalized_cidr": "0.0.0.0/0" }),
        ),
        (json!({ "remote_group_id": id }), json!({ "remote_group_id": id, "protocol": null })),
        (
            json!({ "direction": "egress", "protocol": "vrrp" }),
            json!({ "direction": "egress", "protocol": "vrrp" }),
        ),
    ] {
        let made = client.post("security-group-rules", rule(more.clone())).await.expect(201);
        let made = &made["security_group_rule"];
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(made[key], *value, "{key} of {more}");
        }
        let shown = client.get(&format!("security-group-rules/{}", text(&made["id"]))).await.expect(200);
        assert_eq!(shown["security_group_rule"], *made);
    }
    cannot_be_rules(&client, &id).await;
    let rules = client.get(&format!("security-group-rules?security_group_id={id}")).await.expect(200);
    assert_eq!(rules["security_group_rules"].as_array().unwrap().len(), 9, "7 and the two that let out");
    let seen = client.cloud.house.client.get::<SecurityGroup>(&id).await.unwrap();
    assert!(seen.rules.iter().any(|rule| rule.protocol == "17"), "as it was given");
    let update = json!({ "security_group": { "name": "h", "description": "e" } });
    let changed = client.put(&format!("security-groups/{id}"), update).await.expect(200);
    assert_eq!(changed["security_group"]["name"], "h");
    let twice = json!({ "security_group": { "name": "default" } });
    refused(&client.post("security-groups", twice).await, 409, "SecurityGroupDefaultAlreadyExists");
    let list = client.get("security-groups?name=default").await.expect(200);
    let default = format!("security-groups/{}", text(&list["security_groups"][0]["id"]));
    refused(&client.delete(&default).await, 409, "SecurityGroupCannotRemoveDefault");
    let rename = json!({ "security_group": { "name": "other" } });
    refused(&client.put(&default, rename).await, 409, "SecurityGroupCannotUpdateDefault");
    for rule in rules["security_group_rules"].as_array().unwrap() {
        client.delete(&format!("security-group-rules/{}", text(&rule["id"]))).await.expect(204);
    }
    refused(&client.get(&format!("security-group-rules/{NOBODY}")).await, 404, "SecurityGroupRuleNotFound");
    client.delete(&format!("security-groups/{id}")).await.expect(204);
    refused(&client.delete(&format!("security-groups/{id}")).await, 404, "SecurityGroupNotFound");
}

/// As tools do that clear a project before they delete it; one that stays gets its group back with the next port.
#[tokio::test]
async fn an_admin_takes_the_default_group_of_another_project_away() {
    let client = Client::member().await;
    let network = client.network("n").await;
    let default = async || {
        let list = client.get("security-groups?name=default").await.expect(200);
        list["security_groups"].as_array().unwrap().iter().map(|g| text(&g["id"])).collect::<Vec<_>>()
    };
    let [id] = &default().await[..] else { panic!("one") };
    let path = format!("/network/v2.0/security-groups/{id}");
    let port = client.make("ports", "port", json!({ "network_id": network })).await;
    assert_eq!(port["security_groups"], json!([id]));
    refused(&client.cloud.delete(&client.cloud.admin, &path).await, 409, "SecurityGroupInUse");
    client.delete(&format!("ports/{}", text(&port["id"]))).await.expect(204);
    client.cloud.delete(&client.cloud.admin, &path).await.expect(204);
    assert_eq!(default().await, Vec::<String>::new());
    let asked = json!({ "ports": [{ "network_id": network }, { "network_id": network }] });
    let (one, two) = tokio::join!(client.post("ports", asked.clone()), client.post("ports", asked));
    let made = default().await;
    assert_eq!(made.len(), 1, "however many ask at once");
    for reply in [one, two] {
        for port in reply.expect(201)["ports"].as_array().unwrap() {
            assert_eq!(port["security_groups"], json!(made));
        }
    }
}

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

fn rule_of(group: &str, more: &Value) -> Value {
    let mut body = json!({ "security_group_id": group, "direction": "ingress", "ethertype": "IPv4" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "security_group_rule": body })
}

/// Rules that cannot be, beside those that the group has, and why.
async fn cannot_be_rules(client: &Client, id: &str) {
    let rule = |more: Value| rule_of(id, &more);
    for (more, status, kind) in [
        (json!({ "protocol": 17 }), 409, "SecurityGroupRuleExists"),
        (json!({ "protocol": "udp" }), 409, "SecurityGroupRuleExists"),
        (json!({ "protocol": "nonsense" }), 400, "SecurityGroupRuleInvalidProtocol"),
        (json!({ "ethertype": "IPv5" }), 400, "SecurityGroupRuleInvalidEtherType"),
        (json!({ "remote_ip_prefix": "192.168.1./24" }), 400, "HTTPBadRequest"),
        (json!({ "remote_ip_prefix": "fd00::/8" }), 400, "SecurityGroupRuleParameterConflict"),
        (json!({ "remote_group_id": NOBODY }), 404, "SecurityGroupNotFound"),
        (json!({ "security_group_id": NOBODY }), 404, "SecurityGroupNotFound"),
        (
            json!({ "remote_group_id": id, "remote_ip_prefix": "1.2.3.4" }),
            400,
            "SecurityGroupMultipleRemoteEntites",
        ),
        (json!({ "port_range_min": 1, "port_range_max": 2 }), 400, "SecurityGroupProtocolRequiredWithPorts"),
        (
            json!({ "protocol": "tcp", "port_range_min": 80, "port_range_max": 79 }),
            400,
            "SecurityGroupInvalidPortRange",
        ),
    ] {
        refused(&client.post("security-group-rules", rule(more)).await, status, kind);
    }
}
