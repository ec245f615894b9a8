//! What a guest may read of itself, gathered from the records at the moment of the question.

use crate::network::{directory_mirror::hostname, gather::Gather};
use model::{
    dataplane::service::port_facts,
    instance::{Instance, Kind},
    metadata::{DeviceMark, GuestData, GuestDevice, GuestNic},
    subnet::Ipv6Mode,
};
use std::net::IpAddr;

/// The guest's view of an instance.
pub fn guest_data(gather: &Gather, instance: &Instance) -> GuestData {
    let host = hostname(instance);
    let (mut nics, mut devices) = (vec![], vec![]);
    let mut domain = String::new();
    let mut public_ipv4 = None;
    for port in gather.ports(&instance.ports) {
        let Some(view) = gather.network(port.network) else { continue };
        let facts = port_facts(&view, &port, Some(&host));
        if domain.is_empty() {
            domain.clone_from(&facts.domain);
        }
        public_ipv4 = public_ipv4.or_else(|| gather.floating_of(port.meta.id).filter(IpAddr::is_ipv4));
        let addresses = port
            .addresses
            .iter()
            .filter_map(|fixed| {
                let subnet = view.subnets.iter().find(|s| s.meta.id == fixed.subnet)?;
                ipnet::IpNet::new(fixed.address, subnet.cidr.prefix_len()).ok()
            })
            .collect();
        let v4 = facts.v4.as_ref();
        let dns = v4
            .iter()
            .flat_map(|f| f.dns.iter().map(|a| IpAddr::V4(*a)))
            .chain(facts.v6.iter().flat_map(|f| f.dns.iter().map(|a| IpAddr::V6(*a))))
            .collect();
        if let Some(tag) = port.device_tag.clone() {
            devices.push(GuestDevice { tag, mark: DeviceMark::Mac(port.mac) });
        }
        nics.push(GuestNic {
            device: port.device_name(),
            mac: port.mac,
            mtu: view.network.mtu,
            addresses,
            gateways: v4.and_then(|f| f.gateway).map(IpAddr::V4).into_iter().collect(),
            dns,
            dhcp: view.subnets.iter().any(|s| s.dhcp),
            ipv6_mode: facts.v6.first().map_or(Ipv6Mode::Stateful, |f| f.mode),
        });
    }
    for volume in gather.volumes(&instance.volumes) {
        if let Some(tag) = volume.device_tag.clone() {
            devices.push(GuestDevice { tag, mark: DeviceMark::Serial(volume.serial()) });
        }
    }
    let full = if domain.is_empty() { host } else { format!("{host}.{domain}") };
    GuestData {
        id: instance.meta.id,
        project: instance.meta.project,
        name: instance.meta.name.to_string(),
        hostname: full,
        flavor: instance.flavor_name.clone(),
        keys: instance.keys.clone(),
        metadata: instance.meta.labels.clone(),
        user_data_base64: instance.user_data_base64.clone(),
        nics,
        public_ipv4,
        devices,
        on_host_kernel: instance.kind == Kind::System,
    }
}
