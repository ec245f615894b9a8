"""Identity by the everyday commands of the openstack client."""


def check(openstack):
    token = openstack("token issue")
    assert len(token["project_id"]) == 32 and len(token["user_id"]) == 32, token
    catalog = {service["Type"]: service for service in openstack("catalog list")}
    for kind in ("identity", "compute", "image", "network", "block-storage", "placement"):
        assert catalog[kind]["Endpoints"], kind
    assert openstack("catalog show compute")["name"] == "nova"
    assert {"Default"} <= {domain["Name"] for domain in openstack("domain list")}
    assert {"admin", "default"} <= {project["Name"] for project in openstack("project list")}
    assert {"admin", "manager", "member", "reader"} == {role["Name"] for role in openstack("role list")}

    project = openstack("project create --description 'sells things' --tag blue shop")
    assert (project["domain_id"], project["description"], project["tags"]) == ("default", "sells things", ["blue"])
    user = openstack("user create --project shop --password first --email ann@example.org ann")
    assert user["default_project_id"] == project["id"], user
    openstack("role add --project shop --user ann member")
    given = openstack("role assignment list --user ann --names")
    assert [row["Role"] for row in given] == ["member"] and given[0]["Project"] == "shop@Default", given
    effective = openstack("role assignment list --user ann --names --effective")
    assert {row["Role"] for row in effective} == {"member", "reader"}, effective

    ann = {"os_username": "ann", "os_password": "first", "os_project_name": "shop"}
    assert openstack("token issue", **ann)["user_id"] == user["id"]
    assert [row["Name"] for row in openstack("project list --my-projects", **ann)] == ["shop"]
    openstack.refused("user list", "403", **ann)
    openstack.refused("token issue", "401", **{**ann, "os_password": "wrong"})

    credential = openstack("application credential create --role reader ci", **ann)
    assert credential["Secret"] and [row["Name"] for row in openstack("application credential list", **ann)] == ["ci"]
    openstack("application credential delete ci", **ann)

    openstack("user password set --original-password first --password second", **ann)
    openstack.refused("token issue", "401", **ann)
    ann["os_password"] = "second"
    openstack("token issue", **ann)

    group = openstack("group create makers")
    openstack("group add user makers ann")
    openstack("role add --project shop --group makers manager")
    assert [row["Name"] for row in openstack("user list --group makers")] == ["ann"]
    assert len(group["id"]) == 32
    openstack("user set --name anna ann")
    assert openstack("user show anna")["email"] == "ann@example.org"
    openstack("project set --disable shop")
    openstack.refused("token issue", "401", **{**ann, "os_username": "anna"})
    assert {row["Type"] for row in openstack("service list")} >= {"identity", "network"}
    assert len(openstack("endpoint list --service identity --interface public")) == 1
    assert [row["Region"] for row in openstack("region list")] == ["RegionOne"]

    openstack("group delete makers")
    openstack("user delete anna")
    openstack("project delete shop")
    openstack.refused("project show shop", "No Project found")
    token = openstack("token issue")["id"]
    openstack(f"token revoke {token}")
