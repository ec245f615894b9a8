//! Published ports: races, owners, outside addresses that come and go.

use super::{cloud, container, node_status, said_of};
use control::{
    Caller, Control, Role,
    bootstrap::Beginning,
    floating_ip::{NewFloatingIp, TargetAsked},
    instance::NicAsked,
    instance::{
        FloatingAsked, NewInstance,
        publish::{PublishChange, Unpublish},
    },
    port::NewPort,
    router::RouterChange,
};
use model::{
    error::Code,
    floating_ip::FloatingIp,
    id::NodeId,
    instance::{Instance, InstanceStatus},
    publish::{CHOSEN_PORTS, HostPort, Publish, publications},
    quota::Resource,
    security_group::{Family, Protocol},
};
use std::sync::Arc;
use store::{Memory, Store, Tx};

fn publish(address: Option<&str>, host_port: u16, port: u16) -> Publish {
    Publish { address: address.map(|a| a.parse().unwrap()), host_port, port, protocol: Protocol::TCP }
}

fn publishing(name: &str, ports: &[Publish]) -> NewInstance {
    NewInstance { publish: ports.to_vec(), ..container(name) }
}

fn add(ports: &[Publish]) -> PublishChange {
    PublishChange { add: ports.to_vec(), ..PublishChange::default() }
}

/// A cloud with IPv6 outside as well.
async fn dual_cloud() -> (Control, Caller) {
    let store = Store::open(Arc::new(Memory::new()), control::schema::schema()).await.unwrap();
    let control = Control::new(store);
    let beginning = Beginning {
        external_v4: "203.0.113.0/28".parse().unwrap(),
        external_v6: Some("2001:db8:f::/64".parse().unwrap()),
    };
    control.bootstrap(&beginning).await.unwrap();
    let node = NodeId::from_random([9; 16]);
    control.join_node(node, "here").await.unwrap();
    let mut tx = Tx::new();
    tx.put(&node_status(node));
    control.store().commit(tx).await.unwrap();
    let root = control::finalize::system_caller(model::id::ProjectId::from_random([0; 16]));
    let project = control.find_project(&root, "default").unwrap().record.meta.id;
    (control, Caller { project, ..root })
}

fn internal(control: &Control) -> Vec<FloatingIp> {
    let all = control.store().list::<FloatingIp>();
    all.iter().map(|f| f.record.clone()).filter(|f| f.internal).collect()
}

fn held(control: &Control) -> Vec<u16> {
    let mut all: Vec<u16> = control.store().list::<HostPort>().iter().map(|p| p.record.port).collect();
    all.sort_unstable();
    all
}

/// Where packets to an instance's published ports are led.
fn led(control: &Control, name: &str, caller: &Caller) -> Vec<String> {
    let instance = control.find::<Instance>(caller, name).unwrap().record.clone();
    let all = control.store().list::<FloatingIp>();
    let floating: Vec<FloatingIp> = all.iter().map(|f| f.record.clone()).collect();
    publications(&instance, &floating).iter().map(|p| format!("{}>{}", p.port, p.to)).collect()
}

