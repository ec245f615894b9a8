//! Image content: streamed, bounded, checked.

use crate::house::House;
use api::{
    client::SHA256_HEADER,
    limits::IMAGE_BYTES_MAX,
    v1::types::{
        image::{CreateImage, Image, ImageState},
        list::WaitQuery,
    },
};
use model::error::Code;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};

async fn house_with_image() -> House {
    let house = House::open().await;
    let request: CreateImage = serde_json::from_value(serde_json::json!({"name": "disk"})).unwrap();
    house.client.create::<Image>(&request, &WaitQuery::default()).await.unwrap();
    house
}

#[tokio::test]
async fn bytes_arrive_whole_and_progress_is_told() {
    let house = house_with_image().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
    let digest = hex::encode(Sha256::digest(&bytes));
    let told = Arc::new(Mutex::new(vec![]));
    let progress = {
        let told = Arc::clone(&told);
        move |sent| told.lock().unwrap().push(sent)
    };
    let reader = std::io::Cursor::new(bytes.clone());
    let size = bytes.len() as u64;
    let image = house.client.upload_image("disk", reader, Some(size), Some(&digest), progress).await.unwrap();
    assert_eq!(image.state, ImageState::Ready);
    assert!(*house.guests.uploaded.lock().unwrap() == bytes);
    let told = told.lock().unwrap().clone();
    assert!(told.len() > 3 && told.last() == Some(&size));
    let again = house
        .client
        .upload_image("disk", std::io::Cursor::new(vec![1]), None, None, |_| {})
        .await
        .unwrap_err();
    assert_eq!(again.code(), Code::Conflict);
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_not_kept() {
    let house = house_with_image().await;
    let send = async |bytes: Vec<u8>, digest: Option<&str>| {
        house.client.upload_image("disk", std::io::Cursor::new(bytes), None, digest, |_| {}).await
    };
    let error = send(vec![1; 100_000], Some(&"0".repeat(64))).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::Invalid, Some(SHA256_HEADER)), "{error:?}");
    assert!(error.to_string().contains("was promised"), "{error}");
    let error = send(vec![1], Some("xyz")).await.unwrap_err();
    assert_eq!(error.field(), Some(SHA256_HEADER));
    let image = house.client.get::<Image>("disk").await.unwrap();
    assert_eq!(image.state, ImageState::Waiting);
    let error = house
        .client
        .upload_image("nothing", std::io::Cursor::new(vec![0; 5_000_000]), None, None, |_| {})
        .await;
    assert_eq!(error.unwrap_err().code(), Code::NotFound);

    let size = IMAGE_BYTES_MAX + 1;
    let request =
        format!("PUT /v1/images/disk/content HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
    let answer = house.raw(&request, "\"request_id\":\"").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    use tokio::io::AsyncWriteExt;
    let house = house_with_image().await;
    let mut stream = tokio::net::UnixStream::connect(&house.socket).await.unwrap();
    let head = "PUT /v1/images/disk/content HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    let request: CreateImage = serde_json::from_value(serde_json::json!({"name": "other"})).unwrap();
    house.client.create::<Image>(&request, &WaitQuery::default()).await.unwrap();
    assert_eq!(house.client.get::<Image>("disk").await.unwrap().state, ImageState::Waiting);
    assert!(house.guests.uploaded.lock().unwrap().is_empty());
}
