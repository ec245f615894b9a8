//! Fixtures made by code, and the tests that need more than one file of this module.

mod asks;
mod disks;
pub mod faulty;
pub mod fixture;
mod layers;
mod layouts;
mod reach;
mod registries;
mod rootfs;
