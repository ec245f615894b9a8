//! The pod's side of its ports: moved in, named, addressed, plugged and unplugged while it runs.

use crate::lab::{Lab, until};
use model::{address::Mac, id::PortId, plan::NicPlan};
use node::driver::Driver;
use std::path::Path;
use sys::{netlink::Netlink, netns::NetNs};

fn nic(number: u8, netns: &Path) -> NicPlan {
    NicPlan {
        port: PortId::from_random([number; 16]),
        device: format!("p-{number}"),
        netns: netns.to_path_buf(),
        mac: Mac([2, 0, 0, 0, 9, number]),
        mtu: 1400,
        addresses: vec![
            format!("10.77.{number}.5/24").parse().unwrap(),
            format!("fd77:{number}::5/64").parse().unwrap(),
        ],
        ranges_v6: vec![],
        gateway_v4: Some(format!("10.77.{number}.1").parse().unwrap()),
        gateway_v6: Some("fe80::1".parse().unwrap()),
        dns: vec![format!("10.77.{number}.1").parse().unwrap()],
        search: vec!["internal".into()],
    }
}

/// Gives the network's end of a port the gateway's address.
fn answer_as_gateway(network: &NetNs, nic: &NicPlan) {
    let netlink = Netlink::open(network).unwrap();
    let gateway = format!("{}/24", nic.gateway_v4.unwrap()).parse().unwrap();
    netlink.set_up(&nic.device).unwrap();
    netlink.add_address(&nic.device, gateway).unwrap();
}

#[tokio::test]
async fn ports_come_and_go() {
    let mut lab = Lab::new();
    let handle = lab.config.run.join("netns/n-test");
    let network = NetNs::create(&handle).unwrap();
    let first = nic(1, &handle);
    let script = "ip addr show eth0; ip route; ip -6 route; cat /etc/resolv.conf /etc/hosts; \
        until ping -c 1 -w 1 10.77.1.1; do :; done; echo pinged; exec sleep 1000";
    let container = lab.container("main", script);
    let mut plan = lab.pod(vec![container]);
    plan.nics.push(first.clone());
    lab.driver.start(&plan).await.unwrap();
    answer_as_gateway(&network, &first);
    let output = lab.output_with(plan.id, "pinged").await;
    for part in [
        "mtu 1400",
        "02:00:00:00:09:01",
        "inet 10.77.1.5/24",
        "inet6 fd77:1::5/128",
        "default via 10.77.1.1 dev eth0",
        "default via fe80::1 dev eth0",
        "nameserver 10.77.1.1",
        "search internal",
        "10.77.1.5\tpod-host",
    ] {
        assert!(output.contains(part), "{part}: {output}");
    }
    assert_eq!(lab.driver.attached(plan.id).await.unwrap().0, [first.port]);

    let second = nic(2, &handle);
    for _ in 0..2 {
        lab.driver.attach_nic(plan.id, &second).await.unwrap();
    }
    answer_as_gateway(&network, &second);
    until("an answer on the second port", async || {
        let argv = ["ping", "-c", "1", "-w", "1", "10.77.2.1"];
        crate::confinement::exec(&lab, &plan, &argv, None).await.0 == 0
    })
    .await;
    assert_eq!(lab.driver.attached(plan.id).await.unwrap().0, [first.port, second.port]);
    for _ in 0..2 {
        lab.driver.detach_nic(plan.id, second.port).await.unwrap();
    }
    assert_eq!(lab.driver.attached(plan.id).await.unwrap().0, [first.port]);
    let (code, links) = crate::confinement::exec(&lab, &plan, &["ls", "/sys/class/net"], None).await;
    assert_eq!((code, links.as_str()), (0, "eth0\nlo\n"));

    // Another run keeps the port, whose other end the network may have configured.
    lab.driver.kill(plan.id).await.unwrap();
    lab.ended(plan.id).await;
    let before = Netlink::open(&network).unwrap().link(&first.device).unwrap().unwrap();
    plan.boot = 2;
    lab.driver.start(&plan).await.unwrap();
    until("the second run's answer", async || lab.output(plan.id).await.matches("pinged").count() == 2).await;
    let after = Netlink::open(&network).unwrap().link(&first.device).unwrap().unwrap();
    assert_eq!(before.index, after.index);

    lab.driver.destroy(plan.id).await.unwrap();
    until("the port's end", async || Netlink::open(&network).unwrap().link(&first.device).unwrap().is_none())
        .await;
    NetNs::delete(&handle).unwrap();
    lab.close().await;
}
