#!/usr/bin/env python3
"""Runs lists of Tempest's tests against the cloud of the OS_* environment and counts what came of them.

  tempest.py --work DIR [--image ID] [--flavor ID] [--network ID] [--accounts FILE] [--results FILE] LIST...

A LIST is a file with one test a line. The last line printed is "N passed, N failed, N skipped". A test that is listed
and did not run, because its class could not be set up or this Tempest does not know it, has failed.
"""
import argparse
import configparser
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import subunit
import testtools
from keystoneauth1 import session
from keystoneauth1.identity import v3

NOBODY = "00000000-0000-0000-0000-000000000000"
# What clients say of a connection that ended while a call was being answered.
CUT = ("RemoteDisconnected", "Connection aborted", "ConnectionResetError", "Connection reset by peer", "IncompleteRead",
       "BadStatusLine")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lists", nargs="+", type=pathlib.Path, metavar="LIST")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="directory for settings and logs")
    parser.add_argument("--image", default=NOBODY, help="id of the image that servers start from")
    parser.add_argument("--image-alt", help="id of another one")
    parser.add_argument("--flavor", default=NOBODY, help="id of the flavor of servers")
    parser.add_argument("--flavor-alt", help="id of a larger one")
    parser.add_argument("--network", default=NOBODY, help="id of the external network")
    parser.add_argument("--ssh-user", default="root", help="user that test guests let in")
    parser.add_argument("--validate", action="store_true", help="log in to guests where a test can")
    parser.add_argument("--accounts", type=pathlib.Path, help="accounts to use instead of making some as admin")
    parser.add_argument("--results", type=pathlib.Path, help="file for the results of each test")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--killed", action="store_true",
                        help="the daemon is killed meanwhile: a test that failed since its connection was cut is run again")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for a server to be built")
    return parser.parse_args()


def plain(name):
    """A test's name without its attributes."""
    return name.split("[")[0].strip()


def read(lists):
    lines = [line.strip() for path in lists for line in path.read_text().splitlines()]
    return sorted({plain(line) for line in lines if line and not line.startswith("#")})


def extensions(kind, path):
    """Aliases of a service's extensions, as the cloud itself lists them."""
    env = os.environ
    auth = v3.Password(
        auth_url=env["OS_AUTH_URL"], username=env["OS_USERNAME"], password=env["OS_PASSWORD"],
        project_name=env["OS_PROJECT_NAME"], user_domain_name=env["OS_USER_DOMAIN_NAME"],
        project_domain_name=env["OS_PROJECT_DOMAIN_NAME"])
    cloud = session.Session(auth, verify=env.get("OS_CACERT") or True)
    answer = cloud.get(path, endpoint_filter={"service_type": kind}, raise_exc=False)
    if answer.status_code != 200:
        print(f"{kind} lists no extensions ({answer.status_code})", file=sys.stderr)
        return ""
    return ",".join(sorted(extension["alias"] for extension in answer.json()["extensions"]))


def settings(options):
    env = os.environ
    work = options.work.resolve()
    ca = env.get("OS_CACERT", "")
    sections = {
        "DEFAULT": {"log_file": work / "tempest.log", "debug": True, "use_stderr": False},
        "oslo_concurrency": {"lock_path": work / "locks"},
        "auth": {
            "admin_username": env["OS_USERNAME"], "admin_password": env["OS_PASSWORD"],
            "admin_project_name": env["OS_PROJECT_NAME"], "admin_domain_name": env["OS_USER_DOMAIN_NAME"],
            "admin_user_domain_name": env["OS_USER_DOMAIN_NAME"],
            "admin_project_domain_name": env["OS_PROJECT_DOMAIN_NAME"],
            "use_dynamic_credentials": options.accounts is None, "create_isolated_networks": True,
            "tempest_roles": "member",
        },
        "identity": {
            "uri_v3": env["OS_AUTH_URL"], "auth_version": "v3", "region": env["OS_REGION_NAME"],
            "v3_endpoint_type": "public", "default_domain_id": "default", "admin_role": "admin",
            "ca_certificates_file": ca,
            # As `holm serve` is told: --login-attempts, --login-lock, --unique-passwords.
            "user_lockout_failure_attempts": 2, "user_lockout_duration": 5, "user_unique_last_password_count": 2,
        },
        "identity-feature-enabled": {"security_compliance": True, "access_rules": True},
        "service_available": {"nova": True, "glance": True, "neutron": True, "cinder": True, "swift": False},
        "service-clients": {"http_timeout": 60},
        "compute": {
            "image_ref": options.image, "image_ref_alt": options.image_alt or options.image,
            "flavor_ref": options.flavor, "flavor_ref_alt": options.flavor_alt or options.flavor,
            "min_microversion": "2.1", "max_microversion": "2.96", "build_timeout": options.timeout,
            "build_interval": 1, "ready_wait": 0,
        },
        "compute-feature-enabled": {
            "resize": True, "pause": True, "suspend": True, "snapshot": True, "console_output": True,
            "vnc_console": True, "rescue": True, "serial_console": True, "live_migration": False, "cold_migration": False, "config_drive": True,
            "interface_attach": True, "metadata_service": True,
        },
        "image": {"build_timeout": options.timeout},
        "image-feature-enabled": {"image_format_enforcement": False},
        "network": {
            "public_network_id": options.network, "project_network_cidr": "10.100.0.0/16",
            "project_network_mask_bits": 28, "project_networks_reachable": False,
        },
        "network-feature-enabled": {
            "api_extensions": extensions("network", "/v2.0/extensions"), "ipv6": True,
            "ipv6_subnet_attributes": True, "port_security": True, "floating_ips": True,
        },
        "volume": {
            "catalog_type": "block-storage", "min_microversion": "3.0", "max_microversion": "3.71",
            "build_timeout": options.timeout, "volume_size": 1,
        },
        "volume-feature-enabled": {
            "api_extensions": extensions("block-storage", "/extensions"), "snapshot": True, "clone": True,
            "backup": False,
        },
        "validation": {
            "run_validation": options.validate, "connect_method": "floating", "auth_method": "keypair",
            "image_ssh_user": options.ssh_user, "connect_timeout": options.timeout,
        },
    }
    if options.accounts:
        sections["auth"]["test_accounts_file"] = options.accounts.resolve()
    config = configparser.ConfigParser(interpolation=None)
    config.read_dict({name: {key: str(value) for key, value in keys.items()} for name, keys in sections.items()})
    return config


