//! Floating IPs: taken, led, moved, given back.

use super::{Client, refused, text};
use serde_json::{Value, json};

#[tokio::test]
async fn floating_ips_are_taken_led_and_given_back() {
    let client = Client::member().await;
    let external = client.external().await;
    let network = client.network("net").await;
    let subnet = client.subnet(&network, "10.1.0.0/24").await;
    let fixed = json!([{ "subnet_id": subnet, "ip_address": "10.1.0.8" }, { "subnet_id": subnet, "ip_address": "10.1.0.9" }]);
    let port = client.make("ports", "port", json!({ "network_id": network, "fixed_ips": fixed })).await;
    let port = text(&port["id"]);
    let take = |more: Value| wanted(&external, &more);
    let with_port = take(json!({ "port_id": port, "fixed_ip_address": "10.1.0.9" }));
    refused(
        &client.post("floatingips", with_port.clone()).await,
        404,
        "ExternalGatewayForFloatingIPNotFound",
    );
    let free = client.post("floatingips", take(json!({ "description": "d" }))).await.expect(201);
    let free = free["floatingip"].clone();
    assert_eq!(
        (&free["status"], &free["port_id"], &free["description"]),
        (&json!("DOWN"), &Value::Null, &json!("d"))
    );
    let path = format!("floatingips/{}", text(&free["id"]));
    let lead = json!({ "floatingip": { "port_id": port, "fixed_ip_address": "10.1.0.8" } });
    refused(&client.put(&path, lead.clone()).await, 404, "ExternalGatewayForFloatingIPNotFound");
    let gateway = json!({ "external_gateway_info": { "network_id": external } });
    let router = text(&client.make("routers", "router", gateway).await["id"]);
    client
        .put(&format!("routers/{router}/add_router_interface"), json!({ "subnet_id": subnet }))
        .await
        .expect(200);
    let led = client.put(&path, lead.clone()).await.expect(200)["floatingip"].clone();
    assert_eq!((&led["port_id"], &led["router_id"]), (&json!(port), &json!(router)));
    assert_eq!((&led["fixed_ip_address"], &led["status"]), (&json!("10.1.0.8"), &json!("ACTIVE")));
    assert_eq!(led["port_details"]["network_id"], json!(network));
    let moved = json!({ "floatingip": { "fixed_ip_address": "10.1.0.9" } });
    assert_eq!(client.put(&path, moved).await.expect(200)["floatingip"]["fixed_ip_address"], "10.1.0.9");
    refused(&client.post("floatingips", with_port).await, 409, "FloatingIPPortAlreadyAssociated");
    cannot_be_taken(&client, &external, &network, &port, &router, &led["floating_ip_address"]).await;
    let remove = format!("routers/{router}/remove_router_interface");
    refused(
        &client.put(&remove, json!({ "subnet_id": subnet })).await,
        409,
        "RouterInterfaceInUseByFloatingIP",
    );
    // The port goes, the floating IP stays and leads nowhere.
    client.delete(&format!("ports/{port}")).await.expect(204);
    let left = client.get(&path).await.expect(200)["floatingip"].clone();
    assert_eq!(
        (&left["port_id"], &left["router_id"], &left["status"]),
        (&Value::Null, &Value::Null, &json!("DOWN"))
    );
    client.put(&path, json!({ "floatingip": { "port_id": null } })).await.expect(200);
    let list =
        client.get(&format!("floatingips?floating_ip_address={}", text(&led["floating_ip_address"]))).await;
    assert_eq!(list.expect(200)["floatingips"].as_array().unwrap().len(), 1);
    client.delete(&path).await.expect(204);
    refused(&client.get(&path).await, 404, "FloatingIPNotFound");
}

/// What no floating IP can be led to, and why.
async fn cannot_be_taken(
    client: &Client,
    external: &str,
    network: &str,
    port: &str,
    router: &str,
    taken: &Value,
) {
    let take = |more: Value| wanted(external, &more);
    for (body, status, kind) in [
        (take(json!({ "port_id": port })), 400, "BadRequest"),
        (take(json!({ "fixed_ip_address": "10.1.0.9" })), 400, "BadRequest"),
        (take(json!({ "floating_network_id": network })), 400, "BadRequest"),
        (take(json!({ "port_id": router })), 404, "PortNotFound"),
        (take(json!({ "floating_ip_address": "9.9.9.9" })), 400, "InvalidInput"),
        (take(json!({ "floating_ip_address": *taken })), 409, "IpAddressAlreadyAllocated"),
    ] {
        refused(&client.post("floatingips", body).await, status, kind);
    }
}

fn wanted(external: &str, more: &Value) -> Value {
    let mut body = json!({ "floating_network_id": external });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "floatingip": body })
}
