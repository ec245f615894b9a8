//! Every mistake a user can make in a request is answered with the field, what is possible, and the way out.

use crate::house::House;
use hyper::Method;
use model::error::Code;
use serde_json::{Value, json};

struct Case {
    path: &'static str,
    body: Value,
    code: Code,
    field: &'static str,
    words: &'static [&'static str],
}

fn case(
    path: &'static str,
    body: Value,
    code: Code,
    field: &'static str,
    words: &'static [&'static str],
) -> Case {
    Case { path, body, code, field, words }
}

/// A container with one thing that is wrong.
fn container(wrong: Value) -> Value {
    let mut body = json!({"name": "web", "kind": "container", "image": "busybox"});
    body.as_object_mut().expect("an object").extend(wrong.as_object().expect("an object").clone());
    body
}

fn rule(direction: &str, protocol: &str, ports: Option<&str>, peer: Option<&str>) -> Value {
    json!({"direction": direction, "protocol": protocol, "ports": ports, "peer": peer})
}

/// What is wrong with the answer to a mistake.
async fn flaw(house: &House, case: &Case) -> Option<String> {
    let Case { path, body, code, field, words } = case;
    let shown: String = body.to_string().chars().take(200).collect();
    let error = match house.client.call::<Value>(Method::POST, path, Some(body), None).await {
        Ok(_) => return Some(format!("{path} {shown} was taken")),
        Err(error) => error,
    };
    let said = format!("{error} ({})", error.hint());
    let is_right = (error.code(), error.field()) == (*code, Some(*field));
    let missing: Vec<&&str> = words.iter().filter(|word| !said.contains(**word)).collect();
    (!is_right || !missing.is_empty())
        .then(|| format!("{shown}\n    {:?} {:?}, without {missing:?}: {said}", error.code(), error.field()))
}

async fn check(house: &House, cases: &[Case]) {
    let mut flaws = vec![];
    for case in cases {
        flaws.extend(flaw(house, case).await);
    }
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
}

/// What instances stand on, named wrongly.
fn wrong_references() -> Vec<Case> {
    let vm = |image: &str| json!({"name": "db", "kind": "vm", "image": image, "flavor": "g1.c1m512"});
    vec![
        case("/v1/instances", vm("nothing"), Code::NotFound, "image", &["nothing", "image list"]),
        case("/v1/instances", container(json!({"image": "No/Such:"})), Code::Invalid, "image", &["No/Such:"]),
        case(
            "/v1/instances",
            container(json!({"flavor": "huge"})),
            Code::NotFound,
            "flavor",
            &["huge", "flavor list"],
        ),
        case(
            "/v1/instances",
            container(json!({"networks": [{"network": "nowhere"}]})),
            Code::NotFound,
            "network",
            &["nowhere", "network list"],
        ),
        case(
            "/v1/instances",
            container(json!({"networks": [{"network": "default", "address": "192.0.2.7"}]})),
            Code::Invalid,
            "address",
            &["192.0.2.7", "10.0.0."],
        ),
        case(
            "/v1/instances",
            container(json!({"security_groups": ["no"]})),
            Code::NotFound,
            "security_groups",
            &["no"],
        ),
        case(
            "/v1/instances",
            container(json!({"keypairs": ["mine"]})),
            Code::NotFound,
            "keypairs",
            &["mine", "keypair"],
        ),
    ]
}

/// What instances are to be, said wrongly.
fn wrong_wishes() -> Vec<Case> {
    vec![
        case("/v1/instances", container(json!({"name": ""})), Code::Invalid, "name", &[]),
        case("/v1/instances", container(json!({"memory_mib": 1})), Code::Invalid, "memory_mib", &["1 MiB"]),
        case("/v1/instances", container(json!({"vcpus": 0})), Code::Invalid, "vcpus", &["0"]),
        case(
            "/v1/instances",
            container(json!({"restart": "sometimes"})),
            Code::Invalid,
            "restart",
            &["on-failure:N"],
        ),
        case(
            "/v1/instances",
            container(json!({"grace_s": 4000})),
            Code::Invalid,
            "grace_s",
            &["3600", "4000"],
        ),
        case(
            "/v1/instances",
            container(json!({"volumes": [{"volume": "data", "mount_path": "/data"}]})),
            Code::NotFound,
            "volume",
            &["data", "volume"],
        ),
        case(
            "/v1/instances",
            container(json!({"volumes": [{"size_gib": 1, "mount_path": "data"}]})),
            Code::Invalid,
            "volumes[0].mount_path",
            &["/"],
        ),
    ]
}

#[tokio::test]
async fn instances_that_cannot_be_are_refused_with_the_way_out() {
    let house = House::open().await;
    check(&house, &wrong_references()).await;
    check(&house, &wrong_wishes()).await;
    assert_eq!(house.control.store().list::<model::instance::Instance>().len(), 0, "nothing half done stays");
}

#[tokio::test]
async fn networks_and_rules_that_cannot_be_are_refused_with_the_way_out() {
    let house = House::open().await;
    let rules = "/v1/security_groups/default/rules";
    let subnet = |cidr: &str| json!({"name": "s", "network": "default", "cidr": cidr});
    let cases = [
        case("/v1/subnets", subnet("10.1.0.0"), Code::Invalid, "cidr", &["10.1.0.0"]),
        case("/v1/subnets", subnet("10.1.0.0/33"), Code::Invalid, "cidr", &["10.1.0.0/33"]),
        case("/v1/subnets", subnet("10.1.0.7/16"), Code::Invalid, "cidr", &["10.1.0.0/16"]),
        case("/v1/subnets", subnet("10.1.0.0/31"), Code::Invalid, "cidr", &["/31"]),
        case("/v1/subnets", subnet("10.0.0.0/8"), Code::Invalid, "cidr", &["overlaps"]),
        case("/v1/subnets", subnet("224.0.0.0/16"), Code::Invalid, "cidr", &["224.0.0.0/16"]),
        case(rules, rule("ingress", "tcp", Some("0"), None), Code::Invalid, "ports", &["1 to 65535"]),
        case(rules, rule("ingress", "tcp", Some("99999"), None), Code::Invalid, "ports", &["99999", "65535"]),
        case(rules, rule("ingress", "tcp", Some("90-80"), None), Code::Invalid, "ports", &["90-80"]),
        case(rules, rule("ingress", "tcp", Some("http"), None), Code::Invalid, "ports", &["http"]),
        case(rules, rule("ingress", "tpc", Some("80"), None), Code::Invalid, "protocol", &["tpc", "tcp"]),
        case(rules, rule("ingress", "icmp", Some("80"), None), Code::Invalid, "rule", &["icmp", "tcp, udp"]),
        case(
            rules,
            rule("ingress", "tcp", Some("22"), Some("10.0.0.300")),
            Code::Invalid,
            "peer",
            &["10.0.0.300"],
        ),
        case(
            rules,
            rule("ingress", "tcp", Some("22"), Some("10.0.0.0/40")),
            Code::Invalid,
            "peer",
            &["10.0.0.0/40"],
        ),
        case("/v1/floating_ips", json!({"network": "default"}), Code::Invalid, "network", &["external"]),
    ];
    check(&house, &cases).await;
}
