//! Every operation of Identity against every kind of caller.
//!
//! Each row is tried with fresh things for each caller, so that what one may do does not change what another may.

use super::{by_password, with_scope};
use crate::cloud::Cloud;
use axum::http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The callers, in the order of the table's columns.
const CALLERS: [&str; 11] = [
    "nobody",
    "unscoped",
    "reader of a project",
    "member of a project",
    "manager of a project",
    "admin of a project",
    "reader of a domain",
    "manager of a domain",
    "reader of the system",
    "admin of the system",
    "restricted credential of an admin",
];

/// Method, path, body, and what each caller gets: `o` what was asked for, `x` 403, `-` 401.
/// `{user}` and its like are made anew in the default domain, `{far-user}` in another one; `{own}` is the caller.
const TABLE: &[(&str, &str, &str, &str)] = &[
    // Who one is.
    ("GET", "auth/catalog", "", "-xooooooooo"),
    ("GET", "auth/projects", "", "-oooooooooo"),
    ("GET", "auth/domains", "", "-oooooooooo"),
    ("GET", "auth/system", "", "-oooooooooo"),
    ("GET", "users/{own}", "", "-oooooooooo"),
    ("GET", "users/{own}/projects", "", "-oooooooooo"),
    ("GET", "users/{own}/groups", "", "-oooooooooo"),
    ("GET", "users/{own}/application_credentials", "", "-oooooooooo"),
    ("GET", "users/{own}/access_rules", "", "-oooooooooo"),
    (
        "POST",
        "users/{own}/application_credentials",
        r#"{"application_credential":{"name":"{new}"}}"#,
        "-xooooxxxxx",
    ),
    ("GET", "regions", "", "-oooooooooo"),
    ("GET", "services", "", "-xxxxoxxooo"),
    ("GET", "endpoints", "", "-xxxxoxxooo"),
    // Domains.
    ("GET", "domains", "", "-xxxxooooo o"),
    ("GET", "domains/default", "", "-xoooooooo o"),
    ("GET", "domains/{domain}", "", "-xxxxoxxoo o"),
    ("POST", "domains", r#"{"domain":{"name":"{new}"}}"#, "-xxxxoxxxo x"),
    ("PATCH", "domains/{domain}", r#"{"domain":{"description":"d"}}"#, "-xxxxoxxxo x"),
    ("DELETE", "domains/{off-domain}", "", "-xxxxoxxxo x"),
    // Projects.
    ("GET", "projects", "", "-xxxxooooo o"),
    ("GET", "projects/{project}", "", "-xxxxooooo o"),
    ("GET", "projects/{far-project}", "", "-xxxxoxxoo o"),
    ("POST", "projects", r#"{"project":{"name":"{new}","domain_id":"default"}}"#, "-xxxxoxoxo x"),
    ("POST", "projects", r#"{"project":{"name":"{new}","domain_id":"{domain}"}}"#, "-xxxxoxxxo x"),
    ("PATCH", "projects/{project}", r#"{"project":{"description":"d"}}"#, "-xxxxoxoxo x"),
    ("PATCH", "projects/{far-project}", r#"{"project":{"description":"d"}}"#, "-xxxxoxxxo x"),
    ("DELETE", "projects/{project}", "", "-xxxxoxoxo x"),
    ("DELETE", "projects/{far-project}", "", "-xxxxoxxxo x"),
    ("GET", "projects/{project}/tags", "", "-xxxxooooo o"),
    ("PUT", "projects/{project}/tags/t", "", "-xxxxoxoxo x"),
    // Users.
    ("GET", "users", "", "-xxxxooooo o"),
    ("GET", "users/{user}", "", "-xxxxooooo o"),
    ("GET", "users/{far-user}", "", "-xxxxoxxoo o"),
    ("POST", "users", r#"{"user":{"name":"{new}","domain_id":"default"}}"#, "-xxxxoxoxo x"),
    ("POST", "users", r#"{"user":{"name":"{new}","domain_id":"{domain}"}}"#, "-xxxxoxxxo x"),
    ("PATCH", "users/{user}", r#"{"user":{"description":"d"}}"#, "-xxxxoxoxo x"),
    ("PATCH", "users/{far-user}", r#"{"user":{"description":"d"}}"#, "-xxxxoxxxo x"),
    ("DELETE", "users/{user}", "", "-xxxxoxoxo x"),
    ("DELETE", "users/{far-user}", "", "-xxxxoxxxo x"),
    // With a role that a manager does not give, or one outside of its domain, somebody is no manager's business.
    ("PATCH", "users/{admin-user}", r#"{"user":{"password":"mine now"}}"#, "-xxxxoxxxo x"),
    ("PATCH", "users/{system-user}", r#"{"user":{"password":"mine now"}}"#, "-xxxxoxxxo x"),
    ("PATCH", "users/{far-member}", r#"{"user":{"password":"mine now"}}"#, "-xxxxoxxxo x"),
    ("PATCH", "users/{group-admin}", r#"{"user":{"password":"mine now"}}"#, "-xxxxoxxxo x"),
    ("PATCH", "users/{odd-user}", r#"{"user":{"enabled":false}}"#, "-xxxxoxxxo x"),
    ("PATCH", "users/{near-member}", r#"{"user":{"password":"reset"}}"#, "-xxxxoxoxo x"),
    ("DELETE", "users/{admin-user}", "", "-xxxxoxxxo x"),
    ("DELETE", "users/{near-member}", "", "-xxxxoxoxo x"),
    ("GET", "users/{user}/projects", "", "-xxxxooooo o"),
    ("GET", "users/{user}/groups", "", "-xxxxooooo o"),
    ("GET", "users/{user}/application_credentials", "", "-xxxxooooo o"),
    (
        "POST",
        "users/{user}/application_credentials",
        r#"{"application_credential":{"name":"{new}"}}"#,
        "-xxxxxxxxx x",
    ),
    // Groups.
    ("GET", "groups", "", "-xxxxooooo o"),
    ("GET", "groups/{group}", "", "-xxxxooooo o"),
    ("GET", "groups/{far-group}", "", "-xxxxoxxoo o"),
    ("POST", "groups", r#"{"group":{"name":"{new}","domain_id":"default"}}"#, "-xxxxoxoxo x"),
    ("PATCH", "groups/{group}", r#"{"group":{"description":"d"}}"#, "-xxxxoxoxo x"),
    ("PATCH", "groups/{far-group}", r#"{"group":{"description":"d"}}"#, "-xxxxoxxxo x"),
    ("DELETE", "groups/{group}", "", "-xxxxoxoxo x"),
    ("GET", "groups/{group}/users", "", "-xxxxooooo o"),
    ("PUT", "groups/{group}/users/{user}", "", "-xxxxoxoxo x"),
    ("PUT", "groups/{group}/users/{far-user}", "", "-xxxxoxxxo x"),
    ("PUT", "groups/{admin-group}/users/{user}", "", "-xxxxoxxxo x"),
    ("PUT", "groups/{group}/users/{admin-user}", "", "-xxxxoxxxo x"),
    ("DELETE", "groups/{admin-group}/users/{group-admin}", "", "-xxxxoxxxo x"),
    ("PATCH", "groups/{admin-group}", r#"{"group":{"name":"{new}"}}"#, "-xxxxoxxxo x"),
    ("DELETE", "groups/{admin-group}", "", "-xxxxoxxxo x"),
    ("GET", "groups/{full-group}/users/{user}", "", "-xxxxooooo o"),
    ("DELETE", "groups/{full-group}/users/{user}", "", "-xxxxoxoxo x"),
    // Roles.
    ("GET", "roles", "", "-xxxxoxooo o"),
    ("GET", "roles/{member}", "", "-xxxxoxooo o"),
    ("POST", "roles", r#"{"role":{"name":"{new}"}}"#, "-xxxxoxxxo x"),
    ("PATCH", "roles/{role}", r#"{"role":{"description":"d"}}"#, "-xxxxoxxxo x"),
    ("DELETE", "roles/{role}", "", "-xxxxoxxxo x"),
    ("GET", "roles/{member}/implies", "", "-xxxxoxooo o"),
    ("PUT", "roles/{role}/implies/{member}", "", "-xxxxoxxxo x"),
    ("GET", "role_inferences", "", "-xxxxoxxoo o"),
    // Assignments.
    ("GET", "role_assignments", "", "-xxxoooooo o"),
    ("GET", "projects/{project}/users/{user}/roles", "", "-xxxxooooo o"),
    ("PUT", "projects/{project}/users/{user}/roles/{member}", "", "-xxxxoxoxo x"),
    ("PUT", "projects/{project}/users/{user}/roles/{manager}", "", "-xxxxoxoxo x"),
    ("PUT", "projects/{project}/users/{user}/roles/{admin}", "", "-xxxxoxxxo x"),
    ("PUT", "projects/{project}/users/{user}/roles/{role}", "", "-xxxxoxxxo x"),
    ("PUT", "projects/{far-project}/users/{user}/roles/{member}", "", "-xxxxoxxxo x"),
    ("PUT", "projects/{project}/users/{far-user}/roles/{member}", "", "-xxxxoxxxo x"),
    ("PUT", "projects/{project}/groups/{group}/roles/{member}", "", "-xxxxoxoxo x"),
    ("PUT", "domains/default/users/{user}/roles/{member}", "", "-xxxxoxoxo x"),
    ("PUT", "domains/default/users/{user}/roles/{admin}", "", "-xxxxoxxxo x"),
    ("PUT", "domains/{domain}/users/{user}/roles/{member}", "", "-xxxxoxxxo x"),
    ("PUT", "system/users/{user}/roles/{reader}", "", "-xxxxoxxxo x"),
    ("GET", "system/users/{user}/roles", "", "-xxxxoxxoo o"),
    (
        "PUT",
        "OS-INHERIT/domains/default/users/{user}/roles/{member}/inherited_to_projects",
        "",
        "-xxxxoxoxo x",
    ),
    ("DELETE", "projects/{given-project}/users/{user}/roles/{member}", "", "-xxxxoxoxo x"),
];

/// A caller with its own id.
struct Caller {
    text: String,
    id: String,
}

async fn caller(cloud: &Cloud, name: &str, places: &[(&str, &str)], scope: Value) -> Caller {
    let id = cloud.make("users", "user", json!({ "name": name, "password": "p" })).await;
    for (place, role) in places {
        cloud.give(place, &id, role).await;
    }
    let text = cloud.token(&by_password(name, "p", Some(scope))).await;
    Caller { text, id }
}

async fn callers(cloud: &Cloud) -> Vec<Caller> {
    let project = cloud.make("projects", "project", json!({})).await;
    let place = format!("projects/{project}");
    let in_project = json!({ "project": { "id": project } });
    let in_domain = json!({ "domain": { "id": "default" } });
    let in_system = json!({ "system": { "all": true } });
    let mut all = vec![Caller { text: String::new(), id: uuid::Uuid::nil().simple().to_string() }];
    all.push(caller(cloud, "unscoped", &[], json!("unscoped")).await);
    for role in ["reader", "member", "manager", "admin"] {
        all.push(caller(cloud, &format!("project-{role}"), &[(&place, role)], in_project.clone()).await);
    }
    for role in ["reader", "manager"] {
        all.push(
            caller(cloud, &format!("domain-{role}"), &[("domains/default", role)], in_domain.clone()).await,
        );
    }
    for role in ["reader", "admin"] {
        all.push(caller(cloud, &format!("system-{role}"), &[("system", role)], in_system.clone()).await);
    }
    let maker = caller(cloud, "maker", &[(&place, "admin")], in_project).await;
    let path = format!("/identity/v3/users/{}/application_credentials", maker.id);
    let wish = json!({ "application_credential": { "name": "c" } });
    let made = cloud.post(&maker.text, &path, &wish).await.expect(201);
    let made = &made["application_credential"];
    let credential = json!({ "id": made["id"], "secret": made["secret"] });
    let identity = json!({ "methods": ["application_credential"], "application_credential": credential });
    let text = cloud.token(&with_scope(identity, None)).await;
    all.push(Caller { text, id: maker.id });
    all
}

/// What rows name, made when a row names it.
struct Things<'a> {
    cloud: &'a Cloud,
    far: &'a str,
    known: BTreeMap<String, String>,
}

impl Things<'_> {
    async fn named(&mut self, word: &str) -> String {
        if let Some(known) = self.known.get(word) {
            return known.clone();
        }
        let made = self.made(word).await;
        self.known.insert(word.to_string(), made.clone());
        made
    }

    async fn made(&mut self, word: &str) -> String {
        let (cloud, far) = (self.cloud, json!({ "domain_id": self.far }));
        let near = json!({ "domain_id": "default" });
        match word {
            "new" => uuid::Uuid::new_v4().to_string(),
            "domain" => self.far.to_string(),
            "off-domain" => cloud.make("domains", "domain", json!({ "enabled": false })).await,
            "user" => cloud.make("users", "user", near).await,
            "far-user" => cloud.make("users", "user", far).await,
            "project" => cloud.make("projects", "project", near).await,
            "far-project" => cloud.make("projects", "project", far).await,
            "group" => cloud.make("groups", "group", near).await,
            "far-group" => cloud.make("groups", "group", far).await,
            "role" => cloud.make("roles", "role", json!({})).await,
            "full-group" => {
                let (group, user) =
                    (cloud.make("groups", "group", near).await, Box::pin(self.named("user")).await);
                let path = format!("/identity/v3/groups/{group}/users/{user}");
                cloud.send(Method::PUT, &cloud.admin, &path, &Value::Null).await.expect(204);
                group
            }
            "admin-user" | "near-member" | "odd-user" => {
                let user = cloud.make("users", "user", near).await;
                let project = Box::pin(self.named("project")).await;
                let role = match word {
                    "admin-user" => "admin".to_string(),
                    "near-member" => "member".to_string(),
                    _ => Box::pin(self.named("role")).await,
                };
                let role = if word == "odd-user" { role } else { cloud.role_id(&role).await };
                let path = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
                cloud.send(Method::PUT, &cloud.admin, &path, &Value::Null).await.expect(204);
                user
            }
            "system-user" => {
                let user = cloud.make("users", "user", near).await;
                cloud.give("system", &user, "reader").await;
                user
            }
            "far-member" => {
                let user = cloud.make("users", "user", near).await;
                let project = Box::pin(self.named("far-project")).await;
                cloud.give(&format!("projects/{project}"), &user, "member").await;
                user
            }
            "admin-group" => {
                let group = cloud.make("groups", "group", near).await;
                let (project, role) = (Box::pin(self.named("project")).await, cloud.role_id("admin").await);
                let path = format!("/identity/v3/projects/{project}/groups/{group}/roles/{role}");
                cloud.send(Method::PUT, &cloud.admin, &path, &Value::Null).await.expect(204);
                group
            }
            "group-admin" => {
                let user = cloud.make("users", "user", near).await;
                let group = Box::pin(self.named("admin-group")).await;
                let path = format!("/identity/v3/groups/{group}/users/{user}");
                cloud.send(Method::PUT, &cloud.admin, &path, &Value::Null).await.expect(204);
                user
            }
            "given-project" => {
                let project = cloud.make("projects", "project", near).await;
                let user = Box::pin(self.named("user")).await;
                cloud.give(&format!("projects/{project}"), &user, "member").await;
                project
            }
            role => cloud.role_id(role).await,
        }
    }

    async fn filled(&mut self, text: &str) -> String {
        let mut text = text.to_string();
        while let Some((at, word)) = next_word(&text) {
            let value = self.named(&word).await;
            text.replace_range(at..at + word.len() + 2, &value);
        }
        text
    }
}

/// The next `{word}` of a text; braces of JSON are none.
fn next_word(text: &str) -> Option<(usize, String)> {
    text.match_indices('{').find_map(|(at, _)| {
        let word = text[at + 1..].split('}').next()?;
        let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        plain.then(|| (at, word.to_string()))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_against_every_caller() {
    let cloud = Cloud::open().await;
    let callers = callers(&cloud).await;
    let far = cloud.make("domains", "domain", json!({ "name": "far" })).await;
    let mut wrong = vec![];
    for (method, path, body, wanted) in TABLE {
        let wanted: Vec<char> = wanted.chars().filter(|c| *c != ' ').collect();
        assert_eq!(wanted.len(), CALLERS.len(), "{method} {path}");
        for (at, caller) in callers.iter().enumerate() {
            let mut things = Things { cloud: &cloud, far: &far, known: BTreeMap::new() };
            things.known.insert("own".into(), caller.id.clone());
            let path = format!("/identity/v3/{}", things.filled(path).await);
            let body = things.filled(body).await;
            let reply = cloud.call(method.parse().unwrap(), &path, &caller.text, &[], body).await;
            let got = match reply.status.as_u16() {
                200..=299 => 'o',
                403 => 'x',
                401 => '-',
                _ => '?',
            };
            if got != wanted[at] {
                wrong.push(format!(
                    "{method} {path} by {}: {} instead of {}; {}",
                    CALLERS[at],
                    got,
                    wanted[at],
                    reply.text()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
