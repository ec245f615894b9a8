//! The wire types of the native API, one file per noun: requests as clients send them, views as clients get them.
//!
//! Requests refuse unknown fields by name. A field that names another thing takes its name, its id or a unique
//! beginning of its id. Views carry ids and names of what they refer to, so that no client has to look them up.
//! These types must never be stored and never reach another dialect.

pub mod advice;
pub mod build;
pub mod deployment;
pub mod error;
pub mod event;
pub mod flavor;
pub mod floating_ip;
pub mod head;
pub mod health;
pub mod image;
pub mod instance;
pub mod keypair;
pub mod list;
pub mod network;
pub mod node;
pub mod operation;
pub mod patch;
pub mod pod;
pub mod port;
pub mod project;
pub mod publish;
pub mod quota;
pub mod restart;
pub mod router;
pub mod schema;
pub mod security_group;
pub mod server_group;
pub mod snapshot;
pub mod stream;
pub mod subnet;
pub mod subnet_pool;
pub mod token;
pub mod version;
pub mod volume;

pub use error::{ErrorBody, ErrorDetail, Fault};
pub use head::{Head, Reference};
pub use list::List;
