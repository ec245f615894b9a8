//! A cloud of its own for each test, with its users, and a way to call its services.

use crate::house::House;
use api::openstack::{Door, Settings, router};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode},
};
use control::{
    Control,
    session::{Methods, Scope},
};
use http_body_util::BodyExt;
use jiff::Timestamp;
use model::{
    assignment::{Actor, Assignment, Target},
    id::{DomainId, ProjectId, UserId},
    user::User,
};
use serde_json::Value;
use store::{Store, Tx};
use tower::ServiceExt;

/// A running door.
pub struct Cloud {
    /// Control, the fake node (`house.seen(..)` says what it sees), and the native client of the same cloud.
    pub house: House,
    /// Session of the user `admin` in the project `admin`.
    pub admin: String,
    router: Router,
}

/// What was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON; null when there is none.
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON of a reply that must have this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self.json()
    }
}

impl Cloud {
    /// A cloud with its first user.
    pub async fn open() -> Self {
        Self::open_with(Control::new).await
    }

    /// The same with other rules or another clock.
    pub async fn open_with(control: impl FnOnce(Store) -> Control) -> Self {
        let house = House::open_with(control).await;
        let user = house.control.begin_admin("admin's password").await.unwrap();
        let root = control::finalize::system_caller(ProjectId(uuid::Uuid::nil()));
        let project = house.control.find_project(&root, "admin").unwrap().record.meta.id;
        let scope = Scope::Project(project);
        let (admin, _) = house.control.open_session(user, scope, Methods::PASSWORD, None, None).unwrap();
        let router = router(Door::new(house.app.clone(), Settings::default()));
        Self { house, admin, router }
    }

    /// A session of a new user with this role (`admin`, `manager`, `member`, `reader`) in the project `default`.
    pub async fn as_role(&self, role: &str) -> String {
        let project = self.house.caller(control::Role::Admin).project;
        self.as_role_in(role, project).await
    }

    /// The same in another project.
    pub async fn as_role_in(&self, role: &str, project: ProjectId) -> String {
        let control = &self.house.control;
        let id = UserId::from_random(rand::random());
        let name = format!("{role}-{}", id.short()).parse().unwrap();
        let user = User::new(id, DomainId::DEFAULT, name, Timestamp::now());
        let role = control.role_named(role).unwrap().record.id;
        let mut tx = Tx::new();
        tx.create(&user);
        tx.create(&Assignment { actor: Actor::User(id), target: Target::Project(project), role });
        control.store().commit(tx).await.unwrap();
        let scope = Scope::Project(project);
        control.open_session(id, scope, Methods::PASSWORD, None, None).unwrap().0
    }

    /// A call: `path` begins with the service, like `/compute/v2.1/servers`; an empty token is none.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path).header("host", "cloud:5000");
        if !token.is_empty() {
            request = request.header("x-auth-token", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Reply { status: head.status, headers: head.headers, body }
    }

    /// GET.
    pub async fn get(&self, token: &str, path: &str) -> Reply {
        self.call(Method::GET, path, token, &[], Body::empty()).await
    }

    /// POST, PUT or PATCH with JSON.
    pub async fn send(&self, method: Method, token: &str, path: &str, body: &Value) -> Reply {
        let headers = [("content-type", "application/json")];
        self.call(method, path, token, &headers, body.to_string()).await
    }

    /// POST with JSON.
    pub async fn post(&self, token: &str, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, token, path, body).await
    }

    /// DELETE.
    pub async fn delete(&self, token: &str, path: &str) -> Reply {
        self.call(Method::DELETE, path, token, &[], Body::empty()).await
    }
}
