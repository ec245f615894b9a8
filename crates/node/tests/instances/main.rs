//! The life of instances, from a caller's wish to the driver, on a store in memory, a fake host and a paused clock.

mod crash;
mod engine;
mod fault;
mod lab;
mod life;
mod plug;
mod random;
mod renew;
