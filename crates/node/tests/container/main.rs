//! Pods on the real kernel: every promise about a container is looked at from inside and from outside.

mod confinement;
mod lab;
mod lifecycle;
mod machine;
mod network;
mod root_disk;
mod streams;
mod system;
