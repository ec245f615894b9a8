//! Ports that programs of the host listen on: what holm must not take from its owner.
//!
//! A published port is translated before the host's own sockets are asked, so publishing port 22 would take SSH away
//! from whoever needs it to mend that. What is listened on before is therefore left alone.

use model::{
    publish::{Publish, addresses_meet},
    security_group::Protocol,
};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use sys::netns::NetNs;

/// State of a listening TCP socket and of an unconnected UDP socket, as proc(5) writes them.
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";
/// Above, UDP sockets are mostly those of clients that come and go.
const UDP_SERVER_PORT_MAX: u16 = 32767;

/// A socket of the host that waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address; unspecified for all.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

impl Listener {
    /// Whether publishing would take packets from it.
    pub fn meets(&self, publish: &Publish) -> bool {
        // An IPv6 socket on all addresses takes IPv4 as well, as a rule.
        let everywhere = self.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        self.protocol == publish.protocol
            && self.port == publish.host_port
            && (everywhere || addresses_meet(Some(self.address), publish.address))
    }
}

/// All listeners of a namespace.
///
/// # Errors
/// When /proc cannot be read.
pub fn listeners(host: &NetNs) -> io::Result<Vec<Listener>> {
    host.run(|| {
        let mut all = Vec::new();
        for (file, protocol, state) in [
            ("tcp", Protocol::TCP, LISTENING),
            ("tcp6", Protocol::TCP, LISTENING),
            ("udp", Protocol::UDP, UNCONNECTED),
            ("udp6", Protocol::UDP, UNCONNECTED),
        ] {
            match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
                Ok(text) => all.extend(parse(&text, protocol, state)),
                // A host without IPv6 has no such file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    })?
}

fn parse(text: &str, protocol: Protocol, state: &str) -> Vec<Listener> {
    let listener = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _, now) = (words.next()?, words.next()?, words.next()?);
        let (address, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let fits = now == state && (protocol != Protocol::UDP || port <= UDP_SERVER_PORT_MAX);
        fits.then_some(Listener { protocol, address: parse_address(address)?, port })
    };
    text.lines().skip(1).filter_map(listener).collect()
}

/// The kernel writes each 32 bits as a number in the machine's own order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let number = u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(number.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut octets = [0u8; 16];
            for at in 0..4 {
                octets[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "  sl  local_address rem_address   st tx_queue\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:1F91 0200007F:A000 01 00000000:00000000\n\
            2: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A x\n\
            nonsense\n";
        let found = parse(text, Protocol::TCP, LISTENING);
        let addresses: Vec<String> = found.iter().map(|l| format!("{} {}", l.address, l.port)).collect();
        assert_eq!(addresses, ["127.0.0.1 8080", "::1 22"]);
    }
}
