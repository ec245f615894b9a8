//! Many things and many callers at once.

use crate::house::{House, KEY};
use api::{
    client::Client,
    limits::STREAMS_MAX,
    v1::types::{
        event::EventQuery,
        instance::{CreateInstance, Instance},
        keypair::{CreateKeypair, Keypair},
        list::{ListQuery, WaitQuery},
        quota::UpdateQuota,
    },
};
use model::error::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_creates_never_exceed_a_quota_and_every_loser_is_told_why() {
    let house = House::open().await;
    let quota = UpdateQuota { limits: [("instances".to_string(), Some(7))].into(), reset: vec![] };
    house.client.set_quota("default", &quota).await.unwrap();
    let racers = (0..50).map(|number| {
        let client = Client::unix(&house.socket);
        tokio::spawn(async move {
            let request = CreateInstance {
                name: format!("racer-{number}"),
                image: Some("busybox".into()),
                ..CreateInstance::default()
            };
            client.create::<Instance>(&request, &WaitQuery::default()).await
        })
    });
    let mut won = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => {
                assert_eq!(
                    (error.code(), error.field()),
                    (Code::QuotaExceeded, Some("instances")),
                    "{error:?}"
                );
                assert!(error.to_string().contains('7') && !error.hint().is_empty(), "{error:?}");
            }
        }
    }
    assert_eq!(won, 7);
    assert_eq!(house.client.list_all::<Instance>(&ListQuery::default()).await.unwrap().len(), 7);
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_freed_places_are_given_again() {
    let house = House::open().await;
    let query = EventQuery::default();
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        open.push(house.client.follow_events(&query).await.unwrap());
    }
    let error = house.client.follow_events(&query).await.unwrap_err();
    assert_eq!(error.code(), Code::TooMany, "{error:?}");
    open.truncate(1);
    let key = CreateKeypair { name: "k".into(), public_key: KEY.into(), ..CreateKeypair::default() };
    // A stream notices that its client went when it has something to say, or by its connection's end.
    house.client.create::<Keypair>(&key, &WaitQuery::default()).await.unwrap();
    let freed = async {
        while house.client.follow_events(&query).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), freed).await.unwrap();
}
