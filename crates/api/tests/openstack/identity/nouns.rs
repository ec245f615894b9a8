//! Domains, projects, users, groups, roles and assignments: made, found, changed, gone.

use crate::cloud::Cloud;
use axum::http::Method;
use serde_json::{Value, json};

async fn patch(cloud: &Cloud, path: &str, body: Value) -> Value {
    cloud.send(Method::PATCH, &cloud.admin, &format!("/identity/v3/{path}"), &body).await.expect(200)
}

#[tokio::test]
async fn a_project_of_this_door_is_a_project_of_the_native_one() {
    let cloud = Cloud::open().await;
    let id = cloud
        .make("projects", "project", json!({ "name": "shop", "description": "sells", "tags": ["b", "a"] }))
        .await;
    let shown = cloud.get(&cloud.admin, &format!("/identity/v3/projects/{id}")).await.expect(200);
    let project = &shown["project"];
    assert_eq!((&project["domain_id"], &project["parent_id"]), (&json!("default"), &json!("default")));
    assert_eq!((&project["tags"], &project["is_domain"]), (&json!(["a", "b"]), &json!(false)));
    let native: api::v1::types::project::Project = cloud.house.client.get("shop").await.unwrap();
    assert_eq!(
        (native.head.id.simple().to_string(), native.head.description.as_str()),
        (id.clone(), "sells")
    );

    // It begins without a network, and another door's project is here as well.
    let inside = cloud.house.client.clone().with_project("shop");
    let networks = inside.list::<api::v1::types::network::Network>(&Default::default()).await.unwrap();
    assert!(networks.items.iter().all(|n| n.head.name != "default"), "{networks:?}");
    let all = cloud.get(&cloud.admin, "/identity/v3/projects?name=default").await.expect(200);
    assert_eq!(all["projects"].as_array().unwrap().len(), 1);

    let body = json!({ "project": { "name": "shop" } });
    cloud.post(&cloud.admin, "/identity/v3/projects", &body).await.expect(409);
    patch(&cloud, &format!("projects/{id}"), json!({ "project": { "name": "store", "description": null } }))
        .await;
    cloud.make("projects", "project", json!({ "name": "shop" })).await;
    cloud.delete(&cloud.admin, &format!("/identity/v3/projects/{id}")).await.expect(204);
    cloud.get(&cloud.admin, &format!("/identity/v3/projects/{id}")).await.expect(404);
    for wrong in [
        json!({ "name": "" }),
        json!({ "name": "x", "domain_id": "nonsense" }),
        json!({ "name": "x", "is_domain": true }),
        json!({ "name": "x", "tags": ["a/b"] }),
        json!({}),
    ] {
        cloud.post(&cloud.admin, "/identity/v3/projects", &json!({ "project": wrong })).await.expect(400);
    }
    let deep = json!({ "project": { "name": "x", "parent_id": uuid::Uuid::new_v4().simple().to_string() } });
    cloud.post(&cloud.admin, "/identity/v3/projects", &deep).await.expect(404);
}

#[tokio::test]
async fn tags_come_and_go() {
    let cloud = Cloud::open().await;
    let id = cloud.make("projects", "project", json!({})).await;
    let path = format!("/identity/v3/projects/{id}/tags");
    cloud.send(Method::PUT, &cloud.admin, &path, &json!({ "tags": ["a", "b"] })).await.expect(200);
    cloud.send(Method::PUT, &cloud.admin, &format!("{path}/c"), &Value::Null).await.expect(201);
    cloud.get(&cloud.admin, &format!("{path}/c")).await.expect(204);
    cloud.delete(&cloud.admin, &format!("{path}/a")).await.expect(204);
    cloud.delete(&cloud.admin, &format!("{path}/a")).await.expect(404);
    assert_eq!(cloud.get(&cloud.admin, &path).await.expect(200)["tags"], json!(["b", "c"]));
    cloud.delete(&cloud.admin, &path).await.expect(204);
    cloud.get(&cloud.admin, &format!("{path}/b")).await.expect(404);
}

