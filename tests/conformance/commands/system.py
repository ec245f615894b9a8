"""A system container by the commands for servers: of a root file system in a tar, which a property says it is.

The archive is `root.tar.xz` in the home directory."""
import os

from compute import until


def check(openstack):
    root = os.path.join(os.environ["HOME"], "root.tar.xz")
    made = openstack(f"image create --file {root} --disk-format raw --container-format bare "
                     "--property hypervisor_type=lxc rroot")
    assert made["status"] == "active", made
    assert made["properties"]["hypervisor_type"] == "lxc", made
    openstack("network create rnet")
    openstack("subnet create --network rnet --subnet-range 10.77.0.0/24 rsubnet")
    server = openstack("server create --image rroot --flavor g1.c1m512 --network rnet --wait rbox")
    assert server["status"] == "ACTIVE", server
    until(lambda: "its init says nothing", lambda: "up for the 1. time" in openstack("console log show rbox"))
    openstack("server reboot --wait rbox")
    until(lambda: "it did not boot again", lambda: "up for the 2. time" in openstack("console log show rbox"))
    openstack("server delete --wait rbox")
    for line in ("subnet delete rsubnet", "network delete rnet", "image delete rroot"):
        openstack(line)
