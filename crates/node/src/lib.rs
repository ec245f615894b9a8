//! Hands: makes this host match the store.
//!
//! ```text
//!   agent     the loops, and which change wakes which key
//!   network   namespaces, packets, and the services that guests find in them
//!   image     bytes of images: registries, blobs, layers, disks
//!   volume    files of disks
//!   instance  from records to a plan, and one step at a time towards the wish
//!   health    checks of containers, again and again
//!   driver    the line to what runs instances: vm (QEMU), container (shim), fake (memory)
//!   host      this host as it tells of itself
//!   room      free space, looked at before bytes come
//! ```

pub mod agent;
pub mod container;
pub mod driver;
pub mod fake;
pub mod health;
pub mod host;
pub mod image;
pub mod instance;
pub mod network;
pub mod room;
pub mod vm;
pub mod volume;
