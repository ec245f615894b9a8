//! Routers: what they join, where they lead.

use super::{Client, ids, refused, text};
use api::v1::types::router::Router;
use serde_json::{Value, json};

#[tokio::test]
async fn routers_join_by_subnet_and_by_port() {
    let client = Client::member().await;
    let network = client.network("net").await;
    let subnet = client.subnet(&network, "10.1.0.0/24").await;
    let router = client.make("routers", "router", json!({ "name": "r", "admin_state_up": false })).await;
    assert_eq!((&router["admin_state_up"], &router["external_gateway_info"]), (&json!(false), &Value::Null));
    let id = text(&router["id"]);
    let path = format!("routers/{id}");
    let joined = client.put(&format!("{path}/add_router_interface"), json!({ "subnet_id": subnet })).await;
    let joined = joined.expect(200);
    assert_eq!((&joined["subnet_id"], &joined["id"]), (&json!(subnet), &json!(id)));
    let port = client.get(&format!("ports/{}", text(&joined["port_id"]))).await.expect(200)["port"].clone();
    assert_eq!((&port["device_owner"], &port["device_id"]), (&json!("network:router_interface"), &json!(id)));
    let by_router = client.get(&format!("ports?device_id={id}")).await.expect(200);
    assert_eq!(ids(&by_router["ports"]), [text(&joined["port_id"])]);
    let again = client.put(&format!("{path}/add_router_interface"), json!({ "subnet_id": subnet })).await;
    refused(&again, 400, "BadRequest");
    refused(&client.delete(&path).await, 409, "RouterInUse");
    refused(&client.delete(&format!("ports/{}", text(&joined["port_id"]))).await, 409, "ServicePortInUse");
    refused(&client.delete(&format!("networks/{network}")).await, 409, "NetworkInUse");
    // An overlapping range of another network is a bad request.
    let other = client.network("other").await;
    let overlapping = client.subnet(&other, "10.1.0.0/25").await;
    let overlap =
        client.put(&format!("{path}/add_router_interface"), json!({ "subnet_id": overlapping })).await;
    refused(&overlap, 400, "HTTPBadRequest");
    // By port, with two subnets.
    let second = client.subnet(&network, "10.1.1.0/24").await;
    let port = client.make(
        "ports",
        "port",
        json!({ "network_id": network, "fixed_ips": [{ "subnet_id": second }] }),
    );
    let port = text(&port.await["id"]);
    let joined =
        client.put(&format!("{path}/add_router_interface"), json!({ "port_id": port })).await.expect(200);
    assert_eq!((&joined["port_id"], &joined["subnet_id"]), (&json!(port), &json!(second)));
    client.put(&format!("{path}/remove_router_interface"), json!({ "port_id": port })).await.expect(200);
    refused(&client.get(&format!("ports/{port}")).await, 404, "PortNotFound");
}

#[tokio::test]
async fn routers_lead_out_and_route() {
    let client = Client::member().await;
    let external = client.external().await;
    let network = client.network("net").await;
    let (subnet, second) =
        (client.subnet(&network, "10.1.0.0/24").await, client.subnet(&network, "10.1.1.0/24").await);
    let id = text(&client.make("routers", "router", json!({ "name": "r" })).await["id"]);
    let path = format!("routers/{id}");
    let add = format!("{path}/add_router_interface");
    client.put(&add, json!({ "subnet_id": subnet })).await.expect(200);
    let joined = client.put(&add, json!({ "subnet_id": second })).await.expect(200);
    let port = text(&joined["port_id"]);
    // The way out.
    for (info, status, kind) in [
        (json!({ "network_id": network }), 400, "BadRequest"),
        (json!({ "network_id": "00000000-0000-0000-0000-000000000000" }), 404, "NetworkNotFound"),
    ] {
        let body = json!({ "router": { "external_gateway_info": info } });
        refused(&client.put(&path, body).await, status, kind);
    }
    let body = json!({ "router": { "external_gateway_info": { "network_id": external }, "name": "s" } });
    let changed = client.put(&path, body).await.expect(200)["router"].clone();
    assert_eq!(changed["external_gateway_info"]["network_id"], json!(external));
    assert_eq!(changed["name"], "s");
    let routes = json!([{ "destination": "10.50.0.0/24", "nexthop": "10.1.0.7" }]);
    let body = json!({ "router": { "routes": routes } });
    assert_eq!(client.put(&path, body).await.expect(200)["router"]["routes"], routes);
    let stray = json!({ "router": { "routes": [{ "destination": "10.50.0.0/24", "nexthop": "9.9.9.9" }] } });
    refused(&client.put(&path, stray).await, 400, "InvalidRoutes");
    let more = json!({ "router": { "routes": [{ "destination": "10.51.0.0/24", "nexthop": "10.1.0.8" }] } });
    let both = client.put(&format!("{path}/add_extraroutes"), more.clone()).await.expect(200);
    assert_eq!(both["router"]["routes"].as_array().unwrap().len(), 2);
    let left = client.put(&format!("{path}/remove_extraroutes"), more).await.expect(200);
    assert_eq!(left["router"]["routes"], routes);
    let remove = format!("{path}/remove_router_interface");
    refused(&client.put(&remove, json!({ "subnet_id": subnet })).await, 409, "RouterInterfaceInUseByRoute");
    client.put(&path, json!({ "router": { "routes": [], "external_gateway_info": {} } })).await.expect(200);
    let seen = client.cloud.house.client.get::<Router>(&id).await.unwrap();
    assert_eq!((seen.gateway.is_none(), seen.interfaces.len()), (true, 2));
    client.put(&remove, json!({ "subnet_id": subnet })).await.expect(200);
    refused(&client.put(&remove, json!({ "subnet_id": subnet })).await, 404, "RouterInterfaceNotFound");
    let gone = client.put(&remove, json!({ "port_id": port })).await.expect(200);
    assert_eq!(gone["port_id"], json!(port));
    client.delete(&path).await.expect(204);
    for method in ["GET", "PUT", "DELETE"] {
        let reply = match method {
            "GET" => client.get(&path).await,
            "PUT" => client.put(&path, json!({ "router": {} })).await,
            _ => client.delete(&path).await,
        };
        refused(&reply, 404, "RouterNotFound");
    }
}
