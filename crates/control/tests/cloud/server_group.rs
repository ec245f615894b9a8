//! Server groups on two hosts: what each policy makes of them, and races for the last place.

use super::{cloud, container, node_status};
use control::{Caller, Control, instance::NewInstance, server_group::NewServerGroup};
use model::{error::Code, id::NodeId, meta::Labels, server_group::Policy};
use store::Tx;

async fn two_hosts() -> (Control, Caller) {
    let (control, caller) = cloud().await;
    let node = NodeId::from_random([10; 16]);
    control.join_node(node, "there").await.unwrap();
    let mut tx = Tx::new();
    tx.put(&node_status(node));
    control.store().commit(tx).await.unwrap();
    (control, caller)
}

async fn group(control: &Control, caller: &Caller, policy: Policy, per_host_max: Option<u32>) {
    let new = NewServerGroup {
        name: policy.as_str().into(),
        description: String::new(),
        labels: Labels::new(),
        policy,
        per_host_max,
        user: None,
    };
    control.create_server_group(caller, new).await.unwrap();
}

fn member(name: &str, policy: Policy) -> NewInstance {
    NewInstance { server_group: Some(policy.as_str().into()), ..container(name) }
}

#[tokio::test]
async fn members_are_placed_as_their_policy_says() {
    for (policy, per_host_max, spread) in [
        (Policy::Affinity, None, vec![4, 0]),
        (Policy::SoftAffinity, None, vec![4, 0]),
        (Policy::SoftAntiAffinity, None, vec![2, 2]),
        (Policy::AntiAffinity, Some(2), vec![2, 2]),
        (Policy::AntiAffinity, None, vec![1, 1]),
    ] {
        let (control, caller) = two_hosts().await;
        group(&control, &caller, policy, per_host_max).await;
        let mut counts = std::collections::HashMap::<NodeId, usize>::new();
        for number in 0..4 {
            match control.create_instance(&caller, member(&format!("c{number}"), policy)).await {
                Ok(made) => *counts.entry(made.node.unwrap()).or_default() += 1,
                Err(error) => {
                    assert_eq!(error.code, Code::NoCapacity, "{error:?}");
                    assert!(error.message.contains("anti-affinity"), "{error:?}");
                }
            }
        }
        let mut found: Vec<usize> = counts.into_values().collect();
        found.resize(2, 0);
        found.sort_by(|a, b| b.cmp(a));
        assert_eq!(found, spread, "{policy:?} {per_host_max:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_members_exactly_as_many_win_as_there_are_hosts() {
    let (control, caller) = two_hosts().await;
    group(&control, &caller, Policy::AntiAffinity, None).await;
    let racers: Vec<_> = (0..8)
        .map(|n| {
            let (control, caller) = (control.clone(), caller.clone());
            let new = member(&format!("c{n}"), Policy::AntiAffinity);
            tokio::spawn(async move { control.create_instance(&caller, new).await.map(|made| made.node) })
        })
        .collect();
    let mut hosts = vec![];
    for racer in racers {
        hosts.extend(racer.await.unwrap().ok());
    }
    hosts.sort();
    hosts.dedup();
    assert_eq!(hosts.len(), 2);
    let caller_project = caller.project;
    let all = control.store().list::<model::instance::Instance>();
    assert_eq!(all.iter().filter(|i| i.record.meta.project == caller_project).count(), 2);
}
