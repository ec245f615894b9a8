//! Virtual machines proven with real QEMU and the micro guest, emulated: what the driver promises is seen from inside the
//! guest, in /proc and in the monitor.

mod confinement;
mod hotplug;
mod lab;
mod lifecycle;
mod survival;
