//! Changes of records wake the keys they concern, also those that came too fast to be told one by one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use model::record::Record;
use reconcile::{Outcome, Runner};
use serde::{Deserialize, Serialize};
use store::{Index, Memory, Schema, Store, Tx};
use tokio::time::{Instant, sleep};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Port {
    id: String,
    network: String,
    version: u32,
}

impl Record for Port {
    const TABLE: &'static str = "port";
    fn key(&self) -> String {
        self.id.clone()
    }
}

const BY_NETWORK: Index<Port> = Index::new("network", |port| vec![port.network.clone()]);

fn put(tx: &mut Tx, id: u32, version: u32) {
    tx.put(&Port { id: id.to_string(), network: format!("n{}", id % 3), version });
}

/// What a reconcile of a network saw last: the versions of its ports.
type Seen = Arc<Mutex<BTreeMap<String, Vec<u32>>>>;

async fn until_seen(seen: &Seen, store: &Store) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let mut wanted: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for port in store.list::<Port>() {
            wanted.entry(port.network.clone()).or_default().push(port.version);
        }
        if *seen.lock().unwrap() == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{:?} is not {wanted:?}", seen.lock().unwrap());
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_the_keys_they_concern() {
    let store = Store::open(Arc::new(Memory::new()), Schema::new().index(BY_NETWORK)).await.unwrap();
    let seen = Seen::default();
    let run = {
        let (store, seen) = (store.clone(), seen.clone());
        move |network: String| {
            let (store, seen) = (store.clone(), seen.clone());
            async move {
                let ports = store.by_index(&BY_NETWORK, &network);
                let versions = ports.iter().map(|port| port.version).collect();
                seen.lock().unwrap().insert(network, versions);
                Ok::<_, String>(Outcome::Done)
            }
        }
    };
    let keys = {
        let store = store.clone();
        move || store.list::<Port>().iter().map(|port| port.network.clone()).collect()
    };
    let concerned = {
        let store = store.clone();
        move |table: &'static str, key: &str| {
            assert_ne!(key, "13", "a mistake in here must not cost a wake-up");
            let port = (table == Port::TABLE).then(|| store.get::<Port>(key)).flatten();
            port.map(|port| port.network.clone()).into_iter().collect()
        }
    };
    let runner = Runner::builder("network", keys)
        .wake_by(store.subscribe(), concerned)
        .resync_every(Duration::from_secs(100_000))
        .spawn(run);
    for version in 0..20 {
        let mut tx = Tx::new();
        put(&mut tx, version, version);
        store.commit(tx).await.unwrap();
    }
    until_seen(&seen, &store).await;
    for version in 0..60 {
        let mut tx = Tx::new();
        (0..500).filter(|id| *id != 13).for_each(|id| put(&mut tx, id, version));
        store.commit(tx).await.unwrap();
    }
    until_seen(&seen, &store).await;
    assert!(runner.drain(Duration::from_secs(5)).await.abandoned.is_empty());
}
