//! Every noun from making to removal, as the typed client does it.

use crate::house::{House, KEY};
use api::v1::types::{
    flavor::{CreateFlavor, Flavor, UpdateFlavor},
    floating_ip::{CreateFloatingIp, FloatingIp, TargetRequest, UpdateFloatingIp},
    image::{CreateImage, Image, ImageState, UpdateImage},
    instance::{CreateInstance, Instance},
    keypair::{CreateKeypair, Keypair, UpdateKeypair},
    list::{ListQuery, WaitQuery},
    network::{CreateNetwork, Network, UpdateNetwork},
    node::{Node, UpdateNode},
    port::{CreatePort, FixedIpRequest, Port, UpdatePort},
    project::{CreateProject, Project, UpdateProject},
    quota::UpdateQuota,
    router::{CreateRouter, GatewayRequest, Router, UpdateRouter},
    security_group::{CreateRule, CreateSecurityGroup, SecurityGroup},
    subnet::{CreateSubnet, Subnet, UpdateSubnet},
    volume::{CreateVolume, UpdateVolume, Volume},
};
use model::{
    error::Code,
    security_group::{Direction, Family},
};
use std::collections::BTreeMap;

fn wait() -> WaitQuery {
    WaitQuery::default()
}

fn rule(ports: &str, peer: Option<&str>) -> CreateRule {
    CreateRule {
        direction: Direction::Ingress,
        family: None,
        protocol: Some("tcp".into()),
        ports: Some(ports.into()),
        icmp_type: None,
        icmp_code: None,
        peer: peer.map(Into::into),
        peer_group: None,
        description: String::new(),
    }
}

