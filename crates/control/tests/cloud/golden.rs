//! Records of all nouns, as earlier versions really stored them: today's version opens them and loses nothing.
//!
//! A file of `tests/golden` is what a version wrote on a machine, the keys of the store with their values. It is never
//! changed; a version that stores something in another form adds a file of its own.

use model::{instance::Kind, record::Record};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};
use store::{
    Memory, Store,
    engine::{Engine, Op, Txn},
};

type Stored = BTreeMap<String, Value>;

/// The golden files by their names.
fn files() -> Vec<(String, Stored)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap());
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap())
    };
    entries.map(read).collect()
}

async fn open(stored: &Stored) -> Store {
    let engine = Memory::new();
    for (key, value) in stored {
        let outcome =
            engine.commit(Txn { then: vec![Op::put(key, value.to_string())], ..Txn::default() }).await;
        assert!(outcome.unwrap().succeeded);
    }
    Store::open(Arc::new(engine), control::schema::schema()).await.unwrap()
}

/// Compares the records of a table with what was stored, field by field: what was there is there.
fn compare<R: Record>(store: &Store, stored: &Stored, file: &str, seen: &mut usize) {
    let root = store::record_key(R::TABLE, "");
    let old: BTreeMap<&str, &Value> =
        stored.iter().filter_map(|(key, value)| Some((key.strip_prefix(&root)?, value))).collect();
    let all = store.list::<R>();
    assert_eq!(all.len(), old.len(), "{file}: {}", R::TABLE);
    for found in all {
        let key = found.record.key();
        let was = old.get(key.as_str()).unwrap_or_else(|| panic!("{file}: {} has no {key}", R::TABLE));
        let now = serde_json::to_value(&found.record).unwrap();
        if was["v"] == R::VERSION {
            lost(&was["r"], &now, &format!("{file}: {}/{key}", R::TABLE));
        }
        *seen += 1;
    }
}

/// Fails at the first field that was there and is not.
fn lost(was: &Value, now: &Value, path: &str) {
    match (was, now) {
        (Value::Object(was), Value::Object(now)) => {
            for (name, value) in was {
                let is_nothing = |value: &Value| match value {
                    Value::Null | Value::Bool(false) => true,
                    Value::Array(all) => all.is_empty(),
                    Value::Object(all) => all.is_empty(),
                    _ => false,
                };
                match now.get(name) {
                    Some(now) => lost(value, now, &format!("{path}.{name}")),
                    // What says nothing need not be said.
                    None => assert!(is_nothing(value), "{path}.{name} is lost: {value}"),
                }
            }
        }
        (Value::Array(was), Value::Array(now)) if was.len() == now.len() => {
            was.iter().zip(now).for_each(|(was, now)| lost(was, now, path));
        }
        _ => assert_eq!(was, now, "{path}"),
    }
}

macro_rules! compare_all {
    ($store:expr, $stored:expr, $file:expr, $($record:ty),+ $(,)?) => {{
        let mut seen = 0;
        $(compare::<$record>($store, $stored, $file, &mut seen);)+
        seen
    }};
}

#[tokio::test]
async fn what_earlier_versions_stored_is_read_as_today() {
    let files = files();
    assert!(!files.is_empty());
    for (file, stored) in &files {
        let store = open(stored).await;
        let seen = compare_all!(
            &store,
            stored,
            file,
            model::address_scope::AddressScope,
            model::application_credential::ApplicationCredential,
            model::assignment::Assignment,
            model::domain::Domain,
            model::flavor::Flavor,
            model::floating_ip::FloatingIp,
            model::group::Group,
            model::group::Membership,
            model::image::Image,
            model::image::ImageStatus,
            model::instance::Instance,
            model::instance::InstanceStatus,
            model::keypair::Keypair,
            model::network::Network,
            model::node::Node,
            model::node::NodeStatus,
            model::operation::Event,
            model::operation::Operation,
            model::port::Port,
            model::project::Project,
            model::publish::HostPort,
            model::role::Role,
            model::router::Router,
            model::security_group::SecurityGroup,
            model::server_group::ServerGroup,
            model::snapshot::Snapshot,
            model::subnet::Subnet,
            model::subnet_pool::SubnetPool,
            model::user::User,
            model::volume::Volume,
            model::volume::VolumeStatus,
            model::volume::transfer::Transfer,
            model::volume_type::VolumeType,
            control::session::EndedSession,
            control::session::SigningKey,
            control::token::Token,
        );
        assert_eq!(seen, stored.len(), "{file}: every record was looked at");
        let kinds: Vec<Kind> =
            store.list::<model::instance::Instance>().iter().map(|i| i.record.kind).collect();
        assert!(kinds.contains(&Kind::Vm) && kinds.contains(&Kind::Container), "{kinds:?}");
    }
}
