#!/usr/bin/env python3
"""Times calls of the OpenStack API against the cloud of the OS_* environment: openstack.py [SERVERS]

Prints a JSON object of medians in milliseconds. It speaks HTTP itself, one kept connection a service, so that what is
measured is the cloud and not the client; any cloud can be measured with it, and what it makes it removes. SERVERS is
how many servers there are in the project, if their list is to be measured too.
"""
import http.client
import json
import os
import statistics
import sys
import time
import urllib.parse

ROUNDS = 30


class Service:
    """A kept connection to one service."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection, self.path = kind(parts.hostname, parts.port, timeout=120), parts.path.rstrip("/")

    def call(self, method, path, body=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        data = json.dumps(body) if body is not None else None
        if data:
            headers["Content-Type"] = "application/json"
        self.connection.request(method, self.path + path, data, headers)
        reply = self.connection.getresponse()
        text = reply.read()
        if reply.status >= 400:
            sys.exit(f"{method} {path}: {reply.status} {text[:300]}")
        return reply.headers, json.loads(text) if text else None


def medians(call, rounds=ROUNDS):
    times = []
    call()
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        times.append((time.perf_counter() - begun) * 1000)
    return round(statistics.median(times), 3)


def login(identity):
    env = os.environ
    user = {"name": env["OS_USERNAME"], "password": env["OS_PASSWORD"], "domain": {"name": env["OS_USER_DOMAIN_NAME"]}}
    project = {"name": env["OS_PROJECT_NAME"], "domain": {"name": env["OS_PROJECT_DOMAIN_NAME"]}}
    methods = {"methods": ["password"], "password": {"user": user}}
    order = {"auth": {"identity": methods, "scope": {"project": project}}}
    headers, body = identity.call("POST", "/auth/tokens", order)
    return headers["X-Subject-Token"], body["token"]


def endpoint(token, kind):
    entry = next(entry for entry in token["catalog"] if entry["type"] == kind)
    return next(end["url"] for end in entry["endpoints"] if end["interface"] == "public")


def main():
    servers = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    identity = Service(os.environ["OS_AUTH_URL"])
    secret, token = login(identity)
    compute, network = Service(endpoint(token, "compute")), Service(endpoint(token, "network"))
    networks = []

    def create_network():
        made = network.call("POST", "/v2.0/networks", {"network": {"name": "bench"}}, X_Auth_Token=secret)[1]
        networks.append(made["network"]["id"])

    took = {
        "token": medians(lambda: login(identity)),
        "validate": medians(lambda: identity.call("GET", "/auth/tokens", X_Auth_Token=secret, X_Subject_Token=secret)),
        "flavors": medians(lambda: compute.call("GET", "/flavors/detail", X_Auth_Token=secret)),
        "networks": medians(lambda: network.call("GET", "/v2.0/networks", X_Auth_Token=secret)),
        "network_create": medians(create_network),
    }
    for one in networks:
        network.call("DELETE", f"/v2.0/networks/{one}", X_Auth_Token=secret)
    if servers:
        def listed():
            found = compute.call("GET", f"/servers/detail?limit={servers}", X_Auth_Token=secret)[1]["servers"]
            assert len(found) == servers, len(found)
            return found

        one = listed()[servers // 2]["id"]
        took["server"] = medians(lambda: compute.call("GET", f"/servers/{one}", X_Auth_Token=secret))
        took["servers"] = medians(listed, 10)
    print(json.dumps(took))


if __name__ == "__main__":
    main()