#[tokio::test]
async fn keypairs_and_what_all_nouns_share() {
    let house = House::open().await;
    let client = &house.client;
    for number in 0..5 {
        let request = CreateKeypair {
            name: format!("key/{number} ü"),
            labels: BTreeMap::from([("even".into(), (number % 2 == 0).to_string())]),
            public_key: KEY.into(),
            ..CreateKeypair::default()
        };
        client.create::<Keypair>(&request, &wait()).await.unwrap();
    }
    let by_name = client.get::<Keypair>("key/3 ü").await.unwrap();
    let id = by_name.head.id.to_string();
    assert_eq!(client.get::<Keypair>(&id).await.unwrap(), by_name);
    assert_eq!(client.get::<Keypair>(&id[..8]).await.unwrap(), by_name);
    assert_eq!(by_name.head.project.name, "default");

    let filtered = |query: ListQuery| async move {
        let list = client.list::<Keypair>(&query).await.unwrap();
        list.items.iter().map(|k| k.head.name.clone()).collect::<Vec<_>>()
    };
    let label = |text: &str| ListQuery { label: Some(text.into()), ..ListQuery::default() };
    assert_eq!(filtered(label("even=false")).await, ["key/1 ü", "key/3 ü"]);
    assert_eq!(filtered(label("even")).await.len(), 5);
    let name = ListQuery { name: Some("key/2 ü".into()), ..ListQuery::default() };
    assert_eq!(filtered(name).await, ["key/2 ü"]);

    let page = ListQuery { limit: Some(2), ..ListQuery::default() };
    let first = client.list::<Keypair>(&page).await.unwrap();
    assert_eq!(first.items.len(), 2);
    // What a marker stands on may go meanwhile; the next page is right all the same.
    client.delete::<Keypair>("key/1 ü", &wait()).await.unwrap();
    let second = client.list::<Keypair>(&ListQuery { marker: first.next, ..page.clone() }).await.unwrap();
    assert_eq!(second.items[0].head.name, "key/2 ü");
    assert_eq!(client.list_all::<Keypair>(&page).await.unwrap().len(), 4);

    let change = UpdateKeypair {
        name: Some("main".into()),
        description: Some("mine".into()),
        labels: BTreeMap::from([("even".into(), None), ("owner".into(), Some("me".into()))]),
    };
    let changed = client.update::<Keypair>("key/3 ü", &change, &wait()).await.unwrap();
    assert_eq!((changed.head.name.as_str(), changed.head.description.as_str()), ("main", "mine"));
    assert_eq!(changed.head.labels, BTreeMap::from([("owner".to_string(), "me".to_string())]));
    let taken = UpdateKeypair { name: Some("key/2 ü".into()), ..UpdateKeypair::default() };
    assert_eq!(client.update::<Keypair>("main", &taken, &wait()).await.unwrap_err().code(), Code::Taken);
    assert!(client.delete::<Keypair>("main", &wait()).await.unwrap().is_none());
    assert_eq!(client.get::<Keypair>("main").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn projects_quotas_flavors_and_nodes() {
    let house = House::open().await;
    let client = &house.client;
    let request = CreateProject { name: "shop".into(), ..CreateProject::default() };
    let project = client.create::<Project>(&request, &wait()).await.unwrap();
    assert!(project.enabled);
    let off = UpdateProject { enabled: Some(false), ..UpdateProject::default() };
    assert!(!client.update::<Project>("shop", &off, &wait()).await.unwrap().enabled);

    let limits = UpdateQuota {
        limits: BTreeMap::from([("vcpus".into(), Some(3)), ("ports".into(), None)]),
        reset: vec![],
    };
    let quota = client.set_quota("shop", &limits).await.unwrap();
    assert_eq!((quota.resources["vcpus"].limit, quota.resources["vcpus"].is_default), (Some(3), false));
    assert_eq!(quota.resources["ports"].limit, None);
    let reset = UpdateQuota { limits: BTreeMap::new(), reset: vec!["vcpus".into()] };
    assert!(client.set_quota("shop", &reset).await.unwrap().resources["vcpus"].is_default);
    let wrong = UpdateQuota { limits: BTreeMap::from([("cpus".into(), Some(3))]), reset: vec![] };
    let error = client.set_quota("shop", &wrong).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::Invalid, Some("limits.cpus")));
    assert!(client.quota("default").await.unwrap().resources["networks"].used > 0);
    client.delete::<Project>("shop", &wait()).await.unwrap();

    let flavor = CreateFlavor { name: "big.c8r16".into(), ..CreateFlavor::default() };
    let flavor = client.create::<Flavor>(&flavor, &wait()).await.unwrap();
    assert_eq!((flavor.size.vcpus, flavor.size.memory_mib, flavor.public), (8, 16384, true));
    let half = CreateFlavor { name: "odd".into(), vcpus: Some(2), ..CreateFlavor::default() };
    assert_eq!(client.create::<Flavor>(&half, &wait()).await.unwrap_err().field(), Some("memory_mib"));
    let change = UpdateFlavor { description: Some("large".into()), ..UpdateFlavor::default() };
    let admin = client.clone().with_project("default");
    assert_eq!(
        admin.update::<Flavor>("big.c8r16", &change, &wait()).await.unwrap().head.description,
        "large"
    );
    client.delete::<Flavor>("big.c8r16", &wait()).await.unwrap();

    let nodes = client.list::<Node>(&ListQuery::default()).await.unwrap();
    assert_eq!((nodes.items.len(), nodes.items[0].name.as_str()), (1, "here"));
    let change = UpdateNode { schedulable: Some(false) };
    assert!(!client.update::<Node>("here", &change, &wait()).await.unwrap().schedulable);
}