async fn say_gone(control: &Control, instance: &Instance) {
    let mut tx = Tx::new();
    tx.put(&InstanceStatus { gone: true, ..said_of(instance) });
    control.store().commit(tx).await.unwrap();
    control.finalize_instance(instance.meta.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_requests_for_one_port_one_wins() {
    let (control, caller) = cloud().await;
    for n in 0..8 {
        control.create_instance(&caller, container(&format!("c{n}"))).await.unwrap();
    }
    let racers: Vec<_> = (0..8)
        .map(|n| {
            let (control, caller) = (control.clone(), caller.clone());
            // One asks for all addresses, another for one of them: they meet as well.
            let address = (n % 2 == 1).then_some("192.0.2.1");
            let change = add(&[publish(address, 8080, 80)]);
            tokio::spawn(
                async move { control.update_instance_publish(&caller, &format!("c{n}"), &change).await },
            )
        })
        .collect();
    let mut winners = vec![];
    for racer in racers {
        match racer.await.unwrap() {
            Ok(instance) => winners.push(instance.meta.name.to_string()),
            Err(error) => {
                assert_eq!((error.code, error.field.as_deref()), (Code::Taken, Some("publish")));
                assert!(error.message.contains("published by instance c"), "{error}");
                assert!(error.hint.contains("holm unpublish c"), "{}", error.hint);
            }
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(held(&control), [8080]);
    assert_eq!(internal(&control).len(), 1, "losers leave nothing");
}

#[tokio::test]
async fn free_ports_are_chosen_and_given_back() {
    let (control, caller) = cloud().await;
    let two = [publish(None, 0, 80), publish(None, 0, 81)];
    let web = control.create_instance(&caller, publishing("web", &two)).await.unwrap();
    let ports: Vec<u16> = web.publish.iter().map(|p| p.host_port).collect();
    assert!(ports.iter().all(|p| CHOSEN_PORTS.contains(p)) && ports[0] != ports[1]);
    // Asked for again, it stays; so does what another entry of the same list has.
    let again = PublishChange { set: Some(two.to_vec()), ..PublishChange::default() };
    let same = control.update_instance_publish(&caller, "web", &again).await.unwrap();
    assert_eq!(same.publish, web.publish);
    assert_eq!(same.meta.generation, web.meta.generation, "nothing changed");
    let gone = PublishChange {
        remove: vec![Unpublish { address: None, host_port: ports[0], protocol: Protocol::TCP }],
        ..PublishChange::default()
    };
    control.update_instance_publish(&caller, "web", &gone).await.unwrap();
    assert_eq!(held(&control), [ports[1]]);
    let error = control.update_instance_publish(&caller, "web", &gone).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let other =
        control.create_instance(&caller, publishing("other", &[publish(None, ports[0], 80)])).await.unwrap();
    control.delete_instance(&caller, "other").await.unwrap();
    say_gone(&control, &other).await;
    assert_eq!(held(&control), [ports[1]], "a deleted instance gives its ports back");
    assert_eq!(internal(&control).len(), 1, "and its outside address");
}

#[tokio::test]
async fn addresses_of_one_port_are_shared_where_they_differ() {
    let (control, caller) = cloud().await;
    let on = |address: &str| publish(Some(address), 53, 53);
    control.create_instance(&caller, publishing("a", &[on("192.0.2.1")])).await.unwrap();
    control.create_instance(&caller, publishing("b", &[on("192.0.2.2")])).await.unwrap();
    for taken in [on("192.0.2.1"), on("0.0.0.0"), publish(None, 53, 53)] {
        let error = control.create_instance(&caller, publishing("c", &[taken])).await.unwrap_err();
        assert_eq!(error.code, Code::Taken, "{taken}");
    }
    // The names of others' instances are not told.
    control.create_project(&caller, "other", "", Default::default()).await.unwrap();
    let other = Caller {
        project: control.find_project(&caller, "other").unwrap().record.meta.id,
        role: control::Role::Member,
        ..caller.clone()
    };
    let error = control.create_instance(&other, publishing("c", &[on("192.0.2.1")])).await.unwrap_err();
    assert!(error.message.contains("of another project"), "{error}");
    assert!(control.list::<FloatingIp>(&caller).is_empty(), "internal addresses are not listed");
    assert_eq!(control.quota(caller.project).1.of(Resource::FloatingIps), 0, "nor counted");
    let hidden = internal(&control)[0].address.to_string();
    let error = control.delete_floating_ip(&caller, &hidden).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

#[tokio::test]
async fn an_outside_address_is_taken_where_no_floating_ip_leads() {
    let (control, caller) = dual_cloud().await;
    let mut new = publishing("web", &[publish(None, 8080, 80)]);
    new.floating_ip = Some(FloatingAsked::New);
    control.create_instance(&caller, new).await.unwrap();
    let families = |control: &Control| {
        let all = internal(control);
        (
            all.iter().filter(|f| f.address.is_ipv4()).count(),
            all.iter().filter(|f| f.address.is_ipv6()).count(),
        )
    };
    assert_eq!(families(&control), (0, 1), "IPv4 has a floating IP");
    let floating = control.list::<FloatingIp>(&caller)[0].record.address;
    assert_eq!(led(&control, "web", &caller)[0], format!("8080>{floating}:80"));
    // Moved away, an internal one takes its place; moved back, it goes.
    control.create_instance(&caller, container("db")).await.unwrap();
    let to = |name: &str| Some(TargetAsked::Instance(name.into()));
    let reference = floating.to_string();
    control.set_floating_ip_target(&caller, &reference, to("db").as_ref()).await.unwrap();
    assert_eq!(families(&control), (1, 1));
    assert_eq!(led(&control, "web", &caller).len(), 2);
    control.set_floating_ip_target(&caller, &reference, to("web").as_ref()).await.unwrap();
    assert_eq!(families(&control), (0, 1));
    control.delete_floating_ip(&caller, &reference).await.unwrap();
    assert_eq!(families(&control), (1, 1));
    // A floating IP of family 6 is asked for.
    let six = NewFloatingIp { family: Some(Family::Ipv6), target: to("web"), ..NewFloatingIp::default() };
    let six = control.create_floating_ip(&caller, six).await.unwrap();
    assert!(six.address.is_ipv6());
    assert_eq!(families(&control), (1, 0));
    let nothing = PublishChange { set: Some(vec![]), ..PublishChange::default() };
    control.update_instance_publish(&caller, "web", &nothing).await.unwrap();
    assert_eq!(families(&control), (0, 0));
    assert!(control.store().list::<HostPort>().is_empty());
}

#[tokio::test]
async fn published_ports_follow_the_instances_interfaces() {
    let (control, caller) = dual_cloud().await;
    let web = control.create_instance(&caller, publishing("web", &[publish(None, 8080, 80)])).await.unwrap();
    let before = led(&control, "web", &caller);
    let nic = NicAsked::New(NewPort::default());
    control.attach_port(&caller, "web", &nic).await.unwrap();
    assert_eq!(led(&control, "web", &caller), before, "a second interface changes nothing");
    control.detach_port(&caller, "web", &web.ports[0].to_string()).await.unwrap();
    let after = led(&control, "web", &caller);
    assert_eq!(after.len(), 2);
    assert_ne!(after, before, "over the one that is left");
    // A router that published ports lead through stays.
    let closed = RouterChange { gateway: Some(None), ..RouterChange::default() };
    let error = control.update_router(&caller, "default", &closed, |_| Ok(())).await.unwrap_err();
    assert!(error.hint.contains("holm unpublish web --all"), "{error}: {}", error.hint);
}

#[tokio::test]
async fn what_leads_nowhere_is_refused_and_leaves_nothing() {
    let (control, caller) = cloud().await;
    let revision = control.store().mirror().revision();
    for (ports, code) in [
        (vec![publish(Some("2001:db8::1"), 8080, 80)], Code::Conflict),
        (vec![publish(None, 8080, 0)], Code::Invalid),
        (vec![publish(None, 8080, 80), publish(Some("192.0.2.1"), 8080, 81)], Code::Invalid),
        (vec![publish(None, 0, 80); 200], Code::TooLarge),
    ] {
        let error = control.create_instance(&caller, publishing("web", &ports)).await.unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (code, Some("publish")), "{error}");
        assert!(!error.hint.is_empty());
    }
    let mut alone = publishing("web", &[publish(None, 8080, 80)]);
    alone.nics = Some(vec![]);
    let error = control.create_instance(&caller, alone).await.unwrap_err();
    assert!(error.message.contains("no router joins"), "{error}");
    assert_eq!(control.store().mirror().revision(), revision);
}

#[tokio::test]
async fn small_ports_of_the_host_are_published_by_admins() {
    let (control, admin) = cloud().await;
    let own = Caller { role: Role::Member, ..admin.clone() };
    let refused = |outcome: control::Result<Instance>, port: &str| {
        let error = outcome.unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (Code::Forbidden, Some("publish")), "{error}");
        assert!(
            error.message.contains(&format!("port {port}/tcp of the host is one of 1 to 1023")),
            "{error}"
        );
        assert!(error.hint.contains("above 1023"), "{error}");
    };
    let new = |name: &str, ports: &[u16]| NewInstance {
        publish: ports.iter().map(|p| publish(None, *p, 80)).collect(),
        ..container(name)
    };
    for low in [1, 22, 1023] {
        refused(control.create_instance(&own, new("a", &[low])).await, &low.to_string());
    }
    let mut within = new("a", &[0]);
    within.publish_within = vec![(publish(None, 0, 80), 80..=90)];
    refused(control.create_instance(&own, within).await, "80");
    control.create_instance(&own, new("a", &[1024, 0])).await.unwrap();
    let add = |ports: &[u16]| PublishChange {
        add: ports.iter().map(|p| publish(None, *p, 80)).collect(),
        ..PublishChange::default()
    };
    refused(control.update_instance_publish(&own, "a", &add(&[443])).await, "443");
    // What an admin published stays, whatever else its owner changes.
    control.update_instance_publish(&admin, "a", &add(&[443])).await.unwrap();
    control.update_instance_publish(&own, "a", &add(&[2000])).await.unwrap();
    let narrow = publish(Some("192.0.2.1"), 443, 80);
    let set = PublishChange { set: Some(vec![narrow]), ..PublishChange::default() };
    refused(control.update_instance_publish(&own, "a", &set).await, "443");
    // So does it for the one that takes its place, and nothing else with it.
    let old = control.find::<Instance>(&own, "a").unwrap().record.meta.id;
    let next = |ports: &[u16]| NewInstance { succeeds: Some(old), start: false, ..new("b", ports) };
    refused(control.create_instance(&own, next(&[443, 80])).await, "80");
    let made = control.create_instance(&own, next(&[443])).await.unwrap();
    assert_eq!(made.succession.unwrap().publish, [publish(None, 443, 80)]);
}
