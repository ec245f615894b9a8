//! A cloud to be proven by packets, bytes and processes: the real daemon, real guests, a world around them.
//!
//! A [`Lab`] is one machine with holm on it, an outside beside it and an internet beyond. Each lab is alone: its own
//! namespaces, directories and control groups, told apart by a random prefix, so labs run beside each other and beside
//! a holm of the machine's owner. Nothing is left when a lab goes, not even after a failed test; a test that passed
//! also proves ([`Lab::finish`]) that holm itself left nothing.
//!
//! Tests must fail, never skip, when something that they need is missing, and never send a packet anywhere but on
//! loopback and in namespaces of the lab.

mod capture;
mod cloud;
mod daemon;
mod docker;
mod firewalls;
mod images;
mod registry;
mod remains;
mod setting;
mod streams;
mod wait;
mod world;

pub use capture::Capture;
pub use cloud::{Cloud, v4_of, v6_of};
pub use daemon::{Daemon, program};
pub use docker::{Compose, Docker, Said};
pub use firewalls::Firewalls;
pub use images::Images;
pub use registry::Registry;
pub use remains::{Remains, sweep_dead_labs};
pub use setting::{Lab, Options};
pub use streams::{Console, Ran};
pub use wait::{eventually, until};
pub use world::{
    CLIENT, FRIEND, INTERNET, INTERNET_V6, MACHINE, Watch, World, ask_udp, can_connect, connect, echo_server,
    http_get, ping, udp_server,
};