#[tokio::test]
async fn networks_subnets_routers_and_ports() {
    let house = House::open().await;
    let client = &house.client;
    let network = CreateNetwork {
        name: "vpc".into(),
        labels: BTreeMap::from([("a".into(), "b".into())]),
        ..CreateNetwork::default()
    };
    assert_eq!(client.create::<Network>(&network, &wait()).await.unwrap().head.labels["a"], "b");
    let change = UpdateNetwork { mtu: Some(1200), ..UpdateNetwork::default() };
    assert_eq!(client.update::<Network>("vpc", &change, &wait()).await.unwrap_err().field(), Some("mtu"));
    let change = UpdateNetwork { mtu: Some(9000), ..UpdateNetwork::default() };
    assert_eq!(client.update::<Network>("vpc", &change, &wait()).await.unwrap().mtu, 9000);

    let json = serde_json::json!({"name": "web", "network": "vpc", "cidr": "10.7.0.0/24", "router": null});
    let request: CreateSubnet = serde_json::from_value(json).unwrap();
    let subnet = client.create::<Subnet>(&request, &wait()).await.unwrap();
    assert_eq!((subnet.network.name.as_str(), subnet.gateway), ("vpc", Some("10.7.0.1".parse().unwrap())));
    let error = client
        .call::<serde_json::Value>(
            hyper::Method::POST,
            "/v1/subnets",
            Some(&serde_json::json!({"name": "x", "network": "vpc", "cidr": "10.7.0.0/33"})),
            None,
        )
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::Invalid, Some("cidr")));
    let change =
        UpdateSubnet { dns_servers: Some(vec!["9.9.9.9".parse().unwrap()]), ..UpdateSubnet::default() };
    assert_eq!(client.update::<Subnet>("web", &change, &wait()).await.unwrap().dns_servers.len(), 1);

    let request = CreateRouter {
        name: "edge".into(),
        gateway: Some(GatewayRequest::default()),
        interfaces: vec!["web".into(), "nowhere".into()],
        ..CreateRouter::default()
    };
    let error = client.create::<Router>(&request, &wait()).await.unwrap_err();
    assert_eq!(error.field(), Some("interfaces[1]"), "{error:?}");
    assert_eq!(
        client.get::<Router>("edge").await.unwrap_err().code(),
        Code::NotFound,
        "nothing half made stays"
    );
    let request = CreateRouter { interfaces: vec!["web".into()], ..request };
    let router = client.create::<Router>(&request, &wait()).await.unwrap();
    assert_eq!(
        (router.interfaces[0].subnet.name.as_str(), router.gateway.as_ref().unwrap().snat),
        ("web", true)
    );
    let change = UpdateSubnet { gateway: Some(None), ..UpdateSubnet::default() };
    assert_eq!(client.update::<Subnet>("web", &change, &wait()).await.unwrap_err().code(), Code::InUse);
    let close = UpdateRouter { gateway: Some(None), ..UpdateRouter::default() };
    assert!(client.update::<Router>("edge", &close, &wait()).await.unwrap().gateway.is_none());
    assert!(client.remove_interface("edge", "web").await.unwrap().interfaces.is_empty());
    assert_eq!(client.add_interface("edge", "web").await.unwrap().interfaces.len(), 1);

    let request = CreatePort {
        network: Some("vpc".into()),
        addresses: vec![FixedIpRequest { subnet: None, address: Some("10.7.0.9".parse().unwrap()) }],
        ..CreatePort::default()
    };
    let port = client.create::<Port>(&request, &wait()).await.unwrap();
    assert_eq!((port.addresses[0].subnet.name.as_str(), port.device), ("web", None));
    let again = client.create::<Port>(&request, &wait()).await.unwrap_err();
    assert_eq!((again.code(), again.field()), (Code::Taken, Some("address")));
    let change = UpdatePort {
        security_groups: Some(vec![]),
        admin_up: Some(false),
        rate_mbit: Some(Some(50)),
        name: Some("p".into()),
        ..UpdatePort::default()
    };
    let port = client.update::<Port>(&port.head.id.to_string(), &change, &wait()).await.unwrap();
    assert!(port.security_groups.is_empty() && !port.admin_up && port.head.name == "p");
    assert_eq!(port.rate_mbit, Some(50));
    for wrong in [0, 100_001] {
        let change = UpdatePort { rate_mbit: Some(Some(wrong)), ..UpdatePort::default() };
        let refused = client.update::<Port>("p", &change, &wait()).await.unwrap_err();
        assert_eq!((refused.code(), refused.field()), (Code::Invalid, Some("rate_mbit")));
    }
    let change = UpdatePort { rate_mbit: Some(None), ..UpdatePort::default() };
    assert_eq!(client.update::<Port>("p", &change, &wait()).await.unwrap().rate_mbit, None);
    let in_vpc = ListQuery { network: Some("vpc".into()), ..ListQuery::default() };
    assert!(client.list::<Port>(&in_vpc).await.unwrap().items.iter().any(|p| p.head.name == "p"));
    assert_eq!(client.list::<Subnet>(&in_vpc).await.unwrap().items.len(), 1);
    client.delete::<Port>("p", &wait()).await.unwrap();
    client.remove_interface("edge", "web").await.unwrap();
    client.delete::<Router>("edge", &wait()).await.unwrap();
    client.delete::<Network>("vpc", &wait()).await.unwrap();
}

