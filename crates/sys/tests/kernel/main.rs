//! The kernel rooms against the real kernel: namespaces, packets, processes, mounts and control groups made for the test and
//! gone with it. Needs root, and fails without.

mod cgroup;
mod conntrack;
mod devices;
mod fdpass;
mod file;
mod guard;
mod mount;
mod netlink;
mod netns;
mod nft;
mod packet;
mod spawn;
mod terminal;