def tool(name):
    return str(pathlib.Path(sys.executable).parent / name)


def run(options, wanted, stream="stream"):
    """Runs the tests; gives (status, seconds, reason) of each that ran."""
    space = options.work / "workspace"
    if not space.exists():
        # Nothing of it is kept in the home directory.
        paths = ["--workspace-path", options.work / "workspaces.yaml"]
        subprocess.run([tool("tempest"), "init", *paths, space], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(space / "etc" / "tempest.conf", "w") as file:
        settings(options).write(file)
    env = dict(os.environ, TEMPEST_CONFIG_DIR=str(space.resolve() / "etc"), TEMPEST_CONFIG="tempest.conf")
    patterns = [f"^{re.escape(test)}(\\[|$)" for test in wanted]
    (space / "list").write_text("\n".join(patterns) + "\n")
    command = [
        tool("tempest"), "run", "--config-file", "etc/tempest.conf", "--include-list", "list",
        "--concurrency", str(options.concurrency), "--subunit",
    ]
    with open(options.work / stream, "wb") as output, open(options.work / f"{stream}-errors", "wb") as errors:
        subprocess.run(command, cwd=space, env=env, stdout=output, stderr=errors, check=False)
    return outcomes(options.work / stream)


def outcomes(path):
    found = {}

    def note(test):
        # Named before the run, and never begun: what ended its class says why.
        if test["status"] == "exists":
            return
        begun, ended = test["timestamps"]
        seconds = (ended - begun).total_seconds() if begun and ended else 0
        words = [detail.as_text() for key, detail in (test["details"] or {}).items() if key in ("traceback", "reason")]
        found[plain(test["id"])] = (test["status"], round(seconds, 1), "\n".join(words))

    result = testtools.StreamToDict(note)
    result.startTestRun()
    with open(path, "rb") as stream:
        subunit.ByteStreamToStreamResult(stream, non_subunit_name="stdout").run(result)
    result.stopTestRun()
    return found


def judge(wanted, found):
    """What came of each listed test: passed, failed or skipped, with seconds and a reason."""
    verdicts = {}
    for test in wanted:
        group = test.rsplit(".", 1)[0]
        status, seconds, why = found.get(test) or found.get(f"setUpClass ({group})") or ("absent", 0, "it did not run")
        verdict = {"success": "passed", "skip": "skipped"}.get(status, "failed")
        if test not in found and verdict == "passed":
            verdict, why = "failed", "it did not run"
        verdicts[test] = {"verdict": verdict, "seconds": seconds, "why": why}
    return verdicts


def is_cut(outcome):
    """Whether a test failed for no other reason than that the daemon went while it answered."""
    last = (outcome["why"].strip().splitlines() or [""])[-1]
    return outcome["verdict"] == "failed" and any(word in last for word in CUT)


def run_again(options, verdicts):
    """Tests whose connection was cut are run once more, and that counts: nothing is in their way but the daemon's end."""
    cut = sorted(test for test, outcome in verdicts.items() if is_cut(outcome))
    if not cut:
        return
    for test in cut:
        print(f"cut off, and run again: {test}")
    for test, outcome in judge(cut, run(options, cut, "stream-again")).items():
        verdicts[test] = {**outcome, "cut": True}


def main():
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    wanted, begun = read(options.lists), time.time()
    verdicts = judge(wanted, run(options, wanted))
    if options.killed:
        run_again(options, verdicts)
    if options.results:
        options.results.write_text(json.dumps(verdicts, indent=1, sort_keys=True) + "\n")
    for test, outcome in verdicts.items():
        if outcome["verdict"] != "passed":
            reason = re.sub(r"\s+", " ", (outcome["why"].strip().splitlines() or [""])[-1])
            print(f"{outcome['verdict']}: {test}: {reason}")
    count = [sum(o["verdict"] == word for o in verdicts.values()) for word in ("passed", "failed", "skipped")]
    print(f"{time.time() - begun:.0f} s; details are in {options.work}")
    print("{} passed, {} failed, {} skipped".format(*count))
    sys.exit(0 if count[1] == 0 else 1)


if __name__ == "__main__":
    main()
