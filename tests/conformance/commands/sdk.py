"""A small project by openstacksdk, as programs, Ansible's modules and others stand on it, with a real guest.

The cloud has the image `micro` and the external network `external`."""
import openstack as library

PATIENCE = 120


def network(cloud):
    net = cloud.create_network("snet")
    subnet = cloud.create_subnet(net.id, cidr="10.8.0.0/24", subnet_name="ssub")
    outside = cloud.get_network("external")
    router = cloud.create_router("srouter", ext_gateway_net_id=outside.id)
    cloud.add_router_interface(router, subnet_id=subnet.id)
    group = cloud.create_security_group("sgroup", "lets in by SSH")
    cloud.create_security_group_rule(
        group.id, port_range_min=22, port_range_max=22, protocol="tcp", remote_ip_prefix="0.0.0.0/0")
    return net, subnet, router, group


def server(cloud, net):
    cloud.create_flavor("sflavor", ram=128, vcpus=1, disk=1)
    made = cloud.create_server(
        "sdk", image="micro", flavor="sflavor", network=net.id, security_groups=["sgroup"], wait=True,
        timeout=PATIENCE, auto_ip=True, meta={"purpose": "proof"})
    addresses = {one["OS-EXT-IPS:type"]: one["addr"] for one in made.addresses["snet"]}
    assert made.status == "ACTIVE" and addresses["fixed"].startswith("10.8.0.") and addresses["floating"], made
    assert made.metadata == {"purpose": "proof"}, made
    return made


def volume(cloud, made):
    disk = cloud.create_volume(size=1, name="svolume", wait=True, timeout=PATIENCE)
    attached = cloud.attach_volume(made, disk, wait=True, timeout=PATIENCE)
    assert attached["device"] == "/dev/vdb", attached
    assert cloud.get_volume("svolume").status == "in-use"
    cloud.detach_volume(made, cloud.get_volume("svolume"), wait=True, timeout=PATIENCE)
    cloud.create_volume_snapshot(disk.id, name="ssnap", wait=True, timeout=PATIENCE)
    cloud.delete_volume_snapshot("ssnap", wait=True, timeout=PATIENCE)
    assert cloud.delete_volume("svolume", wait=True, timeout=PATIENCE)


def check(_openstack):
    cloud = library.connect()
    net, subnet, router, group = network(cloud)
    made = server(cloud, net)
    volume(cloud, made)
    console = cloud.compute.create_console(made, console_type="novnc")
    assert console["protocol"] == "vnc" and console["url"], console
    assert cloud.delete_server("sdk", wait=True, timeout=PATIENCE, delete_ips=True)
    cloud.remove_router_interface(router, subnet_id=subnet.id)
    assert cloud.delete_router(router.id) and cloud.delete_network(net.id)
    assert cloud.delete_security_group(group.id) and cloud.delete_flavor("sflavor")
