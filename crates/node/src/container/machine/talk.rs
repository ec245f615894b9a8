//! What relay and guest say to each other. The two are always of one version: the guest's init is a copy of the relay's
//! program.
//!
//! ```text
//!  guest               relay
//!  Hello ────────────▶
//!        ◀──────────── Order                         disks, network, pod
//!  Prepared ─────────▶
//!        ◀──────────── Line (early) …  Run            who attached before the start, then the shim is started
//!  Line, Log ◀──────▶ Line, Closed, Dial, Processes   as long as it runs
//!  Ended ────────────▶
//!        ◀──────────── Bye                            all that was said has come: the guest powers off
//! ```
//!
//! In a machine that is there for work on files no shim is started: after Prepared come Files, and in the end Bye.

use super::{link::ChannelId, order::Order};
use crate::{
    container::files::work::Work,
    driver::{ProcessSeen, Usage},
};
use model::{id::PortId, plan::NicPlan};
use serde::{Deserialize, Serialize};

/// A connection to the shim's socket, as the relay numbers them. 0 is the one by which the guest watches.
pub type ConnectionId = u64;

/// What the relay says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum ToGuest {
    /// What is to run.
    Order(Box<Order>),
    /// Everybody who attached is told: the shim is to be started.
    Run,
    /// A request to the shim, without its line's end.
    Line {
        /// Whose it is.
        connection: ConnectionId,
        /// The request.
        line: String,
        /// The descriptors that come along: the first is read from inside, the others are written to.
        streams: Vec<ChannelId>,
        /// It is there before the shim is.
        early: bool,
    },
    /// A client of the shim is gone.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
    /// Connects to a port of the pod's.
    Dial {
        /// Who asks.
        connection: ConnectionId,
        /// The port.
        port: u16,
        /// Milliseconds that it may take.
        limit_ms: u64,
        /// Where the stream is to lead.
        channel: ChannelId,
    },
    /// Asks for the processes of the pod.
    Processes {
        /// Who asks.
        connection: ConnectionId,
    },
    /// Asks what the pod uses.
    Usage {
        /// Who asks.
        connection: ConnectionId,
    },
    /// Works on the files of the pod's first container.
    Files {
        /// Who asks.
        connection: ConnectionId,
        /// What is to be done.
        work: Work,
        /// What goes in comes on this channel.
        input: ChannelId,
        /// The answer goes out on this one.
        output: ChannelId,
    },
    /// A network card was plugged in. The answer is a line for who asked.
    Plug {
        /// Who asks.
        connection: ConnectionId,
        /// What it is to become.
        nic: Box<NicPlan>,
    },
    /// A network card is about to be plugged out. The answer is a line, too.
    Unplug {
        /// Who asks.
        connection: ConnectionId,
        /// Its port.
        port: PortId,
    },
    /// Everything has come.
    Bye,
}

/// What the guest says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum ToHost {
    /// It has booted.
    Hello {
        /// Release of its kernel (uname(2)).
        kernel: String,
    },
    /// Disks, network and files are there.
    Prepared,
    /// It cannot run the pod.
    Failed {
        /// Why.
        message: String,
    },
    /// A reply of the shim, without its line's end.
    Line {
        /// To whom.
        connection: ConnectionId,
        /// The reply.
        line: String,
        /// The descriptor that comes along, both ways.
        stream: Option<ChannelId>,
    },
    /// The shim let a client go.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
    /// A container's output will come on this channel: its name, then records.
    Log {
        /// The channel.
        channel: ChannelId,
    },
    /// A connection to a port was made, or why not.
    Dialled {
        /// Who asked.
        connection: ConnectionId,
        /// The channel that was to be used.
        channel: ChannelId,
        /// Why it was not made.
        error: Option<String>,
    },
    /// The processes of the pod.
    Processes {
        /// Who asked.
        connection: ConnectionId,
        /// They.
        processes: Vec<ProcessSeen>,
    },
    /// What the pod uses.
    Usage {
        /// Who asked.
        connection: ConnectionId,
        /// It.
        usage: Usage,
    },
    /// The shim has ended.
    Ended,
}

impl ToHost {
    /// The client that it is for, if it is for one.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Line { connection, .. }
            | Self::Closed { connection }
            | Self::Dialled { connection, .. }
            | Self::Processes { connection, .. }
            | Self::Usage { connection, .. } => Some(*connection),
            Self::Hello { .. } | Self::Prepared | Self::Failed { .. } | Self::Log { .. } | Self::Ended => {
                None
            }
        }
    }
}