#[tokio::test]
async fn a_domain_is_a_name_space_and_goes_with_all_in_it() {
    let cloud = Cloud::open().await;
    let domain = cloud.make("domains", "domain", json!({ "name": "there" })).await;
    // The same names as in the default domain.
    let project = cloud.make("projects", "project", json!({ "name": "default", "domain_id": domain })).await;
    let user =
        cloud.make("users", "user", json!({ "name": "admin", "domain_id": domain, "password": "p" })).await;
    let group = cloud.make("groups", "group", json!({ "name": "all", "domain_id": domain })).await;
    cloud.give(&format!("projects/{project}"), &user, "member").await;
    let login = json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": {
            "name": "admin", "domain": { "name": "there" }, "password": "p",
        } } },
        "scope": { "project": { "name": "default", "domain": { "id": domain } } },
    } });
    let text = cloud.token(&login).await;
    cloud.get(&text, "/network/v2.0/").await.expect(200);
    // The native door still means its own by that name.
    let native: api::v1::types::project::Project = cloud.house.client.get("default").await.unwrap();
    assert_ne!(native.head.id.simple().to_string(), project);
    let found = cloud.get(&cloud.admin, &format!("/identity/v3/users?domain_id={domain}")).await.expect(200);
    assert_eq!(found["users"].as_array().unwrap().len(), 1);

    let path = format!("/identity/v3/domains/{domain}");
    cloud.delete(&cloud.admin, &path).await.expect(403);
    patch(&cloud, &format!("domains/{domain}"), json!({ "domain": { "enabled": false } })).await;
    cloud.get(&text, "/network/v2.0/").await.expect(401);
    cloud.log_in(&login).await.expect(401);
    cloud.delete(&cloud.admin, &path).await.expect(204);
    for gone in [
        path,
        format!("/identity/v3/projects/{project}"),
        format!("/identity/v3/users/{user}"),
        format!("/identity/v3/groups/{group}"),
    ] {
        cloud.get(&cloud.admin, &gone).await.expect(404);
    }
    let wish = json!({ "domain": { "enabled": false } });
    cloud.send(Method::PATCH, &cloud.admin, "/identity/v3/domains/default", &wish).await.expect(403);
}

#[tokio::test]
async fn users_keep_what_they_are_given() {
    let cloud = Cloud::open().await;
    let wish = json!({ "name": "ann", "email": "ann@example.org", "description": "d", "favourite": ["tea"] });
    let id = cloud.make("users", "user", wish).await;
    let shown = cloud.get(&cloud.admin, &format!("/identity/v3/users/{id}")).await.expect(200);
    let user = &shown["user"];
    assert_eq!(
        (&user["email"], &user["favourite"], &user["enabled"]),
        (&json!("ann@example.org"), &json!(["tea"]), &json!(true))
    );
    assert_eq!(user["links"]["self"], json!(format!("http://cloud:5000/identity/v3/users/{id}")));
    let changed = patch(
        &cloud,
        &format!("users/{id}"),
        json!({ "user": { "name": "anna", "email": null, "favourite": null } }),
    )
    .await;
    assert_eq!(changed["user"]["name"], "anna");
    assert!(changed["user"].get("email").is_none() && changed["user"].get("favourite").is_none());
    assert_eq!(changed["user"]["description"], "d");
    cloud.make("users", "user", json!({ "name": "ann" })).await;
    let taken = json!({ "user": { "name": "ann" } });
    let json = cloud
        .send(Method::PATCH, &cloud.admin, &format!("/identity/v3/users/{id}"), &taken)
        .await
        .expect(409);
    assert_eq!(json["error"]["title"], "Conflict");
    let large = json!({ "user": { "name": "x", "note": "x".repeat(20_000) } });
    cloud.post(&cloud.admin, "/identity/v3/users", &large).await.expect(413);
    let found = cloud.get(&cloud.admin, "/identity/v3/users?name__startswith=ann&limit=1").await.expect(200);
    assert_eq!(found["users"].as_array().unwrap().len(), 1);
    let next = found["links"]["next"].as_str().unwrap().strip_prefix("http://cloud:5000").unwrap();
    let rest = cloud.get(&cloud.admin, next).await.expect(200);
    assert_eq!((rest["users"].as_array().unwrap().len(), &rest["links"]["next"]), (1, &Value::Null));
}

