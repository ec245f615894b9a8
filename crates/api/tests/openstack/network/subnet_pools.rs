//! Subnet pools and address scopes.

use super::{Client, refused, text};
use serde_json::{Value, json};

#[tokio::test]
async fn subnets_are_cut_from_pools() {
    let admin = Client::admin().await;
    let scope = admin.make("address-scopes", "address_scope", json!({ "name": "s", "ip_version": 4 })).await;
    let pool = json!({
        "name": "p", "prefixes": ["192.168.0.0/16"], "min_prefixlen": 20, "default_prefixlen": 24,
        "address_scope_id": scope["id"], "shared": true,
    });
    let pool = admin.make("subnetpools", "subnetpool", pool).await;
    let id = text(&pool["id"]);
    assert_eq!(
        (&pool["max_prefixlen"], &pool["ip_version"], &pool["default_quota"]),
        (&json!(32), &json!(4), &Value::Null)
    );
    let network = admin.network("net").await;
    let cut = admin
        .make("subnets", "subnet", json!({ "network_id": network, "subnetpool_id": id, "ip_version": 4 }))
        .await;
    assert_eq!((&cut["cidr"], &cut["subnetpool_id"]), (&json!("192.168.0.0/24"), &json!(id)));
    let exact = json!({ "network_id": network, "subnetpool_id": id, "ip_version": 4, "prefixlen": 25 });
    assert_eq!(admin.make("subnets", "subnet", exact).await["cidr"], "192.168.1.0/25");
    let shown = admin.get(&format!("networks/{network}")).await.expect(200);
    assert_eq!(shown["network"]["ipv4_address_scope"], scope["id"]);
    refused(&admin.delete(&format!("subnetpools/{id}")).await, 400, "SubnetPoolDeleteError");
    let scope_path = format!("address-scopes/{}", text(&scope["id"]));
    refused(&admin.delete(&scope_path).await, 409, "AddressScopeInUse");
    let change = json!({ "subnetpool": { "name": "q", "min_prefixlen": 16, "max_prefixlen": 30, "default_quota": 9000 } });
    let changed = admin.put(&format!("subnetpools/{id}"), change).await.expect(200)["subnetpool"].clone();
    assert_eq!(
        (&changed["name"], &changed["min_prefixlen"], &changed["default_quota"]),
        (&json!("q"), &json!(16), &json!(9000))
    );
    admin.delete(&format!("networks/{network}")).await.expect(204);
    admin.delete(&format!("subnetpools/{id}")).await.expect(204);
    admin.delete(&scope_path).await.expect(204);
    refused(&admin.get(&format!("subnetpools/{id}")).await, 404, "SubnetPoolNotFound");
}
