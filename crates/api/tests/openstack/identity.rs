//! Identity: who gets in, what they may do, and how it ends.

mod credentials;
mod login;
mod nouns;
mod policy;

use crate::cloud::{Cloud, Reply};
use serde_json::{Value, json};

/// The body of a login by password, of a user of the default domain.
pub fn by_password(name: &str, password: &str, scope: Option<Value>) -> Value {
    let user = json!({ "name": name, "domain": { "id": "default" }, "password": password });
    with_scope(json!({ "methods": ["password"], "password": { "user": user } }), scope)
}

/// The body of a login with any identity.
pub fn with_scope(identity: Value, scope: Option<Value>) -> Value {
    let mut auth = json!({ "identity": identity });
    if let Some(scope) = scope {
        auth["scope"] = scope;
    }
    json!({ "auth": auth })
}

impl Cloud {
    /// A login.
    pub async fn log_in(&self, body: &Value) -> Reply {
        self.post("", "/identity/v3/auth/tokens", body).await
    }

    /// The text of a token that a login must give.
    pub async fn token(&self, body: &Value) -> String {
        let reply = self.log_in(body).await;
        assert_eq!(reply.status.as_u16(), 201, "{}", reply.text());
        reply.headers["x-subject-token"].to_str().unwrap().to_string()
    }

    /// Makes something by the door, as admin, and gives its id.
    pub async fn make(&self, collection: &str, word: &str, mut fields: Value) -> String {
        if fields.get("name").is_none() {
            fields["name"] = json!(format!("{word}-{}", uuid::Uuid::new_v4()));
        }
        let path = format!("/identity/v3/{collection}");
        let made = self.post(&self.admin, &path, &json!({ word: fields })).await.expect(201);
        made[word]["id"].as_str().unwrap().to_string()
    }

    /// Id of one of the four roles.
    pub async fn role_id(&self, name: &str) -> String {
        let all = self.get(&self.admin, &format!("/identity/v3/roles?name={name}")).await.expect(200);
        all["roles"][0]["id"].as_str().unwrap().to_string()
    }

    /// Gives a role: `place` is like `projects/<id>`.
    pub async fn give(&self, place: &str, user: &str, role: &str) {
        let role = self.role_id(role).await;
        let path = format!("/identity/v3/{place}/users/{user}/roles/{role}");
        self.send(axum::http::Method::PUT, &self.admin, &path, &Value::Null).await.expect(204);
    }
}