#[tokio::test]
async fn security_groups_and_rules() {
    let house = House::open().await;
    let client = &house.client;
    let request = CreateSecurityGroup {
        name: "web".into(),
        rules: vec![rule("80", None), rule("22", Some("203.0.113.7"))],
        ..CreateSecurityGroup::default()
    };
    let group = client.create::<SecurityGroup>(&request, &wait()).await.unwrap();
    let inbound: Vec<_> = group.rules.iter().filter(|r| r.direction == Direction::Ingress).collect();
    assert_eq!(inbound.len(), 3, "port 80 for both families, port 22 for one: {inbound:?}");
    let ssh = inbound.iter().find(|r| r.ports.as_deref() == Some("22")).unwrap();
    assert_eq!((ssh.family, ssh.peer.as_deref()), (Family::Ipv4, Some("203.0.113.7/32")));

    let bad = CreateSecurityGroup {
        name: "bad".into(),
        rules: vec![rule("80", None), rule("0", None)],
        ..CreateSecurityGroup::default()
    };
    let error = client.create::<SecurityGroup>(&bad, &wait()).await.unwrap_err();
    assert!(error.field().is_some_and(|f| f.starts_with("rules[1]")), "{error:?}");
    assert_eq!(client.get::<SecurityGroup>("bad").await.unwrap_err().code(), Code::NotFound);

    let from_group = CreateRule { peer_group: Some("web".into()), ..rule("5432", None) };
    let rules = client.add_rule("web", &from_group).await.unwrap();
    assert_eq!(rules[0].peer_group.as_ref().unwrap().name, "web");
    for rule in &rules {
        client.delete_rule("web", &rule.id.to_string()).await.unwrap();
    }
    let both = CreateRule { peer: Some("any".into()), ..from_group };
    assert_eq!(client.add_rule("web", &both).await.unwrap_err().field(), Some("peer_group"));
    assert_eq!(client.delete_rule("web", "00000000").await.unwrap_err().code(), Code::NotFound);
    let closed = CreateSecurityGroup { name: "shut".into(), closed: true, ..CreateSecurityGroup::default() };
    assert!(client.create::<SecurityGroup>(&closed, &wait()).await.unwrap().rules.is_empty());
    client.delete::<SecurityGroup>("shut", &wait()).await.unwrap();
    client.delete::<SecurityGroup>("web", &wait()).await.unwrap();
}

