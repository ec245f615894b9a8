//! Frames and channels between two ends of one line.

use super::*;
use serde::Deserialize;
use std::{
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Word(String);

fn pair() -> (Link, Link) {
    let (host, guest) = UnixStream::pair().unwrap();
    let link = |end: UnixStream, side| Link::new(File::from(OwnedFd::from(end)), side).unwrap();
    (link(host, Side::Host), link(guest, Side::Guest))
}

/// Lets both ends do what they can. Messages are none here.
fn settle(a: &mut Link, b: &mut Link) {
    for _ in 0..64 {
        for link in [&mut *a, &mut *b] {
            let ids: Vec<ChannelId> = link.wanted().iter().map(|it| it.0).collect();
            ids.into_iter().for_each(|id| link.serve(id));
            assert_eq!(link.next::<Word>(), None);
        }
    }
}

#[test]
fn messages_come_in_order_with_what_streams_said_before() {
    let (mut host, mut guest) = pair();
    let (mut near, far) = UnixStream::pair().unwrap();
    let id = guest.open(Some(far.into()), None).unwrap();
    guest.tell(&Word("open".into())).unwrap();
    near.write_all(b"last words").unwrap();
    assert!(guest.is_dry(id));
    guest.tell(&Word("over".into())).unwrap();
    host.serve(0);
    assert_eq!(host.next::<Word>(), Some(Word("open".into())));
    host.accept_kept(id);
    assert_eq!(host.next::<Word>(), Some(Word("over".into())));
    assert_eq!(host.take(id), Some(b"last words".to_vec()));
}

#[test]
fn a_reader_who_takes_nothing_stops_his_own_stream_alone() {
    let (mut host, mut guest) = pair();
    let (mut slow, slow_far) = UnixStream::pair().unwrap();
    let (mut quick, quick_far) = UnixStream::pair().unwrap();
    let (slow_id, quick_id) =
        (guest.open(Some(slow_far.into()), None).unwrap(), guest.open(Some(quick_far.into()), None).unwrap());
    // Nobody reads what comes out of the first.
    let (stuck, stuck_far) = UnixStream::pair().unwrap();
    let (mut out, out_far) = UnixStream::pair().unwrap();
    host.accept(slow_id, None, Some(stuck_far.into()));
    host.accept(quick_id, None, Some(out_far.into()));
    slow.set_nonblocking(true).unwrap();
    out.set_nonblocking(true).unwrap();
    let mut sent = 0;
    for _ in 0..64 {
        sent += slow.write(&[1; 64 * 1024]).unwrap_or(0);
        settle(&mut host, &mut guest);
    }
    assert!(sent > WINDOW_BYTES as usize && sent < 4 << 20, "{sent} bytes went in");
    let mut got = Vec::new();
    for round in 0..100u8 {
        quick.write_all(&[round; 10_000]).unwrap();
        settle(&mut host, &mut guest);
        let mut buffer = [0; 64 * 1024];
        while let Ok(length) = out.read(&mut buffer) {
            got.extend_from_slice(&buffer[..length]);
        }
    }
    assert_eq!(got.len(), 1_000_000);
    assert!(
        got.chunks(10_000).enumerate().all(|(round, part)| part.iter().all(|it| usize::from(*it) == round))
    );
    drop(stuck);
}

#[test]
fn ends_travel_both_ways() {
    let (mut host, mut guest) = pair();
    let (near, far) = UnixStream::pair().unwrap();
    let copy = far.try_clone().unwrap();
    let id = guest.open(Some(far.into()), Some(copy.into())).unwrap();
    let (mut out, out_far) = UnixStream::pair().unwrap();
    let out_copy = out_far.try_clone().unwrap();
    host.accept(id, Some(out_far.into()), Some(out_copy.into()));
    // The program has no more to say, and still listens.
    near.shutdown(std::net::Shutdown::Write).unwrap();
    settle(&mut host, &mut guest);
    assert_eq!(out.read(&mut [0; 8]).unwrap(), 0);
    out.write_all(b"more").unwrap();
    drop(out);
    settle(&mut host, &mut guest);
    let mut said = Vec::new();
    (&near).read_to_end(&mut said).unwrap();
    assert_eq!(said, b"more");
    assert!(host.channels.is_empty() && guest.channels.is_empty());
}

#[test]
fn who_reads_no_more_ends_the_writer() {
    let (mut host, mut guest) = pair();
    let (mut near, far) = UnixStream::pair().unwrap();
    let id = guest.open(Some(far.into()), None).unwrap();
    let (out, out_far) = UnixStream::pair().unwrap();
    host.accept(id, None, Some(out_far.into()));
    drop(out);
    near.write_all(b"into the void").unwrap();
    settle(&mut host, &mut guest);
    assert!(near.write_all(&[0; 1024]).is_err());
}

#[test]
fn nothing_is_believed() {
    let data = |kind: u8, id: u32, length: u32| {
        let mut frame = vec![kind];
        frame.extend(id.to_le_bytes());
        frame.extend(length.to_le_bytes());
        frame
    };
    let too_long = data(DATA, 2, 1 << 30);
    let no_kind = [data(9, 2, 0)].concat();
    let no_message = [data(MESSAGE, 0, 2), b"{x".to_vec()].concat();
    let short_credit = [data(CREDIT, 2, 1), vec![0]].concat();
    let mut flood = Vec::new();
    for _ in 0..9 {
        flood.extend(data(DATA, 2, DATA_BYTES_MAX as u32));
        flood.extend([0; DATA_BYTES_MAX]);
    }
    for hostile in [too_long, no_kind, no_message, short_credit, flood] {
        let (port, mut other) = UnixStream::pair().unwrap();
        let mut link = Link::new(File::from(OwnedFd::from(port)), Side::Host).unwrap();
        let (stuck, far) = UnixStream::pair().unwrap();
        // Its buffer is full, so that what comes stays here.
        stuck.set_nonblocking(true).unwrap();
        let filler = far.try_clone().unwrap();
        filler.set_nonblocking(true).unwrap();
        while (&filler).write(&[0; 4096]).is_ok() {}
        link.bind(2, None, Some(far.into()), false);
        let writer = std::thread::spawn(move || {
            let _ = other.write_all(&hostile);
            other
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        while !link.is_over() && Instant::now() < deadline {
            link.serve(0);
            assert_eq!(link.next::<Word>(), None);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(link.is_over());
        drop(link);
        drop(writer.join().unwrap());
    }
    // What came for a channel that is gone is no fault.
    let (mut host, mut guest) = pair();
    guest.frame(DATA, 77, b"late");
    guest.flush();
    settle(&mut host, &mut guest);
    assert!(!host.is_over());
}

#[test]
fn one_channel_too_many_is_refused_and_no_place_is_lost() {
    let (mut host, mut guest) = pair();
    let ids: Vec<ChannelId> = (0..OPENED_MAX - 2).map(|_| host.open(None, None).unwrap()).collect();
    assert_eq!(host.open_all([(None, None), (None, None), (None, None)]), None);
    let last = host.open_all([(None, None), (None, None)]).expect("what was refused took no place");
    assert_eq!(host.open(None, None), None);
    // The other end has its own.
    let (_near, far) = UnixStream::pair().unwrap();
    let other = guest.open(Some(far.into()), None).unwrap();
    assert!(host.accept(other, None, None));
    ids.iter().chain(&last).for_each(|id| guest.refuse(*id));
    settle(&mut host, &mut guest);
    assert!(!host.is_over() && host.has_room(OPENED_MAX));

    // What an end takes has a limit too. Whoever made one too many sees both ends of it closed.
    let (mut host, mut guest) = pair();
    for number in 1..=TAKEN_MAX as u32 {
        assert!(guest.accept(2 * number, None, None));
    }
    let last = 2 * TAKEN_MAX as u32 + 2;
    host.next = last;
    let (mut near, far) = UnixStream::pair().unwrap();
    let copy = far.try_clone().unwrap();
    assert_eq!(host.open(Some(far.into()), Some(copy.into())), Some(last));
    assert!(!guest.accept(last, None, None) && !guest.is_over());
    settle(&mut host, &mut guest);
    assert_eq!(near.read(&mut [0; 8]).unwrap(), 0);
    assert!(near.write_all(b"to nobody").is_err());
    assert!(!host.has(last) && !host.is_over());
    // To give a number that one has not is still a breach.
    assert!(!guest.accept(1, None, None) && guest.is_over());
}

#[test]
fn many_small_frames_cost_no_more_than_their_bytes() {
    let (mut host, _guest) = pair();
    // For channels that are gone: nothing happens but that they are read.
    let mut frame = vec![GONE];
    frame.extend(77_u32.to_le_bytes());
    frame.extend(0_u32.to_le_bytes());
    host.incoming = frame.repeat(800_000);
    let begun = Instant::now();
    assert_eq!(host.next::<Word>(), None);
    // To move the rest for each of them would take minutes.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(!host.is_over());
    host.receive();
    assert!(host.incoming.is_empty());
}
