//! Images and volumes as the node keeps them: real files, the real qemu-img, a store in memory.

mod collect;
mod directory;
mod import;
mod lab;
mod layers;
mod upload;
mod volume;
