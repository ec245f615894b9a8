#!/usr/bin/env python3
"""Tries commands of the real `openstack` client against the cloud of the OS_* environment: commands.py PART...

A PART is a file of tests/conformance/commands with a function `check(openstack)`. `openstack("project show x")` runs a
command and gives what it prints, read as JSON; it raises `Refused` when the command fails. All run in one process,
because loading the client takes longer than most commands.
"""
import contextlib
import importlib
import io
import json
import pathlib
import shlex
import sys
import time

from openstackclient import shell

PARTS = pathlib.Path(__file__).resolve().parents[2] / "tests" / "conformance" / "commands"
# Commands that print one thing or several, and so know --format.
SHOWN = {"list", "show", "create", "issue", "restore", "set-show"}


class Refused(Exception):
    """A command that failed, with what it said."""


def openstack(line, **environment):
    """Runs one command. Words of `environment` are options of the client, like os_username="ann"."""
    words = shlex.split(line)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in environment.items()]
    # What a console said is printed as it is.
    is_shown = any(word in SHOWN for word in words[:4]) and words[:2] != ["console", "log"]
    out, errors = io.StringIO(), io.StringIO()
    begun = time.time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = shell.main(options + words + (["--format", "json"] if is_shown else []))
    print(f"  {time.time() - begun:5.2f} s  openstack {line}", flush=True)
    if code:
        raise Refused(f"openstack {line}: {errors.getvalue().strip() or out.getvalue().strip()}")
    text = out.getvalue()
    return json.loads(text) if is_shown and text.strip() else text


def refused(line, words, **environment):
    """Makes sure that a command fails and says `words`."""
    try:
        openstack(line, **environment)
    except Refused as error:
        assert words in str(error), f"{words!r} is not in: {error}"
        return
    raise AssertionError(f"openstack {line} was not refused")


openstack.refused = refused


def main():
    sys.path.insert(0, str(PARTS))
    for part in sys.argv[1:]:
        print(part, flush=True)
        importlib.import_module(part).check(openstack)
    print("all commands did what they should")


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
