//! The OpenStack door as clients meet it: a cloud on a store in memory, a fake node behind it, calls without sockets.

mod cloud;
mod compute;
mod discovery;
mod frame;
#[path = "../door/house.rs"]
#[allow(dead_code, reason = "the native door's tests use the rest of the house")]
mod house;
mod identity;
mod image;
mod network;
mod operations;
mod placement;
mod reads;
mod room;
mod volume;
