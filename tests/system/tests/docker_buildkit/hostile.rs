//! A client that gives what no real one would: names that lead out, lists without an end, contents that nobody asked for.

use super::{PROJECT, clean, finish, lab};
use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use http_body_util::StreamBody;
use hyper::{
    Response,
    body::{Frame, Incoming},
    header::HeaderMap,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::Lab;
use std::{convert::Infallible, path::PathBuf};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Bits of Go's modes for a symbolic link.
const SYMLINK: u64 = 1 << 27 | 0o777;

/// What a hostile client answers with.
#[derive(Clone, Copy)]
enum Trick {
    /// These names, in this order.
    Names(&'static [&'static str]),
    /// A link, and a file below it.
    Link,
    /// Names without an end.
    Endless,
    /// Contents before anybody asks for them.
    Content,
    /// A message that is larger than any may be.
    Large,
    /// Nothing but an end.
    Nothing,
}

/// A field of a protocol buffer with bytes.
fn bytes_field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn number_field(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = vec![];
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a message").to_be_bytes();
    Bytes::from([&[0][..], &length, message].concat())
}

/// What there is of a file.
fn stat(path: &str, mode: u64, link: &str) -> Bytes {
    let fields = [
        bytes_field(1, path.as_bytes()),
        number_field(2, mode),
        number_field(5, 3),
        bytes_field(7, link.as_bytes()),
    ];
    framed(&bytes_field(2, &fields.concat()))
}

fn packets(trick: Trick) -> BoxStream<'static, Bytes> {
    match trick {
        Trick::Names(names) => stream::iter(names.iter().map(|name| stat(name, 0o644, ""))).boxed(),
        Trick::Link => {
            stream::iter([stat("a", SYMLINK, "/etc"), stat("a/passwd", 0o644, ""), framed(&[])]).boxed()
        }
        Trick::Endless => stream::iter((0u64..).map(|n| stat(&format!("{n:012}"), 0o644, ""))).boxed(),
        Trick::Content => {
            let packet = [number_field(1, 2), number_field(3, 0), bytes_field(4, b"x")].concat();
            stream::iter([framed(&packet)]).boxed()
        }
        Trick::Large => stream::iter([Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff])]).boxed(),
        Trick::Nothing => stream::iter([]).boxed(),
    }
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

fn answer(trick: Trick) -> Response<Body> {
    let end = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
    let frames = packets(trick).map(Frame::data).chain(stream::iter([Frame::trailers(end)]));
    let mut response = Response::new(StreamBody::new(frames.map(Ok).boxed()));
    response.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
    response
}

async fn connect(socket: &PathBuf, request: &str) -> UnixStream {
    let mut door = UnixStream::connect(socket).await.expect("the door");
    door.write_all(request.as_bytes()).await.expect("sends");
    door
}

/// Opens a session that answers all calls with the trick, asks for a build of it, and gives what is said.
async fn said(socket: PathBuf, id: usize, trick: Trick) -> String {
    let opening = format!(
        "POST /session HTTP/1.1\r\nHost: docker\r\nX-Holm-Project: {PROJECT}\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\
         X-Docker-Expose-Session-Uuid: hostile-{id}\r\n\
         X-Docker-Expose-Session-Grpc-Method: /moby.filesync.v1.FileSync/DiffCopy\r\n\r\n"
    );
    let mut session = connect(&socket, &opening).await;
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(session.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let calls =
        service_fn(move |_: hyper::Request<Incoming>| async move { Ok::<_, Infallible>(answer(trick)) });
    let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(session), calls);
    let asking = format!(
        "POST /build?version=2&remote=client-session&session=hostile-{id}&t=hostile HTTP/1.1\r\nHost: docker\r\n\
         X-Holm-Project: {PROJECT}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    let mut asked = connect(&socket, &asking).await;
    let mut text = String::new();
    // The daemon may break off with a client that sends more than it should: what it says of it counts.
    let serving = async {
        let _ = serving.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        read = asked.read_to_string(&mut text) => drop(read.expect("an answer")),
        () = serving => {}
    }
    text
}

fn told(lab: &Lab, id: usize, trick: Trick) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(said(lab.run().join("docker.sock"), id, trick))
}

#[test]
fn a_hostile_session_leads_nowhere() {
    let (lab, docker) = lab();
    let tricks = [
        (Trick::Names(&["../x"]), "leads out of the directory"),
        (Trick::Names(&["/etc/passwd"]), "leads out of the directory"),
        (Trick::Names(&["a", "a/../../x"]), "leads out of the directory"),
        (Trick::Names(&["b", "a"]), "out of order"),
        (Trick::Names(&["a", "a"]), "out of order"),
        (Trick::Names(&["a"]), "too early"),
        (Trick::Link, "no directory"),
        (Trick::Endless, "more than 250000 files"),
        (Trick::Content, "nobody asked for"),
        (Trick::Large, "larger than"),
        (Trick::Nothing, "too early"),
    ];
    for (id, (trick, words)) in tricks.into_iter().enumerate() {
        let said = told(&lab, id, trick);
        assert!(said.contains(words) && !said.contains("moby.image.id"), "{words}: {said}");
    }
    clean(&docker);
    finish(lab, &docker);
}
