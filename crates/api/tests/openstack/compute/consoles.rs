//! Where consoles are, and who is let in. The bytes of a guest's screen and serial line are read by the system's tests.

use super::Lab;
use axum::{body::Body, http::Method};
use serde_json::{Value, json};

const UPGRADE: [(&str, &str); 5] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "x3JJHMbDL1EzLkh9GBhXDw=="),
    ("sec-websocket-protocol", "binary"),
];

/// Path and query of an address.
fn path_of(url: &Value) -> String {
    let url = url.as_str().unwrap();
    format!("/{}", url.split_once("://").unwrap().1.split_once('/').unwrap().1)
}

#[tokio::test]
async fn consoles_have_an_address_with_a_ticket() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let path = format!("/servers/{id}");
    let old = lab.act(&id, json!({ "os-getVNCConsole": { "type": "novnc" } })).await.expect(200);
    assert_eq!(old["console"]["type"], "novnc");
    let url = old["console"]["url"].as_str().unwrap();
    assert!(url.starts_with("http://cloud:5000/console/vnc?path=console%2Fvnc%3Ftoken%3D"), "{url}");
    let serial = json!({ "remote_console": { "protocol": "serial", "type": "serial" } });
    let made = lab.post("2.6", &format!("{path}/remote-consoles"), serial.clone()).await.expect(200);
    let made = &made["remote_console"];
    assert_eq!((&made["protocol"], &made["type"]), (&json!("serial"), &json!("serial")));
    assert!(made["url"].as_str().unwrap().starts_with("ws://cloud:5000/console/serial?token="), "{made}");
    let screen = json!({ "remote_console": { "protocol": "vnc", "type": "novnc" } });
    let other = lab.post("2.6", &format!("{path}/remote-consoles"), screen.clone()).await.expect(200);
    assert_ne!(other["remote_console"]["url"], old["console"]["url"]);

    for (version, path, body, status) in [
        ("2.6", "action", json!({ "os-getVNCConsole": { "type": "novnc" } }), 404),
        ("2.1", "action", json!({ "os-getVNCConsole": { "type": "xvpvnc" } }), 400),
        ("2.1", "action", json!({ "os-getSPICEConsole": { "type": "spice-html5" } }), 400),
        ("2.1", "action", json!({ "os-getVNCConsole": {} }), 400),
        ("2.5", "remote-consoles", screen.clone(), 404),
        (
            "2.6",
            "remote-consoles",
            json!({ "remote_console": { "protocol": "spice", "type": "spice-html5" } }),
            400,
        ),
        ("2.6", "remote-consoles", json!({ "remote_console": { "protocol": "tin", "type": "novnc" } }), 400),
        ("2.6", "remote-consoles", json!({ "remote_console": { "protocol": "vnc" } }), 400),
    ] {
        let reply = lab.post(version, &format!("/servers/{id}/{path}"), body.clone()).await;
        assert_eq!(reply.status.as_u16(), status, "{version} {body}: {}", reply.text());
    }
    let reader = lab.cloud.as_role("reader").await;
    let refused = lab.at(Method::POST, &reader, "2.6", &format!("{path}/remote-consoles"), &screen).await;
    assert_eq!(refused.status, 403);
    let booting = lab.boot("two").await;
    let early = lab.post("2.6", &format!("/servers/{booting}/remote-consoles"), screen).await;
    assert_eq!(early.status, 409, "nothing runs yet: {}", early.text());
}

#[tokio::test]
async fn a_console_opens_for_its_ticket_alone() {
    let lab = Lab::open().await;
    let id = lab.running("one").await;
    let cloud = &lab.cloud;
    let made = lab.act(&id, json!({ "os-getVNCConsole": { "type": "novnc" } })).await.expect(200);
    let path = path_of(&made["console"]["url"]);
    let page = cloud.get("", &path).await;
    assert!(page.status == 200 && page.text().contains("noVNC"), "a browser is told how to go on");
    for wrong in
        [path.replace("token%3D", "token%3Dbad"), "/console/vnc".into(), "/console/serial?token=x".into()]
    {
        let reply = cloud.call(Method::GET, &wrong, "", &UPGRADE, Body::empty()).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (403, 0), "{wrong}");
        assert_eq!(reply.headers["connection"], "close", "{wrong}");
    }
    assert_eq!(cloud.get("", "/console/window").await.status, 404);
}
