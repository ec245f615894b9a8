"""Images, disks, quotas and what a cloud says of itself by the everyday commands of the openstack client: no guest runs."""
import os
import tempfile
import time

PATIENCE = 60


def wait(openstack, line, status):
    """Runs a show command until it tells this status."""
    deadline = time.time() + PATIENCE
    while True:
        shown = openstack(line)
        if shown["status"] == status:
            return shown
        assert shown["status"].lower() != "error" and time.time() < deadline, shown
        time.sleep(0.2)


def images(openstack):
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(1 << 20))
        file.flush()
        openstack(f"image create --disk-format raw --container-format bare --file {file.name} rimg")
    image = wait(openstack, "image show rimg", "active")
    assert (image["size"], image["disk_format"], image["visibility"]) == (1 << 20, "raw", "shared"), image
    assert ("rimg", "active") in {(row["Name"], row["Status"]) for row in openstack("image list")}
    with tempfile.NamedTemporaryFile() as file:
        openstack(f"image save --file {file.name} rimg")
        assert os.path.getsize(file.name) == 1 << 20
    openstack("image delete rimg")
    openstack.refused("image show rimg", "No Image found")


def volumes(openstack):
    openstack("volume create --size 1 rvol2")
    wait(openstack, "volume show rvol2", "available")
    assert [(row["Name"], row["Size"]) for row in openstack("volume list")] == [("rvol2", 1)]
    openstack("volume snapshot create --volume rvol2 rsnap")
    wait(openstack, "volume snapshot show rsnap", "available")
    openstack.refused("volume delete rvol2", "snapshot")
    openstack("volume create --snapshot rsnap rcopy")
    assert wait(openstack, "volume show rcopy", "available")["size"] == 1
    openstack("volume backup create --name rbak rvol2")
    wait(openstack, "volume backup show rbak", "available")
    restored = openstack("volume backup restore rbak rback")
    assert restored["volume_name"] == "rback", restored
    wait(openstack, "volume show rback", "available")
    openstack("volume backup delete rbak")
    openstack("volume delete rback")
    openstack("volume snapshot delete rsnap")
    openstack("volume delete rcopy rvol2")


def quotas(openstack):
    networks = len(openstack("network list --project admin")) + 1
    openstack(f"quota set --instances 50 --cores 100 --volumes 1 --networks {networks} admin")
    shown = {row["Resource"]: row["Limit"] for row in openstack("quota show")}
    assert (shown["instances"], shown["cores"], shown["volumes"], shown["networks"]) == (50, 100, 1, networks), shown
    openstack("volume create --size 1 rfirst")
    openstack.refused("volume create --size 1 rsecond", "quota of volumes exceeded")
    openstack("network create rnet1")
    openstack.refused("network create rnet2", "quota of networks exceeded")
    assert "rnet1" in {row["Name"] for row in openstack("network list")}
    openstack("network delete rnet1")
    wait(openstack, "volume show rfirst", "available")
    openstack("volume delete rfirst")
    openstack("quota set --volumes 20 --networks 20 admin")


def inventory(openstack):
    assert {"router", "security-group", "quotas"} <= {row["Alias"] for row in openstack("extension list --network")}
    assert {row["Zone Name"] for row in openstack("availability zone list")} >= {"nova"}
    assert isinstance(openstack("flavor list"), list)
    assert any("instances" in row["Name"] for row in openstack("limits show --absolute"))
    assert "admin" in {row["Name"] for row in openstack("project list")}
    assert openstack("user create --password secret1 --project admin ruser")["enabled"] is True
    openstack("role add --user ruser --project admin member")
    openstack("user delete ruser")


def check(openstack):
    images(openstack)
    volumes(openstack)
    quotas(openstack)
    inventory(openstack)
