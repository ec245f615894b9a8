//! Images on this host: content by digest, unpacked layers, and the ways in and out.
//!
//! ```text
//! registry ─┐                       ┌─ layers  ─→ rootfs  (containers)
//! layout   ─┴─→ blobs ─→ stored ────┤
//! file, stream ─────────────────────┴─ disk               (virtual machines)
//! ```
//!
//! Whatever comes in was made by a stranger: every document, archive and disk is checked against its digest and its
//! limits before anything uses it. What is still needed is told to the collectors; nothing here guesses it.

pub mod blobs;
pub mod cancel;
pub mod collect;
pub mod compression;
pub mod content;
pub mod disk;
pub mod disk_format;
pub mod download;
pub mod holder;
mod import;
pub mod layer_tree;
pub mod layers;
pub mod layout;
pub mod lent;
mod of_volume;
pub mod offer;
pub mod pipe;
pub mod reconcile;
pub mod registry;
pub mod rootfs;
pub mod sandbox;
pub(crate) mod shifted_copy;
pub mod source;
mod squashfs;
pub mod stored;
mod streams_server;
pub mod tar;
pub mod tar_writer;
pub mod tree_removal;
mod unpacker;
mod upload;
pub(crate) mod walk;
mod xz;

#[cfg(test)]
mod testing;