#[tokio::test]
async fn floating_ips_attach_move_and_detach() {
    let house = House::open().await;
    let client = &house.client;
    for name in ["a", "b"] {
        let request =
            CreateInstance { name: name.into(), image: Some("busybox".into()), ..CreateInstance::default() };
        client.create::<Instance>(&request, &wait()).await.unwrap();
    }
    let to = |name: &str| Some(TargetRequest { instance: Some(name.into()), ..TargetRequest::default() });
    let request = CreateFloatingIp { target: to("a"), ..CreateFloatingIp::default() };
    let floating = client.create::<FloatingIp>(&request, &wait()).await.unwrap();
    let address = floating.address.to_string();
    assert_eq!(floating.target.unwrap().instance.unwrap().name, "a");
    assert_eq!(client.get::<Instance>("a").await.unwrap().floating_ips, vec![floating.address]);

    let change = UpdateFloatingIp { target: Some(to("b")), ..UpdateFloatingIp::default() };
    let moved = client.update::<FloatingIp>(&address, &change, &wait()).await.unwrap();
    assert_eq!(moved.target.unwrap().instance.unwrap().name, "b");
    assert!(client.get::<Instance>("a").await.unwrap().floating_ips.is_empty());
    let of_b = ListQuery { instance: Some("b".into()), ..ListQuery::default() };
    assert_eq!(client.list::<FloatingIp>(&of_b).await.unwrap().items.len(), 1);
    let detach = UpdateFloatingIp { target: Some(None), ..UpdateFloatingIp::default() };
    assert!(client.update::<FloatingIp>(&address, &detach, &wait()).await.unwrap().target.is_none());
    let neither =
        UpdateFloatingIp { target: Some(Some(TargetRequest::default())), ..UpdateFloatingIp::default() };
    assert_eq!(
        client.update::<FloatingIp>(&address, &neither, &wait()).await.unwrap_err().field(),
        Some("target")
    );
    client.delete::<FloatingIp>(&address, &wait()).await.unwrap();
}

#[tokio::test]
async fn images_and_volumes() {
    let house = House::open().await;
    let client = &house.client;
    let json =
        serde_json::json!({"name": "debian", "visibility": "public", "login": "debian", "protected": true});
    let request: CreateImage = serde_json::from_value(json).unwrap();
    let image = client.create::<Image>(&request, &wait()).await.unwrap();
    assert_eq!((image.state, image.protected), (ImageState::Waiting, true));
    assert_eq!(client.delete::<Image>("debian", &wait()).await.unwrap_err().code(), Code::Conflict);
    let change = UpdateImage { protected: Some(false), login: Some(None), ..UpdateImage::default() };
    let image = client.update::<Image>("debian", &change, &wait()).await.unwrap();
    assert!(!image.protected && image.login.is_none());
    let json = serde_json::json!({"reference": "localhost:5000/web:1"});
    let pulled = client.create::<Image>(&serde_json::from_value(json).unwrap(), &wait()).await.unwrap();
    assert_eq!(
        (pulled.kind, pulled.reference.as_deref()),
        (model::image::ImageKind::Oci, Some("localhost:5000/web:1"))
    );
    let disks = ListQuery { kind: Some("disk".into()), ..ListQuery::default() };
    assert_eq!(client.list::<Image>(&disks).await.unwrap().items.len(), 1);
    client.delete::<Image>("debian", &wait()).await.unwrap();

    let request = CreateVolume { name: "data".into(), size_gib: Some(2), ..CreateVolume::default() };
    let volume = client.create::<Volume>(&request, &wait()).await.unwrap();
    assert_eq!((volume.size_gib, volume.thick), (2, false));
    let grow = UpdateVolume { size_gib: Some(3), ..UpdateVolume::default() };
    assert_eq!(client.update::<Volume>("data", &grow, &wait()).await.unwrap().size_gib, 3);
    let shrink = UpdateVolume { size_gib: Some(1), ..UpdateVolume::default() };
    assert_eq!(
        client.update::<Volume>("data", &shrink, &wait()).await.unwrap_err().field(),
        Some("size_gib")
    );
    let no_size = CreateVolume { name: "x".into(), ..CreateVolume::default() };
    assert_eq!(client.create::<Volume>(&no_size, &wait()).await.unwrap_err().field(), Some("size_gib"));
    client.delete::<Volume>("data", &wait()).await.unwrap();
}
