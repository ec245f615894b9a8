//! A port with a rate passes that much and no more, in each direction, from the moment it is set.

use crate::lab::*;
use model::{id::PortId, network::NetworkKind};
use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

const DATAGRAM: usize = 1200;
const DATAGRAMS: usize = 4000;
const RATE_BYTES: f64 = 125_000.0;
/// What a port may send at once (`model::dataplane::network`).
const BURST_BYTES: f64 = 262_144.0;
/// With the headers of IP and UDP, and of the link.
const FRAME: f64 = (DATAGRAM + 8 + 40 + 14) as f64;
const TRIES: usize = 30;
const QUIET: Duration = Duration::from_millis(300);

fn set_rate(lab: &mut Lab, cloud: usize, port: PortId, rate_mbit: Option<u32>) {
    let ports = &mut lab.clouds[cloud].view.ports;
    ports.iter_mut().find(|p| p.meta.id == port).expect("the port is in its network").rate_mbit = rate_mbit;
    lab.apply();
}

/// Sends all at once; gives the bytes that came and the seconds from the first to the last that could have.
fn flood(from: &Guest, to: &Guest, at: SocketAddr) -> (f64, f64) {
    let receiver = to.namespace.run(|| UdpSocket::bind(at)).unwrap().unwrap();
    let sender = from.namespace.run(|| UdpSocket::bind((from.v4(), 0))).unwrap().unwrap();
    receiver.set_read_timeout(Some(QUIET)).unwrap();
    let start = Instant::now();
    let counting = thread::spawn(move || {
        let mut buffer = [0; DATAGRAM];
        let mut bytes = 0.0;
        while receiver.recv(&mut buffer).is_ok() {
            bytes += FRAME;
        }
        (bytes, start.elapsed().as_secs_f64())
    });
    for _ in 0..DATAGRAMS {
        let _ = sender.send_to(&[7; DATAGRAM], at);
    }
    counting.join().unwrap()
}

/// Without a limit far more comes than a port with one lets pass. How much the receiver takes in depends on how busy the
/// machine is, so several tries are good.
fn passes_freely(from: &Guest, to: &Guest, at: SocketAddr) -> bool {
    (0..TRIES).any(|_| flood(from, to, at).0 > 3.0 * BURST_BYTES)
}

#[test]
fn a_port_passes_no_more_than_its_rate_in_each_direction() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let group = lab.group(cloud, open());
    let one = lab.guest(cloud, 4, &[group]).configure();
    let two = lab.guest(cloud, 5, &[group]).configure();
    assert!(ping(&one.namespace, two.v4(), PATIENCE));
    let at = SocketAddr::new(two.v4(), 9);
    assert!(passes_freely(&one, &two, at), "nothing limits them at first");
    for limited in [one.port.meta.id, two.port.meta.id] {
        set_rate(&mut lab, cloud, limited, Some(1));
        let (some, seconds) = flood(&one, &two, at);
        let most = (BURST_BYTES + RATE_BYTES * seconds) * 1.1;
        assert!(some > 0.0 && some <= most, "{some} bytes came in {seconds} s, {most} may");
        set_rate(&mut lab, cloud, limited, None);
    }
    assert!(passes_freely(&one, &two, at), "the limit is gone");
}
