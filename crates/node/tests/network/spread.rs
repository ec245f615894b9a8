//! Addresses that are spread over several guests: who answers, whom these see, and who is kept out.

use crate::lab::*;
use model::{
    dataplane::view::SpreadView, network::NetworkKind, port::spread::SpreadPort, security_group::Protocol,
};
use node::network::conntrack;
use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
};

const V4: &str = "10.0.0.200";
const V6: &str = "fd00:a::c8";

/// A server that says its own address and then echoes.
fn serve_name(guest: &Guest, address: IpAddr) {
    let at = SocketAddr::new(address, 8080);
    let listener = guest.namespace.run(|| TcpListener::bind(at)).unwrap().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                let mut said = stream.write_all(format!("{address}\n").as_bytes());
                while said.is_ok() {
                    match stream.read(&mut buffer) {
                        Ok(length) if length > 0 => said = stream.write_all(&buffer[..length]),
                        _ => return,
                    }
                }
            });
        }
    });
}

fn spread_over(lab: &mut Lab, cloud: usize, guests: &[&Guest]) {
    let port = |protocol, port, to| SpreadPort { protocol, port, to };
    lab.clouds[cloud].view.spreads = vec![SpreadView {
        addresses: vec![address(V4), address(V6)],
        ports: vec![port(Protocol::TCP, 80, 8080), port(Protocol::UDP, 53, 5300)],
        targets: guests.iter().flat_map(|guest| [guest.v4(), guest.v6()]).collect(),
    }];
    lab.apply();
}

fn ask(from: &sys::netns::NetNs, at: &str) -> std::io::Result<(TcpStream, IpAddr)> {
    connect(from, SocketAddr::new(address(at), 80), PATIENCE)
}

/// Those who answer at an address.
fn answers(from: &sys::netns::NetNs, at: &str) -> BTreeSet<IpAddr> {
    (0..4).map(|_| ask(from, at).unwrap_or_else(|e| panic!("{at}: {e}")).1).collect()
}

#[test]
fn what_comes_to_an_address_goes_in_turn_to_those_behind_it() {
    let mut lab = Lab::new();
    lab.external(None, false);
    let cloud = lab.cloud(NetworkKind::Private, Some(["203.0.113.10", "2001:db8:f::10"]));
    let group = lab.group(cloud, open());
    let servers = [lab.guest(cloud, 4, &[group]).configure(), lab.guest(cloud, 5, &[group]).configure()];
    let client = lab.guest(cloud, 6, &[group]).configure();
    for server in &servers {
        [server.v4(), server.v6()].into_iter().for_each(|ip| serve_name(server, ip));
        serve_udp(&server.namespace, SocketAddr::new(server.v4(), 5300));
    }
    let all: Vec<&Guest> = servers.iter().collect();
    spread_over(&mut lab, cloud, &all);
    let both = [V4, V6].map(|at| {
        let v4 = address(at).is_ipv4();
        servers.iter().map(|s| if v4 { s.v4() } else { s.v6() }).collect::<BTreeSet<IpAddr>>()
    });
    for (at, both) in [V4, V6].iter().zip(&both) {
        assert_eq!(answers(&client.namespace, at), *both, "{at}");
        assert_eq!(answers(&servers[0].namespace, at), *both, "{at}: one of them asks, and meets itself too");
        assert!(ping(&client.namespace, address(at), PATIENCE), "{at}: the address itself answers");
    }
    let seen = ask_udp(&client.namespace, SocketAddr::new(address(V4), 53), PATIENCE).expect("UDP");
    assert_eq!(seen, client.v4(), "guests are seen as they are");

    // From outside by a floating IP of the address.
    let port = lab.port(cloud, 200, &[]);
    lab.clouds[cloud].view.ports.retain(|known| known.meta.id != port.meta.id);
    lab.clouds[cloud].view.attachments.remove(&port.meta.id);
    lab.floating("203.0.113.50", Some((cloud, &port)));
    lab.apply();
    assert_eq!(answers(&lab.outside, "203.0.113.50"), both[0]);

    // One that is taken out finishes what it began and gets nothing more.
    let mut streams: Vec<(TcpStream, IpAddr)> = (0..2).map(|_| ask(&client.namespace, V4).unwrap()).collect();
    spread_over(&mut lab, cloud, &all[1..]);
    assert_eq!(answers(&client.namespace, V4), BTreeSet::from([servers[1].v4()]));
    let namespace = lab.dataplane.namespace(lab.place(cloud)).unwrap();
    assert_eq!(conntrack::revoke(&namespace, &lab.clouds[cloud].view).unwrap(), 0, "all is allowed");
    assert!(streams.iter_mut().all(|(stream, _)| echoes(stream, PATIENCE)));

    // What their groups forbid is over for those too who came by the address.
    lab.set_rules(cloud, group, out());
    lab.apply();
    assert!(conntrack::revoke(&namespace, &lab.clouds[cloud].view).unwrap() >= 2);
    assert!(streams.iter_mut().all(|(stream, _)| !echoes(stream, SILENCE)));
    let kept_out = connect(&client.namespace, SocketAddr::new(address(V4), 80), SILENCE);
    assert_eq!(kept_out.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn where_nobody_is_ready_it_is_said_at_once() {
    let mut lab = Lab::new();
    let cloud = lab.cloud(NetworkKind::Private, None);
    let group = lab.group(cloud, open());
    let server = lab.guest(cloud, 4, &[group]).configure();
    let client = lab.guest(cloud, 6, &[group]).configure();
    [server.v4(), server.v6()].into_iter().for_each(|ip| serve_name(&server, ip));
    let refused = |at: &str, port: u16| {
        let refused = connect(&client.namespace, SocketAddr::new(address(at), port), PATIENCE);
        refused.expect_err(at).kind() == ErrorKind::ConnectionRefused
    };
    spread_over(&mut lab, cloud, &[]);
    assert!(refused(V4, 80) && refused(V6, 80), "nobody is ready");
    spread_over(&mut lab, cloud, &[&server]);
    assert!(refused(V4, 8080) && refused(V6, 8080), "a port that is not named");
    assert_eq!(answers(&client.namespace, V4), BTreeSet::from([server.v4()]));
    lab.clouds[cloud].view.spreads.clear();
    lab.apply();
    let gone = connect(&client.namespace, SocketAddr::new(address(V4), 80), SILENCE);
    assert!(gone.is_err(), "the address went with its port");
}
