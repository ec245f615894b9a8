//! The question byte for byte, and answers as servers send them: at once, in pieces, late, broken, or none.

use super::*;
use tokio::io::duplex;

/// Header fields of an answer, packed somehow: nobody unpacks them.
const HEADS: &[u8] = &[0x88, 0x5f, 0x8b, 0x1d, 0x75, 0xd0, 0x62, 0x0d, 0x26, 0x3d, 0x4c, 0x4d, 0x65, 0x64];
const END: &[u8] = &[0x40, 0x88, 0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f, 0x01, 0x30];

fn message(status: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, u8::try_from(status.len()).unwrap()], status].concat()
}

fn answer(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

/// What is made of an answer that comes in pieces of `piece` bytes; and what was asked.
async fn ask(service: &str, bytes: Vec<u8>, piece: usize) -> (Result<(), String>, Vec<u8>) {
    let (near, mut far) = duplex(64 * 1024);
    let server = tokio::spawn(async move {
        for part in bytes.chunks(piece) {
            if far.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        far.shutdown().await.unwrap();
        let mut asked = Vec::new();
        let _ = far.read_to_end(&mut asked).await;
        asked
    });
    let outcome = check(near, "localhost:5000", service).await;
    (outcome, server.await.unwrap())
}

#[tokio::test]
async fn the_question_is_one_call_over_http_2() {
    let settings = framed(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    let served = answer(&[
        settings,
        framed(PING, 0, 0, b"12345678"),
        framed(HEADERS, END_HEADERS, STREAM, HEADS),
        framed(DATA, 0, STREAM, &message(&[8, 1])),
        framed(HEADERS, END_HEADERS | END_STREAM, STREAM, END),
    ]);
    let (outcome, asked) = ask("shop", served, 7).await;
    assert_eq!(outcome, Ok(()));
    let mut rest = asked.strip_prefix(PREFACE).expect("the preface");
    let mut frames = vec![];
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (body, after) = after.split_at(length);
        frames.push((head[3], head[4], head[8], body.to_vec()));
        rest = after;
    }
    // RFC 7541: 0x83 and 0x86 are whole fields; 0x04 and 0x01 name :path and :authority, 0x0f 0x10 content-type (31), 0x0f 0x2b
    // user-agent (58); 0x00 names nothing. No text is packed.
    let fields = [
        &[0x83, 0x86, 0x04, 28][..],
        b"/grpc.health.v1.Health/Check",
        &[0x01, 14],
        b"localhost:5000",
        &[0x0f, 0x10, 16],
        b"application/grpc",
        &[0x0f, 0x2b, 10],
        b"holm-probe",
        &[0x00, 2],
        b"te",
        &[8],
        b"trailers",
    ]
    .concat();
    let wanted = vec![
        (SETTINGS, 0, 0, vec![]),
        (HEADERS, END_HEADERS, 1, fields),
        (DATA, END_STREAM, 1, b"\0\0\0\0\x06\x0a\x04shop".to_vec()),
        (SETTINGS, ACK, 0, vec![]),
        (PING, ACK, 0, b"12345678".to_vec()),
    ];
    assert_eq!(frames, wanted);
}

type Case = (&'static str, Vec<Vec<u8>>, Result<(), &'static str>);

/// Answers that came as a whole, and what they say.
fn whole_answers() -> Vec<Case> {
    let data = |status: &[u8]| framed(DATA, 0, STREAM, &message(status));
    let heads = framed(HEADERS, END_HEADERS, STREAM, HEADS);
    let padded = [&[3][..], &message(&[8, 1]), &[0, 0, 0]].concat();
    let halves = message(&[8, 1]);
    vec![
        ("serving", vec![heads.clone(), data(&[8, 1])], Ok(())),
        ("padded", vec![heads.clone(), framed(DATA, PADDED, STREAM, &padded)], Ok(())),
        (
            "in two frames",
            vec![
                heads.clone(),
                framed(DATA, 0, STREAM, &halves[..3]),
                framed(8, 0, 0, &[0, 0, 1, 0]),
                framed(DATA, END_STREAM, STREAM, &halves[3..]),
            ],
            Ok(()),
        ),
        ("a field that nobody knows", vec![heads.clone(), data(&[0x12, 2, 9, 9, 8, 1])], Ok(())),
        ("not serving", vec![heads.clone(), data(&[8, 2])], Err("it answered NOT_SERVING")),
        ("unknown", vec![heads.clone(), data(&[])], Err("it answered UNKNOWN")),
        ("of another service", vec![heads.clone(), data(&[8, 3])], Err("it answered SERVICE_UNKNOWN")),
        ("a new status", vec![heads.clone(), data(&[8, 9])], Err("it answered 9")),
        (
            "no message of this kind",
            vec![heads.clone(), data(&[0x0f])],
            Err("an answer that is no HealthCheckResponse"),
        ),
        (
            "a length without end",
            vec![heads.clone(), data(&[0x12, 0xff, 0xff, 1])],
            Err("an answer that is no HealthCheckResponse"),
        ),
    ]
}

/// What is no answer.
fn no_answers() -> Vec<Case> {
    vec![
        (
            "a call that failed",
            vec![framed(HEADERS, END_HEADERS | END_STREAM, STREAM, HEADS)],
            Err("it tells no health of the service shop"),
        ),
        ("a reset", vec![framed(RESET, 0, STREAM, &[0, 0, 0, 7])], Err("the call was reset (7)")),
        (
            "a farewell",
            vec![framed(GO_AWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1])],
            Err("the server goes away (1)"),
        ),
        ("nothing", vec![], Err("the connection was closed without an answer")),
        ("another protocol", vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], Err("no answer by HTTP/2")),
        ("packed", vec![framed(DATA, 0, STREAM, &[1, 0, 0, 0, 0])], Err("a compressed answer")),
        ("a frame too large", vec![vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]], Err("no answer by HTTP/2")),
        (
            "a broken frame",
            vec![framed(DATA, PADDED, STREAM, &[9, 1])],
            Err("no answer by HTTP/2: a broken frame"),
        ),
        (
            "a message too long",
            vec![framed(DATA, 0, STREAM, &[&[0, 0, 1, 0, 0][..], &[0; MESSAGE_BYTES_MAX]].concat())],
            Err("an answer of more than 1024 bytes"),
        ),
        (
            "frames without end",
            vec![framed(8, 0, 0, &[0, 0, 0, 1]); FRAMES_MAX + 1],
            Err("no answer within 64 frames"),
        ),
    ]
}

#[tokio::test]
async fn answers_are_judged_by_their_message() {
    for (name, frames, wanted) in whole_answers().into_iter().chain(no_answers()) {
        for piece in [1, 1 << 16] {
            let (outcome, _) = ask("shop", answer(&frames), piece).await;
            match (&outcome, wanted) {
                (Ok(()), Ok(())) => {}
                (Err(told), Err(part)) => assert!(told.starts_with(part), "{name}: {told}"),
                _ => panic!("{name}: {outcome:?}"),
            }
        }
    }
}
