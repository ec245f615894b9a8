//! Virtual machines: QEMU, driven by its monitor.
//!
//! ```text
//!  driver ─┬─ power, sight           starting and stopping; what is found
//!          ├─ accel, host, machine   what runs guests here, and the hardware of one boot; hardware keeps the answers
//!          ├─ argv, device           the command line: pure, with golden files
//!          ├─ config_drive, iso9660  the disk with the guest's metadata
//!          ├─ launch, files          starting QEMU confined; where its files stand
//!          ├─ guest, qmp, agent      the link to a running QEMU: monitor and guest agent
//!          ├─ hotplug                disks and cards in and out of a running VM
//!          ├─ sleep                  memory on disk, and back
//!          └─ console                the serial console, shared
//! ```

pub mod accel;
pub mod agent;
pub mod argv;
pub mod config_drive;
pub mod console;
pub mod device;
pub mod disk_traffic;
pub mod driver;
pub mod files;
pub mod guest;
pub mod hardware;
pub mod host;
pub mod hotplug;
pub mod iso9660;
pub mod launch;
pub mod layer;
mod login;
pub mod machine;
mod power;
pub mod qmp;
mod sight;
pub mod sleep;
