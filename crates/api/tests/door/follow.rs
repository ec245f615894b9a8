//! The stream of changes, and lists of events.

use crate::house::{House, KEY};
use api::v1::types::{
    event::{Change, Event, EventQuery},
    keypair::{CreateKeypair, Keypair},
    list::{ListQuery, WaitQuery},
    token::{Role, Token},
};
use model::operation::Subject;
use std::time::Duration;
use tokio::time::timeout;

fn key(name: &str) -> CreateKeypair {
    CreateKeypair { name: name.into(), public_key: KEY.into(), ..CreateKeypair::default() }
}

async fn next(changes: &mut api::client::Changes) -> Change {
    timeout(Duration::from_secs(10), changes.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn changes_are_told_to_those_who_may_see_them() {
    let house = House::open().await;
    let member = house.as_role(Role::Member).await;
    let query = EventQuery { noun: Some("keypair".into()), ..EventQuery::default() };
    let mut changes = member.follow_events(&query).await.unwrap();

    let elsewhere = house.client.clone().with_project("admin");
    elsewhere.create::<Keypair>(&key("hidden"), &WaitQuery::default()).await.unwrap();
    let made = house.client.create::<Keypair>(&key("mine"), &WaitQuery::default()).await.unwrap();
    let id = made.head.id.to_string();
    let told = Change::Changed { noun: "keypair".into(), id: id.clone(), gone: false };
    assert_eq!(next(&mut changes).await, told);
    elsewhere.delete::<Keypair>("hidden", &WaitQuery::default()).await.unwrap();
    house.client.delete::<Keypair>("mine", &WaitQuery::default()).await.unwrap();
    let told = Change::Changed { noun: "keypair".into(), id, gone: true };
    assert_eq!(next(&mut changes).await, told);
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let house = House::open().await;
    let member = house.as_role(Role::Member).await;
    let mut changes = member.follow_events(&EventQuery::default()).await.unwrap();
    house.client.delete::<Token>("for-member", &WaitQuery::default()).await.unwrap();
    let end = async {
        // What happens until it is asked again is still told.
        while let Ok(Some(_)) = changes.next().await {}
    };
    timeout(Duration::from_secs(30), end).await.expect("the stream ends");
}

#[tokio::test]
async fn events_are_listed_and_followed() {
    let house = House::open().await;
    let caller = house.caller(control::Role::Admin);
    let subject = Subject { noun: "instance".into(), id: "x".into() };
    let query = EventQuery { noun: Some("instance".into()), ..EventQuery::default() };
    let mut changes = house.client.follow_events(&query).await.unwrap();
    house.control.note_event(Some(caller.project), subject.clone(), "started", "web started", false).await;
    match next(&mut changes).await {
        Change::Event(event) => assert_eq!(event.reason, "started"),
        other => panic!("{other:?}"),
    }
    house.control.note_event(Some(caller.project), subject, "crashed", "web crashed", true).await;
    let page = ListQuery { limit: Some(1), ..ListQuery::default() };
    let all = house.client.list_all::<Event>(&page).await.unwrap();
    let reasons: Vec<&str> = all.iter().map(|e| e.reason.as_str()).collect();
    assert_eq!(reasons, ["crashed", "started"]);

    let sse = "GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";
    let (answer, _) = tokio::join!(house.raw(sse, "data: {"), async {
        for number in 0..50 {
            house.client.create::<Keypair>(&key(&format!("k{number}")), &WaitQuery::default()).await.unwrap();
        }
    });
    assert!(answer.contains("content-type: text/event-stream"), "{answer}");
}
