//! holm as a whole, proven on real guests, containers, packets and files.

mod command_line;
mod container;
mod cut_off;
mod debian;
mod distribution;
mod docker;
mod fault;
mod image;
mod neighbour;
mod openstack;
mod power;
mod published;
mod security;
mod size;
mod story;
mod vm;
mod volume;
