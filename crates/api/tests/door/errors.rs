//! One form for every error, and limits with a test just past each.

use crate::house::House;
use api::{
    client::Error,
    limits::{JSON_BYTES_MAX, URI_BYTES_MAX},
    v1::types::{
        ErrorBody,
        instance::{CreateInstance, Instance},
        keypair::{CreateKeypair, Keypair},
        list::{ListQuery, WaitQuery},
    },
};
use hyper::Method;
use model::error::Code;

fn body_of(answer: &str) -> ErrorBody {
    let (_, body) = answer.split_once("\r\n\r\n").expect("head and body");
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
}

async fn check(house: &House, request: &str, status: u16, code: Code, words: &str) -> ErrorBody {
    let answer = house.raw(request, "\"request_id\":\"").await;
    let shown: String = request.chars().take(80).collect();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: {answer}");
    let body = body_of(&answer);
    assert_eq!(body.error.code, code, "{shown}: {body:?}");
    assert!(body.error.message.contains(words), "{shown}: {body:?}");
    let id = &body.error.request_id;
    assert!(answer.contains(&format!("x-request-id: {id}\r\n")), "{answer}");
    body
}

#[tokio::test]
async fn every_refusal_has_the_same_form() {
    let house = House::open().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let post = |path: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let body = check(&house, &get("/v1/instnaces"), 404, Code::NotFound, "there is no /v1/instnaces").await;
    assert_eq!(body.error.hint, "did you mean /v1/instances?");
    check(&house, &get("/nothing"), 404, Code::NotFound, "no /nothing").await;
    check(&house, &get("/v1/flavors/g1.c1m51"), 404, Code::NotFound, "no flavor").await;
    check(&house, &get("/v1/instances?limit=0"), 400, Code::Invalid, "limit 0").await;
    check(&house, &get("/v1/instances?limit=1001"), 400, Code::Invalid, "limit 1001").await;
    check(&house, &get("/v1/instances?colour=red"), 400, Code::Invalid, "no field \"colour\"").await;
    check(&house, &get("/v1/instances?phase=happy"), 400, Code::Invalid, "no phase \"happy\"").await;
    check(&house, &get("/v1/keypairs?phase=running"), 400, Code::Invalid, "cannot be filtered by phase")
        .await;
    check(&house, &get("/v1/keypairs/x?wait=3601"), 400, Code::Invalid, "waits 3600 seconds at most").await;
    check(&house, &get("/v1/instances?marker=x"), 400, Code::Invalid, "no marker").await;
    check(&house, &get("/v1/instances?project=nowhere"), 404, Code::NotFound, "no project \"nowhere\"").await;
    check(&house, &post("/v1/keypairs", "{"), 400, Code::Invalid, "no JSON").await;
    let body = check(&house, &post("/v1/keypairs", r#"{"nmae":"x"}"#), 400, Code::Invalid, "no field").await;
    assert_eq!(body.error.field.as_deref(), Some("nmae"));
    let plain =
        "POST /v1/keypairs HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx";
    check(&house, plain, 415, Code::Invalid, "JSON was expected").await;
    let put = "PUT /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    check(&house, put, 405, Code::Invalid, "does not take PUT").await;
    let allow = house.raw(put, "\"request_id\":\"").await.to_lowercase();
    assert!(allow.contains("allow: get,head,post") || allow.contains("allow: post,get,head"), "{allow}");
    let named = "GET /v1/flavors/zzzz HTTP/1.1\r\nHost: x\r\nX-Request-Id: my.id-7\r\n\r\n";
    assert_eq!(check(&house, named, 404, Code::NotFound, "zzzz").await.error.request_id, "my.id-7");
    let unsafe_id = "GET /v1/flavors/zzzz HTTP/1.1\r\nHost: x\r\nX-Request-Id: a b\"c\r\n\r\n";
    assert!(check(&house, unsafe_id, 404, Code::NotFound, "zzzz").await.error.request_id.starts_with("req-"));
}

#[tokio::test]
async fn limits_hold_just_past_them() {
    let house = House::open().await;
    let path = format!("/v1/flavors/{}", "x".repeat(URI_BYTES_MAX));
    check(&house, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"), 414, Code::TooLarge, "8192 bytes")
        .await;

    let headers: String = (0..70).map(|number| format!("X-{number}: y\r\n")).collect();
    let answer =
        house.raw(&format!("GET /v1/version HTTP/1.1\r\nHost: x\r\n{headers}\r\n"), "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let request = |bytes: usize| CreateKeypair {
        name: "x".into(),
        description: "y".repeat(bytes),
        ..CreateKeypair::default()
    };
    let empty = serde_json::to_vec(&request(0)).unwrap().len();
    let wait = WaitQuery::default();
    let fits = house.client.create::<Keypair>(&request(JSON_BYTES_MAX - empty), &wait).await.unwrap_err();
    assert_eq!(fits.code(), Code::Invalid, "{fits:?}");
    let over = house.client.create::<Keypair>(&request(JSON_BYTES_MAX - empty + 1), &wait).await.unwrap_err();
    assert_eq!(over.code(), Code::TooLarge, "{over:?}");

    let labels = (0..129).map(|number| (format!("k{number}"), String::new())).collect();
    let many = CreateKeypair { name: "x".into(), labels, ..CreateKeypair::default() };
    let over = house.client.create::<Keypair>(&many, &wait).await.unwrap_err();
    assert_eq!((over.code(), over.field()), (Code::TooLarge, Some("labels")), "{over:?}");
}

#[tokio::test]
async fn the_client_tells_code_hint_and_field() {
    let house = House::open().await;
    let request = CreateInstance {
        name: "web".into(),
        image: Some("debian".into()),
        kind: Some(model::instance::Kind::Vm),
        flavor: Some("g1.c1m512".into()),
        ..CreateInstance::default()
    };
    let error = house.client.create::<Instance>(&request, &WaitQuery::default()).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::NotFound, Some("image")), "{error:?}");
    assert!(
        !error.hint().is_empty() && error.request_id().is_some_and(|id| id.starts_with("req-")),
        "{error:?}"
    );

    let nowhere = api::client::Client::unix("/nonexistent/holm.sock");
    let error = nowhere.list::<Instance>(&ListQuery::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.hint().contains("holm serve"));

    let error =
        house.client.call::<serde_json::Value>(Method::GET, "/v1/", None::<&()>, None).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}
