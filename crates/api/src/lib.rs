//! Doors: the native API and its client, the OpenStack API ([`openstack`]) and Docker's Engine API ([`docker`]).
//!
//! A door translates a dialect into the cloud's actions and back. It decides nothing, keeps no state beside what is
//! on its way, and never talks to a node: what must reach a guest goes through [`streams::Streams`].
//!
//! ```text
//!   server (unix, TLS) -> app::frame (id, limits, who) -> v1 handlers -> control -> store
//!                                                              \-> streams::Streams -> guests
//! ```
//!
//! How a daemon opens it:
//! ```no_run
//! # async fn open(control: control::Control, guests: std::sync::Arc<dyn api::streams::Streams>)
//! # -> Result<(), api::server::ServerError> {
//! use api::{App, auth::LocalAccess, server::{tls, unix}};
//! let stopping = tokio_util::sync::CancellationToken::new();
//! let local = LocalAccess { own_uid: 0, group_role: control::Role::Member };
//! let router = api::v1::router(App::new(control, guests, local, stopping.clone()));
//!
//! let access = unix::SocketAccess { gid: None };
//! let socket = unix::UnixServer::bind("/run/holm/holm.sock".as_ref(), access).await?;
//! tokio::spawn(socket.serve(router.clone(), stopping.clone()));
//!
//! let files = tls::CertificateFiles::in_directory("/var/lib/holm/tls".as_ref());
//! files.ensure(&["localhost".to_string()])?;
//! let certificate = files.load()?;
//! println!("fingerprint {}", certificate.fingerprint);
//! let server = tls::TlsServer::bind(([0, 0, 0, 0], 7788).into(), certificate)?;
//! tokio::spawn(server.serve(router, stopping));
//! # Ok(()) }
//! ```

// Answers in docker's form are JSON with more fields than the macro that writes them expects.
#![recursion_limit = "256"]

pub mod app;
pub mod auth;
pub mod client;
pub mod docker;
pub mod error;
pub mod frame;
pub mod image_server;
pub mod limits;
pub mod openstack;
mod pool;
pub mod request;
mod routing;
pub mod server;
pub mod streams;
pub mod v1;

pub use app::App;
