//! Nouns and rules of the cloud: everything that can be decided without touching the world.
//!
//! This crate is pure. It does no I/O, reads no clock, rolls no dice and knows no async: time, randomness and
//! what was observed come in as arguments. What users see is computed here from records that others wrote.

pub mod address;
pub mod address_scope;
pub mod application_credential;
pub mod assignment;
pub mod dataplane;
pub mod deployment;
pub mod dockerfile;
pub mod domain;
pub mod error;
pub mod exposure;
pub mod flavor;
pub mod floating_ip;
pub mod group;
pub mod health;
pub mod id;
pub mod image;
pub mod image_digest;
pub mod image_format;
pub mod image_manifest;
pub mod image_reference;
pub mod instance;
pub mod keypair;
pub mod kube;
pub mod meta;
pub mod metadata;
pub mod name;
pub mod network;
pub mod node;
pub mod operation;
pub mod plan;
pub mod port;
pub mod project;
pub mod publish;
pub mod quota;
pub mod record;
pub mod role;
pub mod router;
pub mod schedule;
pub mod seal;
pub mod security_group;
pub mod server_group;
pub mod simplestreams;
pub mod snapshot;
pub mod subnet;
pub mod subnet_pool;
pub mod usage;
pub mod user;
pub mod volume;
pub mod volume_type;