#[tokio::test]
async fn groups_give_their_roles_to_their_users() {
    let cloud = Cloud::open().await;
    let user = cloud.make("users", "user", json!({ "name": "ann", "password": "p" })).await;
    let group = cloud.make("groups", "group", json!({ "name": "makers" })).await;
    let project = cloud.make("projects", "project", json!({ "name": "shop" })).await;
    let role = cloud.role_id("member").await;
    let grant = format!("/identity/v3/projects/{project}/groups/{group}/roles/{role}");
    cloud.send(Method::PUT, &cloud.admin, &grant, &Value::Null).await.expect(204);
    let login = super::by_password("ann", "p", Some(json!({ "project": { "id": project } })));
    cloud.log_in(&login).await.expect(401);
    let membership = format!("/identity/v3/groups/{group}/users/{user}");
    cloud.get(&cloud.admin, &membership).await.expect(404);
    cloud.send(Method::PUT, &cloud.admin, &membership, &Value::Null).await.expect(204);
    cloud.get(&cloud.admin, &membership).await.expect(204);
    let text = cloud.token(&login).await;
    let own = cloud.get(&text, &format!("/identity/v3/users/{user}/groups")).await.expect(200);
    assert_eq!(own["groups"][0]["name"], "makers");
    let own = cloud.get(&text, &format!("/identity/v3/users/{user}/projects")).await.expect(200);
    assert_eq!(own["projects"][0]["id"], json!(project));
    let all = cloud.get(&cloud.admin, &format!("/identity/v3/groups/{group}/users")).await.expect(200);
    assert_eq!(all["users"][0]["name"], "ann");
    let effective = "/identity/v3/role_assignments?effective&include_names=true";
    let all = cloud.get(&cloud.admin, &format!("{effective}&user.id={user}")).await.expect(200);
    let mut names: Vec<&str> = all["role_assignments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["role"]["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["member", "reader"]);
    cloud.delete(&cloud.admin, &membership).await.expect(204);
    cloud.get(&text, "/network/v2.0/").await.expect(401);
    cloud.delete(&cloud.admin, &membership).await.expect(404);
    cloud.delete(&cloud.admin, &format!("/identity/v3/groups/{group}")).await.expect(204);
    cloud.get(&cloud.admin, &grant).await.expect(404);
}

#[tokio::test]
async fn roles_are_given_looked_at_and_taken() {
    let cloud = Cloud::open().await;
    let user = cloud.make("users", "user", json!({})).await;
    let project = cloud.make("projects", "project", json!({})).await;
    let role = cloud.role_id("manager").await;
    for place in [format!("projects/{project}"), "domains/default".to_string(), "system".to_string()] {
        let roles = format!("/identity/v3/{place}/users/{user}/roles");
        let one = format!("{roles}/{role}");
        cloud.get(&cloud.admin, &one).await.expect(404);
        cloud.send(Method::PUT, &cloud.admin, &one, &Value::Null).await.expect(204);
        cloud.send(Method::PUT, &cloud.admin, &one, &Value::Null).await.expect(204);
        cloud.call(Method::HEAD, &one, &cloud.admin, &[], "").await.expect(204);
        assert_eq!(cloud.get(&cloud.admin, &roles).await.expect(200)["roles"][0]["name"], "manager");
        cloud.delete(&cloud.admin, &one).await.expect(204);
        cloud.delete(&cloud.admin, &one).await.expect(404);
    }
    let inherited =
        format!("/identity/v3/OS-INHERIT/domains/default/users/{user}/roles/{role}/inherited_to_projects");
    cloud.send(Method::PUT, &cloud.admin, &inherited, &Value::Null).await.expect(204);
    let own = cloud.get(&cloud.admin, &format!("/identity/v3/users/{user}/projects")).await.expect(200);
    assert!(own["projects"].as_array().unwrap().len() >= 3, "{own}");
    let all =
        cloud.get(&cloud.admin, &format!("/identity/v3/role_assignments?user.id={user}")).await.expect(200);
    assert_eq!(all["role_assignments"][0]["scope"]["OS-INHERIT:inherited_to"], "projects");
    cloud.delete(&cloud.admin, &inherited).await.expect(204);
    let unknown = uuid::Uuid::new_v4().simple().to_string();
    for missing in [
        format!("/identity/v3/projects/{project}/users/{user}/roles/{unknown}"),
        format!("/identity/v3/projects/{project}/users/{unknown}/roles/{role}"),
        format!("/identity/v3/projects/{unknown}/users/{user}/roles/{role}"),
    ] {
        cloud.send(Method::PUT, &cloud.admin, &missing, &Value::Null).await.expect(404);
    }
}

