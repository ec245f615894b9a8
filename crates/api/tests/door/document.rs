//! The OpenAPI document: kept as a golden file, complete, and served.

use crate::house::House;
use std::path::Path;

/// Set to 1 to write the golden file anew.
const REFRESH: &str = "UPDATE_GOLDEN";

#[test]
fn the_golden_document_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let current = api::v1::document();
    if std::env::var_os(REFRESH).is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == current,
        "openapi.json is out of date: run the tests once with {REFRESH}=1 and read the difference"
    );
}

#[test]
fn every_route_and_every_reference_is_in_the_document() {
    let routes = api::v1::all_routes();
    let document: serde_json::Value = serde_json::from_str(&api::v1::document()).unwrap();
    assert!(routes.table().len() > 80);
    for (method, path) in routes.table() {
        let operation = &document["paths"][path][method.as_str().to_lowercase()];
        assert!(operation["summary"].is_string(), "{method} {path} is not described");
        assert!(operation["responses"]["default"].is_object(), "{method} {path} has no form of errors");
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let parameters = operation["parameters"].as_array().unwrap();
            assert!(
                parameters.iter().any(|p| p["name"] == name && p["in"] == "path"),
                "{method} {path}: {name}"
            );
        }
    }
    let mut references = vec![];
    collect(&document, &mut references);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let ids: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let unique: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "operation ids repeat");
}

fn collect(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::String(reference)) = map.get("$ref") {
                found.push(reference.clone());
            }
            map.values().for_each(|inner| collect(inner, found));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|inner| collect(inner, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_is_served() {
    let house = House::open().await;
    let served: serde_json::Value =
        house.client.call(hyper::Method::GET, "/openapi.json", None::<&()>, None).await.unwrap();
    assert_eq!(served["info"]["title"], "holm");
    assert!(served["components"]["schemas"]["Instance"].is_object());
}
