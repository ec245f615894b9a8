//! Streams: console, programs, logs.

use crate::house::House;
use api::{
    client::FrameStream,
    frame::Frame,
    v1::types::{
        instance::{CreateInstance, Instance},
        list::WaitQuery,
        stream::{AttachQuery, ConsoleLogQuery, ConsoleQuery, ExecRequest, LogQuery, LogStream},
        token::Role,
    },
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use model::error::Code;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

async fn house_with_guest() -> House {
    let house = House::open().await;
    let request =
        CreateInstance { name: "web".into(), image: Some("busybox".into()), ..CreateInstance::default() };
    house.client.create::<Instance>(&request, &WaitQuery::default()).await.unwrap();
    house
}

#[tokio::test]
async fn a_console_carries_bytes_both_ways() {
    let house = house_with_guest().await;
    let mut console = house.client.console("web", &ConsoleQuery::default()).await.unwrap();
    // More than any buffer on the way holds, so both directions must flow at once.
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(&mut console);
    let mut got = vec![0; sent.len()];
    let (written, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut got));
    written.unwrap();
    read.unwrap();
    assert!(got == sent);

    drop(house.client.console("web", &ConsoleQuery { login: true }).await.unwrap());
    assert_eq!(*house.guests.told.lock().unwrap(), ["log in to web"]);
    let error = house.client.vnc("web").await.unwrap_err();
    assert_eq!((error.code(), error.hint().as_str()), (Code::Unsupported, "use its console"));
    assert_eq!(
        house.client.console("nobody", &ConsoleQuery::default()).await.unwrap_err().code(),
        Code::NotFound
    );
    let plain =
        house.raw("GET /v1/instances/web/console HTTP/1.1\r\nHost: x\r\n\r\n", "\"request_id\":\"").await;
    assert!(plain.starts_with("HTTP/1.1 426 "), "{plain}");
    let reader = house.as_role(Role::Reader).await;
    assert_eq!(
        reader.console("web", &ConsoleQuery { login: true }).await.unwrap_err().code(),
        Code::Forbidden
    );
}

async fn gather(stream: &mut FrameStream) -> (Vec<u8>, Vec<u8>, Option<Frame>) {
    let (mut out, mut err) = (vec![], vec![]);
    while let Some(frame) = stream.next().await {
        match frame.unwrap() {
            Frame::Stdout(data) => out.extend_from_slice(&data),
            Frame::Stderr(data) => err.extend_from_slice(&data),
            last => return (out, err, Some(last)),
        }
    }
    (out, err, None)
}

fn exec(program: &str) -> ExecRequest {
    ExecRequest { argv: vec![program.into()], stdin: true, ..ExecRequest::default() }
}

#[tokio::test]
async fn programs_get_input_and_tell_output_and_exit_code() {
    let house = house_with_guest().await;
    let mut stream = house.client.exec("web", &exec("cat")).await.unwrap();
    stream.send(Frame::Resize { rows: 24, columns: 80 }).await.unwrap();
    stream.send(Frame::Signal(10)).await.unwrap();
    stream.send(Frame::Stdin(Bytes::from(vec![b'x'; 1_000]))).await.unwrap();
    stream.send(Frame::Stdin(Bytes::new())).await.unwrap();
    let (out, err, last) = timeout(Duration::from_secs(10), gather(&mut stream)).await.unwrap();
    assert_eq!((out.len(), err.as_slice(), last), (1_000, &b"bye"[..], Some(Frame::Exit(1_000))));
    assert_eq!(*house.guests.told.lock().unwrap(), ["resize 24 80", "signal 10"]);
    assert!(stream.next().await.is_none(), "the server closes after the exit code");
    assert_eq!(*house.guests.abandoned.borrow(), 0);

    let mut attached = house.client.attach("web", &AttachQuery::default()).await.unwrap();
    attached.send(Frame::Stdin(Bytes::new())).await.unwrap();
    let (_, _, last) = timeout(Duration::from_secs(10), gather(&mut attached)).await.unwrap();
    assert_eq!(last, Some(Frame::Exit(0)));

    let error = house.client.exec("web", &exec("missing")).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::Invalid, Some("argv")));
    let error = house.client.exec("web", &ExecRequest::default()).await.unwrap_err();
    assert_eq!(error.field(), Some("argv"));
}

#[tokio::test]
async fn a_program_whose_client_went_away_is_abandoned() {
    let house = house_with_guest().await;
    let mut abandoned = house.guests.abandoned.subscribe();
    let stream = house.client.exec("web", &exec("cat")).await.unwrap();
    drop(stream);
    timeout(Duration::from_secs(10), abandoned.wait_for(|count| *count == 1)).await.unwrap().unwrap();
}

#[tokio::test]
async fn logs_come_as_lines_or_bytes() {
    let house = house_with_guest().await;
    let mut lines =
        house.client.logs("web", &LogQuery { tail: Some(3), ..LogQuery::default() }).await.unwrap();
    let first = lines.next().await.unwrap().unwrap();
    assert_eq!((first.text.as_str(), first.stream), ("line 2\n", LogStream::Stdout));
    let second = lines.next().await.unwrap().unwrap();
    assert_eq!((second.stream, second.base64.as_deref()), (LogStream::Stderr, Some("/wo=")));
    assert!(lines.next().await.unwrap().is_some() && lines.next().await.unwrap().is_none());

    let mut bytes = house.client.logs_plain("web", &LogQuery::default()).await.unwrap();
    let mut all = vec![];
    while let Some(part) = bytes.next().await.unwrap() {
        all.extend_from_slice(&part);
    }
    assert_eq!(all, b"line 0\nline 1\nline 2\n\xff\nline 4\n");

    // One that follows ends when the server does, and holds it up no longer.
    let mut following =
        house.client.logs("web", &LogQuery { follow: Some(1), ..LogQuery::default() }).await.unwrap();
    for _ in 0..5 {
        following.next().await.unwrap().unwrap();
    }
    house.stopping.cancel();
    assert!(timeout(Duration::from_secs(5), following.next()).await.unwrap().unwrap().is_none());
    timeout(Duration::from_secs(5), house.server).await.unwrap().unwrap();
    assert!(!house.socket.exists());

    let wrong = LogQuery { since: Some("yesterday".into()), ..LogQuery::default() };
    let house = house_with_guest().await;
    assert_eq!(house.client.logs("web", &wrong).await.unwrap_err().field(), Some("since"));
    let tail = ConsoleLogQuery { tail: Some(1), ..ConsoleLogQuery::default() };
    assert_eq!(house.client.console_log("web", &tail).await.unwrap(), "login:\n");
}
