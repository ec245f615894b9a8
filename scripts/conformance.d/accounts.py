#!/usr/bin/env python3
"""Makes accounts without admin rights and writes them as Tempest reads them: accounts.py FILE

Each project has a user with the role member, one with the role reader, and a network with a router: Tempest makes none
of these without an admin.
"""
import os
import pathlib
import sys

import openstack

PROJECTS = 4


def main():
    cloud = openstack.connect()
    external = next(cloud.network.networks(is_router_external=True))
    accounts = {"member": [], "reader": []}
    for number in range(1, PROJECTS + 1):
        name = f"tester-{number}"
        project = cloud.identity.find_project(name) or cloud.identity.create_project(name=name, domain_id="default")
        network = f"{name}-network"
        if not cloud.network.find_network(network, project_id=project.id):
            made = cloud.network.create_network(name=network, project_id=project.id)
            subnet = cloud.network.create_subnet(
                network_id=made.id, ip_version=4, cidr=f"10.200.{number}.0/24", project_id=project.id)
            router = cloud.network.create_router(
                name=f"{name}-router", project_id=project.id, external_gateway_info={"network_id": external.id})
            cloud.network.add_interface_to_router(router, subnet_id=subnet.id)
        for role, lines in accounts.items():
            user = name if role == "member" else f"{name}-{role}"
            password = set_user(cloud, user, project, role)
            lines += [
                f"- username: {user}", f"  project_name: {name}", f"  password: {password}",
                "  domain_name: Default", f"  roles: [{role}]", "  resources:", f"    network: {network}",
            ]
    # Who asks for another user, whichever, gets the first that is free: one that may do something.
    lines = accounts["member"] + accounts["reader"]
    path = pathlib.Path(sys.argv[1])
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")


def set_user(cloud, name, project, role):
    """Makes sure that a user has this role, and gives its password."""
    password = os.urandom(12).hex()
    user = cloud.identity.find_user(name)
    if user:
        cloud.identity.update_user(user, password=password)
    else:
        user = cloud.identity.create_user(name=name, password=password, domain_id="default")
    cloud.identity.assign_project_role_to_user(project, user, cloud.identity.find_role(role, ignore_missing=False))
    return password


if __name__ == "__main__":
    main()
