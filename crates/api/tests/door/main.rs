//! The door as clients meet it: real sockets, real TLS, a cloud on a store in memory, and a fake node behind it.

mod access;
mod advice;
mod audit;
mod docker;
mod document;
mod errors;
mod exposed;
mod follow;
mod house;
mod instances;
mod listen;
mod nouns;
mod refusals;
mod scale;
mod sessions;
mod upload;
