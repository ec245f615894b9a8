"""Servers and what belongs to them by the everyday commands of the openstack client, with a real guest.

The cloud has the image `micro` and the external network `external`."""
import pathlib
import subprocess
import tempfile
import time

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here"
PATIENCE = 120
# Nothing of the guests is remembered.
SSH = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
       "-o", "GlobalKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5"]


def wait(openstack, line, status):
    """Runs a show command until it tells this status."""
    deadline = time.time() + PATIENCE
    while True:
        shown = openstack(line)
        if shown["status"] == status:
            return shown
        assert shown["status"].lower() != "error" and time.time() < deadline, shown
        time.sleep(0.5)


def until(what, check):
    """Tries until the check gives something, and gives that. `what` says what did not come; a function is asked for it."""
    deadline = time.time() + PATIENCE
    while True:
        found = check()
        if found:
            return found
        assert time.time() < deadline, what() if callable(what) else what
        time.sleep(0.5)


class Guest:
    """A guest as who logs in to it sees it, by its floating IP."""

    def __init__(self, address, key, console=lambda: ""):
        self.address, self.key, self.refusal, self.console = address, key, "", console

    def is_closed(self):
        """That nobody gets in, with what the guest said last."""
        return f"nobody gets in: {self.refusal}; its console: {self.console()[-2000:]}"

    def tries(self, command):
        """What a command says in the guest; None when nobody got in."""
        words = [*SSH, "-i", self.key, f"root@{self.address}", command]
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
        self.refusal = done.stderr
        return done.stdout if done.returncode == 0 else None

    def disks(self):
        listed = self.tries("ls /sys/block")
        return {name for name in listed.split() if name.startswith("vd")} if listed is not None else set()


def flavors_and_keys(openstack, private):
    flavor = openstack("flavor create --ram 128 --disk 1 --vcpus 1 --id tiny --private rflavor")
    assert (flavor["id"], flavor["os-flavor-access:is_public"]) == ("tiny", False), flavor
    openstack("flavor set --project admin --property hw:cpu_policy=shared rflavor")
    shown = openstack("flavor show tiny")
    assert shown["access_project_ids"] and shown["properties"] == {"hw:cpu_policy": "shared"}, shown
    assert "rflavor" in {row["Name"] for row in openstack("flavor list --all")}
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(KEY)
        file.flush()
        given = openstack(f"keypair create --public-key {file.name} rgiven")
    assert given["fingerprint"].count(":") == 15, given
    made = openstack(f"keypair create --private-key {private} rkey")
    assert made["name"] == "rkey" and "PRIVATE KEY" in pathlib.Path(private).read_text(), made
    # The client leaves it readable for all, and ssh refuses such a key.
    pathlib.Path(private).chmod(0o600)
    assert [row["Name"] for row in openstack("keypair list")] == ["rgiven", "rkey"]
    openstack("keypair delete rgiven")


def network(openstack):
    openstack("network create rnet")
    openstack("subnet create --network rnet --subnet-range 10.9.0.0/24 rsub")
    openstack("router create rrouter")
    openstack("router add subnet rrouter rsub")
    openstack("router set --external-gateway external rrouter")
    openstack("security group create rsg")
    openstack("security group rule create --protocol tcp --dst-port 22 --remote-ip 0.0.0.0/0 rsg")


def server(openstack, private):
    made = openstack(
        "server create --image micro --flavor rflavor --network rnet --key-name rkey --security-group rsg --wait rvm")
    assert made["status"] == "ACTIVE" and "10.9.0." in str(made["addresses"]), made
    assert [row["Name"] for row in openstack("server list")] == ["rvm"]
    until("the guest says nothing", lambda: openstack("console log show rvm").strip())
    openstack("server reboot rvm --wait")
    openstack("server stop rvm")
    wait(openstack, "server show rvm", "SHUTOFF")
    openstack("server start rvm")
    wait(openstack, "server show rvm", "ACTIVE")
    openstack("server reboot --hard --wait rvm")
    openstack("server pause rvm")
    wait(openstack, "server show rvm", "PAUSED")
    openstack("server unpause rvm")
    wait(openstack, "server show rvm", "ACTIVE")
    address = openstack("floating ip create external")["floating_ip_address"]
    openstack(f"server add floating ip rvm {address}")
    assert address in str(openstack("server show rvm")["addresses"])
    actions = {row["Action"] for row in openstack("server event list rvm")}
    assert {"create", "reboot", "stop", "start", "pause", "unpause"} <= actions, actions
    guest = Guest(address, private)
    assert until(lambda: f"nobody gets in: {guest.refusal}", lambda: guest.tries("hostname")).strip() == "rvm"
    return guest


def volumes(openstack, guest):
    before = guest.disks()
    openstack("volume create --size 1 rvol")
    wait(openstack, "volume show rvol", "available")
    openstack("server add volume rvm rvol")
    wait(openstack, "volume show rvol", "in-use")
    until("the guest sees the disk while it runs", lambda: len(guest.disks()) == len(before) + 1)
    attached = openstack("server volume list rvm")
    assert [row["Device"] for row in attached] == ["/dev/vdb"], attached
    openstack("server volume set --delete-on-termination rvm rvol")
    assert [row["Delete On Termination?"] for row in openstack("server volume list rvm")] == [True]
    openstack("server volume set --preserve-on-termination rvm rvol")
    openstack("server remove volume rvm rvol")
    wait(openstack, "volume show rvol", "available")
    until("the guest sees that it is gone", lambda: guest.disks() == before)
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


def quotas(openstack):
    used = len(openstack("server list --all-projects"))
    openstack(f"quota set --instances {used} admin")
    openstack.refused("server create --image micro --flavor rflavor --network rnet rmore", "quota of instances exceeded")
    openstack("quota set --instances 50 --cores 100 --volumes 20 --networks 20 admin")
    assert {row["Resource"]: row["Limit"] for row in openstack("quota show")}["instances"] == 50


def groups(openstack):
    openstack("server group create --policy anti-affinity rgroup")
    one = openstack("server group show rgroup")
    assert one["policy"] == "anti-affinity" and not one["members"], one
    openstack("server group delete rgroup")


def check(openstack):
    with tempfile.TemporaryDirectory() as directory:
        private = f"{directory}/rkey"
        flavors_and_keys(openstack, private)
        network(openstack)
        guest = server(openstack, private)
        volumes(openstack, guest)
    from_volume(openstack)
    quotas(openstack)
    groups(openstack)
    assert "nova" in {row["Zone Name"] for row in openstack("availability zone list --compute")}
    assert len(openstack("hypervisor list")) == 1
    assert openstack("limits show --absolute")
    openstack("server delete --wait rvm")
    openstack("image delete rimage")
    openstack("keypair delete rkey")
    openstack("flavor delete rflavor")
