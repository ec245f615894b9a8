//! What the DNS server of a network is told of names: aliases belong to one network, several ports share one, and what
//! does not run stands back.

use crate::lab::{Daemon, Lab, NODE, pod};
use control::{
    instance::{NewInstance, NicAsked},
    network::NewNetwork,
    port::{NewPort, PortChange},
    subnet::NewSubnet,
};
use model::{
    error::Code,
    id::{InstanceId, NetworkId, NodeId},
    network::NetworkKind,
    port::{
        Port,
        alias::{ALIASES_MAX, Alias},
    },
};
use node::network::{directory::Directory, directory_mirror::MirrorDirectory, gather::Gather};
use std::{collections::BTreeSet, net::IpAddr};

/// Questions after which each of two addresses has come first: the chance that none of them was is below 10^-19.
const QUESTIONS: usize = 64;

async fn network(lab: &Lab, name: &str, cidr: &str) -> NetworkId {
    let made = lab.control.create_network(&lab.caller, NewNetwork::of_kind(name, NetworkKind::Private)).await;
    let id = made.unwrap().meta.id;
    let subnet = NewSubnet {
        name: format!("{name}-v4"),
        network: id.to_string(),
        cidr: cidr.into(),
        dhcp: true,
        no_router: true,
        ..NewSubnet::default()
    };
    lab.control.create_subnet(&lab.caller, subnet).await.unwrap();
    id
}

fn aliases(texts: &[&str]) -> Vec<Alias> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn in_networks(name: &str, places: &[(&str, &[&str])]) -> NewInstance {
    let nic = |(network, names): &(&str, &[&str])| {
        NicAsked::New(NewPort {
            network: Some(network.to_string()),
            aliases: aliases(names),
            ..NewPort::default()
        })
    };
    NewInstance { nics: Some(places.iter().map(nic).collect()), ..pod(name) }
}

fn address(lab: &Lab, id: InstanceId, network: NetworkId) -> IpAddr {
    let ports = lab.control.ports_of(&lab.instance(id).unwrap().ports);
    ports.iter().find(|port| port.network == network).unwrap().addresses[0].address
}

fn directory(daemon: &Daemon) -> MirrorDirectory {
    let node = NodeId::from_random(NODE);
    MirrorDirectory::new(daemon.store.clone(), Gather::new(daemon.store.clone(), node))
}

#[tokio::test(start_paused = true)]
async fn copies_share_an_alias_and_are_told_in_turn() {
    let lab = Lab::new().await;
    let front = network(&lab, "front", "10.71.0.0/24").await;
    let back = network(&lab, "back", "10.72.0.0/24").await;
    let one = lab.create(in_networks("shop-web-1", &[("front", &["web", "Shop_Web.local"])])).await;
    let two = lab.create(in_networks("shop-web-2", &[("front", &["web"])])).await;
    let other = lab.create(in_networks("other", &[("back", &["web", "db"])])).await;
    let both = lab.create(in_networks("Both_Sides", &[("front", &[]), ("back", &["db"])])).await;
    for id in [one, two, other, both] {
        lab.rest(id).await;
    }
    let daemon = lab.healthy().await;
    let directory = directory(&daemon);
    let asks = |network, asker, name: &str| directory.addresses_of(network, asker, name);
    let (a, b) = (address(&lab, one, front), address(&lab, two, front));
    let firsts: BTreeSet<IpAddr> =
        (0..QUESTIONS).map(|_| asks(front, a, "web").expect("an answer")[0]).collect();
    assert_eq!(firsts, BTreeSet::from([a, b]));
    assert_eq!(asks(front, a, "web").unwrap().len(), 2, "the other network's web is not among them");
    assert_eq!(
        asks(front, b, "shop_web.local"),
        Some(vec![a]),
        "case counts for nothing, and dots are taken"
    );
    assert_eq!(asks(back, address(&lab, other, back), "web"), Some(vec![address(&lab, other, back)]));
    assert_eq!(asks(front, a, "db"), None, "an alias means nothing outside its network");

    // One that is in both networks asks the server of the first and finds what is in the second.
    let dbs: BTreeSet<IpAddr> = asks(front, address(&lab, both, front), "db").unwrap().into_iter().collect();
    assert_eq!(dbs, BTreeSet::from([address(&lab, other, back), address(&lab, both, back)]));
    for name in ["both_sides", "both-sides", &both.hex()[..12]] {
        assert!(asks(front, a, name).is_some(), "{name}");
    }

    // What does not run is told of only where no copy does.
    lab.control.stop_instance(&lab.caller, &two.to_string(), true, None).await.unwrap();
    lab.rest(two).await;
    daemon.store.wait_for(lab.control.store().mirror().revision()).await.unwrap();
    assert_eq!(asks(front, a, "web"), Some(vec![a]));
    lab.control.stop_instance(&lab.caller, &one.to_string(), true, None).await.unwrap();
    lab.rest(one).await;
    daemon.store.wait_for(lab.control.store().mirror().revision()).await.unwrap();
    assert_eq!(asks(front, a, "web").unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn aliases_change_and_have_a_limit() {
    let lab = Lab::new().await;
    network(&lab, "front", "10.71.0.0/24").await;
    let id = lab.create(in_networks("web", &[("front", &["a", "A", "b"])])).await;
    let port = lab.instance(id).unwrap().ports[0];
    let has = || lab.control.get::<Port>(port).unwrap().record.aliases.clone();
    assert_eq!(has(), aliases(&["a", "b"]), "each once");
    let many: Vec<Alias> = (0..=ALIASES_MAX).map(|n| format!("n{n}").parse().unwrap()).collect();
    let change = async |all: Vec<Alias>| {
        let edit = |port: &mut Port| {
            port.aliases.clone_from(&all);
            Ok(())
        };
        lab.control.update_port(&lab.caller, &port.to_string(), &PortChange::default(), edit).await
    };
    let refused = change(many.clone()).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (Code::TooLarge, Some("aliases")));
    change(many[..ALIASES_MAX].to_vec()).await.unwrap();
    assert_eq!(has().len(), ALIASES_MAX);
    change(vec![]).await.unwrap();
    assert_eq!(has(), []);
}
