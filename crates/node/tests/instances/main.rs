//! The life of instances, from a caller's wish to the driver, on a store in memory, a fake host and a paused clock.

mod alias;
mod crash;
mod engine;
mod fault;
mod health;
mod lab;
mod life;
mod loan;
mod plug;
mod random;
mod renew;
mod rescue;
mod succession;
