//! Spreading: an address of a network behind which any of several instances answers.
//!
//! A port that no instance uses may say that what comes to its addresses goes on to the ports of its network with some
//! alias, in turn: one address for all copies of a service, however often these are replaced. Those alone are led to whose
//! instances run and are ready, and their own security groups decide who gets in.

use super::alias::Alias;
use crate::security_group::Protocol;
use serde::{Deserialize, Serialize};

/// Most ports of one address that are spread.
pub const SPREAD_PORTS_MAX: usize = 64;

/// What becomes of packets to the addresses of a port that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// Alias of the ports that they go on to.
    pub over: Alias,
    /// Which packets.
    pub ports: Vec<SpreadPort>,
}

/// A port number that is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpreadPort {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Asked for.
    pub port: u16,
    /// Where it is answered.
    pub to: u16,
}

/// Why something cannot be spread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpreadError {
    /// Nothing or too much.
    #[error("{0} ports to spread: 1 to {SPREAD_PORTS_MAX} are possible")]
    Count(usize),
    /// A port is 0.
    #[error("a port that is spread is a number from 1 to 65535")]
    NoPort,
    /// Another protocol.
    #[error("{0} has no ports that could be spread: tcp, udp and sctp have")]
    Protocol(Protocol),
    /// Two entries want the same.
    #[error("{0}/{1} is spread twice")]
    Twice(u16, Protocol),
}

impl Spread {
    /// Checks all of it.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), SpreadError> {
        if !(1..=SPREAD_PORTS_MAX).contains(&self.ports.len()) {
            return Err(SpreadError::Count(self.ports.len()));
        }
        for (number, one) in self.ports.iter().enumerate() {
            if one.port == 0 || one.to == 0 {
                return Err(SpreadError::NoPort);
            }
            if ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&one.protocol) {
                return Err(SpreadError::Protocol(one.protocol));
            }
            let is_same = |other: &SpreadPort| (other.protocol, other.port) == (one.protocol, one.port);
            if self.ports[..number].iter().any(is_same) {
                return Err(SpreadError::Twice(one.port, one.protocol));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spread_is_checked() {
        let one = |protocol, port, to| SpreadPort { protocol, port, to };
        let check = |ports: &[SpreadPort]| {
            Spread { over: "shop.pods".parse().unwrap(), ports: ports.to_vec() }.check()
        };
        let many: Vec<SpreadPort> = (1..=65).map(|n| one(Protocol::TCP, n, 80)).collect();
        for (ports, wanted) in [
            (&[one(Protocol::TCP, 80, 8080), one(Protocol::UDP, 80, 80)][..], Ok(())),
            (&many[..64], Ok(())),
            (&many, Err(SpreadError::Count(65))),
            (&[], Err(SpreadError::Count(0))),
            (&[one(Protocol::TCP, 0, 80)], Err(SpreadError::NoPort)),
            (&[one(Protocol::TCP, 80, 0)], Err(SpreadError::NoPort)),
            (&[one(Protocol::ICMP, 80, 80)], Err(SpreadError::Protocol(Protocol::ICMP))),
            (
                &[one(Protocol::TCP, 80, 1), one(Protocol::TCP, 80, 2)],
                Err(SpreadError::Twice(80, Protocol::TCP)),
            ),
        ] {
            assert_eq!(check(ports), wanted, "{ports:?}");
        }
    }
}
