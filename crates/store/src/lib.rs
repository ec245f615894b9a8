//! Memory: revisioned keys, compare-and-commit transactions, watches and leases behind one trait.
//!
//! ```text
//!   control, node ── Tx ──► Store ── Txn ──► Engine (sqlite | memory | later etcd)
//!         ▲                                    │ watch
//!         └────────── reads ◄── Mirror ◄───────┘
//! ```
//!
//! - [`Store`] is what the rest of the house holds: [`Store::commit`] writes, every read is answered by the
//!   [`Mirror`] in memory, [`Store::subscribe`] says what changed.
//! - [`Tx`] gathers typed changes that happen together or not at all: records, unique claims, counters.
//! - [`engine::Engine`] is the line below which SQL (and etcd) live; [`conformance`] proves an engine.
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! use store::{Error, Index, Memory, Record, Schema, Store, Tx};
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Server { id: String, project: String, name: String }
//! impl Record for Server {
//!     const TABLE: &'static str = "server";
//!     fn key(&self) -> String { self.id.clone() }
//! }
//! const BY_PROJECT: Index<Server> = Index::new("project", |server| vec![server.project.clone()]);
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Error> {
//! let store = Store::open(std::sync::Arc::new(Memory::new()), Schema::new().index(BY_PROJECT)).await?;
//! let server = Server { id: "17".into(), project: "p1".into(), name: "web".into() };
//! let mut tx = Tx::new();
//! tx.create(&server)
//!     .claim("server-name/p1", &server.name, &server.id) // or Error::Taken { owner, .. }
//!     .count("p1", "servers", 1, Some(10)); //                or Error::Exceeded { used, limit, .. }
//! store.commit(tx).await?;
//!
//! let stored = store.get::<Server>("17").expect("the mirror shows what was committed");
//! assert_eq!((stored.name.as_str(), store.by_index(&BY_PROJECT, "p1").len()), ("web", 1));
//! let mut tx = Tx::new();
//! tx.delete::<Server>("17", stored.mod_revision) //            or Error::Conflict { found, .. }
//!     .release("server-name/p1", "web", "17")
//!     .count("p1", "servers", -1, None);
//! store.commit(tx).await?;
//! # Ok(()) }
//! ```
//!
//! An etcd engine is a second module beside [`sqlite`] that implements [`engine::Engine`] and passes
//! [`conformance`]; limits in [`engine`] are chosen so that etcd can keep them (`--max-txn-ops=512`).
//!
//! Nothing in here may know a noun; records come in through [`model::record::Record`].

pub mod conformance;
pub mod engine;
mod envelope;
mod error;
mod key;
mod memory;
mod mirror;
mod quota;
pub mod sqlite;
mod store;
mod tx;

pub use engine::Revision;
pub use envelope::{DecodeError, decode, encode};
pub use error::{Error, Result};
pub use key::{RECORD_ROOT, UNIQUE_ROOT, record_key, unique_key};
pub use memory::Memory;
pub use mirror::{Change, Changes, Corrupt, Health, Index, Mirror, Schema, Stored, View};
pub use model::record::Record;
pub use quota::{Counter, counter_key};
pub use sqlite::Sqlite;
pub use store::Store;
pub use tx::Tx;
