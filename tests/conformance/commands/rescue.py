"""Consoles, rescue and rebuild of a server that boots from a volume, with a real guest and real websockets.

The cloud has the image `micro` and the external network `external`."""
import os
import tempfile

import websocket

from compute import Guest, PATIENCE, flavors_and_keys, network, until, wait

# Nova's microversion that knows rescue (2.87) and rebuild (2.93) of a server on a volume.
NEW = {"os_compute_api_version": "2.93"}
# A sector of the disk behind all that is in use.
MARK = "bs=512 count=1 2>/dev/null"
PLACE = 2_000_000


class Bytes:
    """A websocket as a stream of bytes."""

    def __init__(self, url):
        self.socket = websocket.create_connection(url, timeout=PATIENCE, subprotocols=["binary"])
        self.seen = b""

    def take(self, count):
        while len(self.seen) < count:
            self.seen += self.more()
        taken, self.seen = self.seen[:count], self.seen[count:]
        return taken

    def more(self):
        message = self.socket.recv()
        assert message, "the websocket ended"
        return message if isinstance(message, bytes) else message.encode()

    def expect(self, word):
        while word not in self.seen:
            self.seen += self.more()
        self.seen = self.seen.split(word, 1)[1]

    def say(self, data):
        self.socket.send_binary(data)


def screen(openstack):
    """The handshake of RFB 3.8 (RFC 6143, 7.1 to 7.3), by the address that is shown and nothing else."""
    shown = openstack("console url show --novnc rvm")
    assert shown["type"] == "novnc", shown
    url = shown["url"].replace("http", "ws", 1)
    rfb = Bytes(url)
    assert rfb.take(12) == b"RFB 003.008\n"
    rfb.say(b"RFB 003.008\n")
    (count,) = rfb.take(1)
    assert 1 in rfb.take(count), "no security is one of those that are offered: the ticket was the key"
    rfb.say(b"\x01")
    assert rfb.take(4) == b"\0\0\0\0"
    rfb.say(b"\x01")
    head = rfb.take(24)
    width, height = int.from_bytes(head[0:2], "big"), int.from_bytes(head[2:4], "big")
    name = rfb.take(int.from_bytes(head[20:24], "big")).decode()
    assert width >= 320 and height >= 200 and "rvm" in name, (width, height, name)
    # A picture comes when it is asked for: FramebufferUpdateRequest of the whole, answered by FramebufferUpdate.
    rfb.say(b"\x03\x00\x00\x00\x00\x00" + head[0:4])
    assert rfb.take(1) == b"\0"
    rfb.socket.close()
    try:
        Bytes(url)
    except websocket.WebSocketBadStatusException as error:
        assert error.status_code == 403, error
    else:
        raise AssertionError("a ticket opened two consoles")


def serial(openstack):
    """A login on the serial line."""
    shown = openstack("console url show --serial rvm")
    assert shown["type"] == "serial" and shown["url"].startswith("ws"), shown
    line = Bytes(shown["url"])
    for word, answer in ((b"login:", b"root\r"), (b"/root# ", b"echo $((6*7))-by-websocket\r")):
        line.say(b"\r") if word == b"login:" else None
        line.expect(word)
        line.say(answer)
    line.expect(b"42-by-websocket")
    line.socket.close()
    openstack.refused("console url show --spice rvm", "Unavailable console type")


def server(openstack, private):
    made = openstack("server create --image micro --boot-from-volume 1 --flavor rflavor --network rnet --key-name rkey "
                     "--security-group rsg --wait rvm")
    assert made["status"] == "ACTIVE" and made["image"] == "N/A (booted from volume)", made
    address = openstack("floating ip create external")["floating_ip_address"]
    openstack(f"server add floating ip rvm {address}")
    guest = Guest(address, private, lambda: openstack("console log show rvm"))
    until(guest.is_closed, lambda: guest.tries("true") is not None)
    return guest


def mark(guest, disk):
    """What lies at the place of the mark on a disk, once the guest lets anybody in."""
    command = f"dd if=/dev/{disk} {MARK} skip={PLACE} | head -c 4"
    said = until(guest.is_closed, lambda: (guest.tries(command),) if guest.tries("true") is not None else None)
    return said[0]


def rescue(openstack, guest):
    assert guest.tries(f"echo mark | dd of=/dev/vda {MARK} seek={PLACE} conv=notrunc,sync && sync") is not None, guest.refusal
    (root,) = openstack("server volume list rvm")
    openstack("server rescue --image micro rvm", **NEW)
    wait(openstack, "server show rvm", "RESCUE")
    assert mark(guest, "vdb") == "mark", "the server's own root disk is the second one"
    assert mark(guest, "vda") != "mark"
    assert [row["Volume ID"] for row in openstack("server volume list rvm")] == [root["Volume ID"]]
    openstack.refused("server reboot rvm", "Cannot 'reboot' instance")
    openstack.refused("server rescue --image micro rvm", "rescued", **NEW)
    openstack("server unrescue rvm")
    wait(openstack, "server show rvm", "ACTIVE")
    assert mark(guest, "vda") == "mark" and guest.disks() == {"vda"}, guest.disks()
    assert len(openstack("volume list")) == 1, "what it was rescued from is gone"
    return root["Volume ID"]


def rebuild(openstack, guest, root):
    openstack("server rebuild --image micro --reimage-boot-volume --wait rvm", **NEW)
    assert mark(guest, "vda") != "mark", "the volume holds the image again"
    assert [row["Volume ID"] for row in openstack("server volume list rvm")] == [root], "it is the same volume"


def check(openstack):
    with tempfile.TemporaryDirectory() as directory:
        private = os.path.join(directory, "rkey")
        flavors_and_keys(openstack, private)
        network(openstack)
        guest = server(openstack, private)
        screen(openstack)
        serial(openstack)
        root = rescue(openstack, guest)
        rebuild(openstack, guest, root)
    openstack("server delete --wait rvm")
    openstack(f"volume delete {root}")
