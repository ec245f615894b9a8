#!/usr/bin/env python3
"""Looks for what a holm keeps on its host that none of its records asks for: orphans.py WORK PREFIX HOLM

Told of each, and exit 1, when something is still there after a while: removing takes its time. It only looks.
"""
import json
import os
import pathlib
import subprocess
import sys
import time

PATIENCE = 90


def ids(holm, work, noun):
    env = dict(os.environ, HOLM_SOCKET=f"{work}/run/holm.sock", HOLM_PROJECT="admin")
    call = [holm, "api", "GET", f"/v1/{noun}?project=*&limit=1000"]
    said = subprocess.run(call, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
    return {item["id"] for item in json.loads(said.stdout)["items"]}


def below(directory):
    return sorted(path.name for path in pathlib.Path(directory).glob("*"))


def processes(work):
    """Machines of this holm by the id that each was started with."""
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "qemu-system" in words[0] and "-uuid" in words and work_of(path) == work:
            yield words[words.index("-uuid") + 1], path.name


def work_of(process):
    """The directory of the holm that a machine belongs to, by the files that it has open."""
    for file in (process / "fd").glob("*"):
        try:
            target = os.readlink(file)
        except OSError:
            continue
        if "/state/instances/" in target:
            return target.split("/state/instances/")[0]
    return None


def found(work, prefix, holm):
    instances = ids(holm, work, "instances")
    # As namespaces are called.
    spaces = {one.replace("-", "") for one in instances | ids(holm, work, "networks") | ids(holm, work, "routers")}
    for place in ("run/instances", "state/instances", "run/pods", "state/pods"):
        yield from (f"{place}/{name}" for name in below(f"{work}/{place}") if name not in instances)
    for name in below(f"{work}/run/netns"):
        if not any(one.startswith(name[2:]) for one in spaces):
            yield f"run/netns/{name}"
    for group in pathlib.Path("/sys/fs/cgroup").glob(f"**/{prefix}/*"):
        if group.is_dir() and group.name.count("-") == 4 and group.name not in instances:
            yield f"cgroup {group}"
    yield from (f"QEMU {pid} of {one}" for one, pid in processes(work) if one not in instances)
    if not ids(holm, work, "volumes") and not ids(holm, work, "snapshots"):
        yield from (f"state/volumes/disks/{name}" for name in below(f"{work}/state/volumes/disks"))


def main():
    work, prefix, holm = sys.argv[1:4]
    deadline = time.time() + PATIENCE
    while left := list(found(work, prefix, holm)):
        if time.time() > deadline:
            print("no record asks for these:", *left, sep="\n  ")
            sys.exit(1)
        time.sleep(1)
    print("nothing is left that no record asks for")


if __name__ == "__main__":
    main()
