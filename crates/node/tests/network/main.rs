//! The network with real packets: every namespace is made by the test, the machine's own is never touched.

mod flows;
mod host;
mod isolation;
mod lab;
mod messages;
mod nat;
mod published;
mod rate;
mod routing;
mod segments;
mod services;
mod spread;