#[tokio::test]
async fn other_roles_mean_what_they_imply() {
    let cloud = Cloud::open().await;
    let user = cloud.make("users", "user", json!({ "name": "ann", "password": "p" })).await;
    let project = cloud.make("projects", "project", json!({})).await;
    let role = cloud.make("roles", "role", json!({ "name": "auditor" })).await;
    cloud.give(&format!("projects/{project}"), &user, "auditor").await;
    let login = super::by_password("ann", "p", Some(json!({ "project": { "id": project } })));
    let text = cloud.token(&login).await;
    cloud.get(&text, "/network/v2.0/").await.expect(403);
    let implies = format!("/identity/v3/roles/{role}/implies/{}", cloud.role_id("reader").await);
    cloud.send(Method::PUT, &cloud.admin, &implies, &Value::Null).await.expect(201);
    cloud.get(&text, "/network/v2.0/").await.expect(200);
    assert_eq!(
        cloud.get(&cloud.admin, &implies).await.expect(200)["role_inference"]["implies"]["name"],
        "reader"
    );
    let rules = cloud.get(&cloud.admin, "/identity/v3/role_inferences").await.expect(200);
    assert_eq!(rules["role_inferences"].as_array().unwrap().len(), 4);
    cloud.delete(&cloud.admin, &implies).await.expect(204);
    cloud.get(&text, "/network/v2.0/").await.expect(403);
    let admin = format!("/identity/v3/roles/{role}/implies/{}", cloud.role_id("admin").await);
    cloud.send(Method::PUT, &cloud.admin, &admin, &Value::Null).await.expect(403);
    cloud.delete(&cloud.admin, &format!("/identity/v3/roles/{role}")).await.expect(204);
    cloud.get(&text, "/network/v2.0/").await.expect(401);
    cloud
        .delete(&cloud.admin, &format!("/identity/v3/roles/{}", cloud.role_id("reader").await))
        .await
        .expect(403);
}

#[tokio::test]
async fn what_was_done_is_in_the_record_of_the_cloud() {
    let cloud = Cloud::open().await;
    let id = cloud.make("users", "user", json!({ "name": "ann" })).await;
    let member = cloud.as_role("member").await;
    cloud.post(&member, "/identity/v3/users", &json!({ "user": { "name": "x" } })).await.expect(403);
    let project = cloud.make("projects", "project", json!({})).await;
    cloud.give(&format!("projects/{project}"), &id, "reader").await;
    let all = cloud.house.control.store().list::<model::operation::Operation>();
    let given = all.iter().find(|o| o.record.action == "grant").unwrap();
    assert_eq!(given.record.name, format!("user {id}, project {project}"));
    let made = all.iter().find(|o| o.record.subject.noun == "user" && o.record.fault.is_none()).unwrap();
    assert_eq!((made.record.name.as_str(), made.record.actor.as_str()), ("ann", "user admin"));
    assert_eq!(made.record.subject.id.replace('-', ""), id);
    assert!(all.iter().any(|o| o.record.actor.starts_with("user member-") && o.record.fault.is_some()));
}
