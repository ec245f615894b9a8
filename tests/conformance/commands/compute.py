"""Servers and what belongs to them by the everyday commands of the openstack client, with a real guest.

The cloud has the image `micro` and the external network `external`."""
import tempfile
import time

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here"
PATIENCE = 120


def wait(openstack, line, status):
    """Runs a show command until it tells this status."""
    deadline = time.time() + PATIENCE
    while True:
        shown = openstack(line)
        if shown["status"] == status:
            return shown
        assert shown["status"].lower() != "error" and time.time() < deadline, shown
        time.sleep(0.5)


def flavors_and_keys(openstack):
    flavor = openstack("flavor create --ram 128 --disk 1 --vcpus 1 --id tiny --private rflavor")
    assert (flavor["id"], flavor["os-flavor-access:is_public"]) == ("tiny", False), flavor
    openstack("flavor set --project admin --property hw:cpu_policy=shared rflavor")
    shown = openstack("flavor show tiny")
    assert shown["access_project_ids"] and shown["properties"] == {"hw:cpu_policy": "shared"}, shown
    assert "rflavor" in {row["Name"] for row in openstack("flavor list --all")}
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(KEY)
        file.flush()
        made = openstack(f"keypair create --public-key {file.name} rkey")
    assert made["fingerprint"].count(":") == 15, made
    assert [row["Name"] for row in openstack("keypair list")] == ["rkey"]


def network(openstack):
    openstack("network create rnet")
    openstack("subnet create --network rnet --subnet-range 10.9.0.0/24 rsub")
    openstack("router create rrouter")
    openstack("router add subnet rrouter rsub")
    openstack("router set --external-gateway external rrouter")
    openstack("security group create rsg")
    openstack("security group rule create --protocol tcp --dst-port 22 --remote-ip 0.0.0.0/0 rsg")


def server(openstack):
    made = openstack(
        "server create --image micro --flavor rflavor --network rnet --key-name rkey --security-group rsg --wait rvm")
    assert made["status"] == "ACTIVE" and "10.9.0." in str(made["addresses"]), made
    assert [row["Name"] for row in openstack("server list")] == ["rvm"]
    openstack("server reboot --hard --wait rvm")
    openstack("server pause rvm")
    wait(openstack, "server show rvm", "PAUSED")
    openstack("server unpause rvm")
    wait(openstack, "server show rvm", "ACTIVE")
    address = openstack("floating ip create external")["floating_ip_address"]
    openstack(f"server add floating ip rvm {address}")
    assert address in str(openstack("server show rvm")["addresses"])
    actions = {row["Action"] for row in openstack("server event list rvm")}
    assert {"create", "reboot", "pause", "unpause"} <= actions, actions


def volumes(openstack):
    openstack("volume create --size 1 rvol")
    wait(openstack, "volume show rvol", "available")
    openstack("server add volume rvm rvol")
    wait(openstack, "volume show rvol", "in-use")
    attached = openstack("server volume list rvm")
    assert [row["Device"] for row in attached] == ["/dev/vdb"], attached
    openstack("server volume set --delete-on-termination rvm rvol")
    assert [row["Delete On Termination?"] for row in openstack("server volume list rvm")] == [True]
    openstack("server volume set --preserve-on-termination rvm rvol")
    openstack("server remove volume rvm rvol")
    wait(openstack, "volume show rvol", "available")
    openstack("volume delete rvol")
    openstack("server image create --name rimage rvm")
    image = wait(openstack, "image show rimage", "active")
    assert "snapshot" in str(image["properties"]), image


def from_volume(openstack):
    made = openstack("server create --image micro --boot-from-volume 1 --flavor rflavor --network rnet --wait rvm2")
    assert made["status"] == "ACTIVE" and made["image"] == "N/A (booted from volume)", made
    (root,) = openstack("server volume list rvm2")
    assert root["Device"] == "/dev/vda", root
    openstack.refused(f"server remove volume rvm2 {root['Volume ID']}", "root")
    openstack("server delete --wait rvm2")
    # As Nova has it, the volume stays unless it was said that it goes.
    wait(openstack, f"volume show {root['Volume ID']}", "available")
    openstack(f"volume delete {root['Volume ID']}")


def groups(openstack):
    openstack("server group create --policy anti-affinity rgroup")
    one = openstack("server group show rgroup")
    assert one["policy"] == "anti-affinity" and not one["members"], one
    openstack("server group delete rgroup")


def check(openstack):
    flavors_and_keys(openstack)
    network(openstack)
    server(openstack)
    volumes(openstack)
    from_volume(openstack)
    groups(openstack)
    assert "nova" in {row["Zone Name"] for row in openstack("availability zone list --compute")}
    assert len(openstack("hypervisor list")) == 1
    assert openstack("limits show --absolute")
    openstack("server delete --wait rvm")
    openstack("image delete rimage")
    openstack("keypair delete rkey")
    openstack("flavor delete rflavor")
