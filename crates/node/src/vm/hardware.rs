//! What this host gives to machines, whoever starts them: QEMU's own facts, and the judgement on KVM. Asked once and kept.

use super::{
    accel::{self, Judgement},
    host::Host,
    machine::HostFacts,
};
use crate::driver::DriverError;
use std::path::{Path, PathBuf};
use tokio::{sync::OnceCell, task::spawn_blocking};

/// The host's hardware for machines.
#[derive(Debug)]
pub struct Hardware {
    host: Host,
    accelerator_cache: PathBuf,
    judgement: OnceCell<Judgement>,
}

impl Hardware {
    /// QEMU at `qemu`, or where distributions put it, and the file in which the judgement on KVM is kept. Nothing is looked
    /// at yet.
    pub fn new(qemu: Option<PathBuf>, accelerator_cache: PathBuf) -> Self {
        Self { host: Host::new(qemu), accelerator_cache, judgement: OnceCell::new() }
    }

    /// What QEMU offers.
    ///
    /// # Errors
    /// `Missing` without QEMU.
    pub async fn facts(&self) -> Result<HostFacts, DriverError> {
        self.host.facts().await
    }

    /// The judgement, where it was asked for before.
    pub fn judged(&self) -> Option<&Judgement> {
        self.judgement.get()
    }

    /// The judgement on KVM, with the words for users.
    pub async fn judgement(&self) -> &Judgement {
        let cache = self.accelerator_cache.clone();
        let judge = || async move {
            let judging = spawn_blocking(move || accel::judge(Path::new("/dev/kvm"), &cache)).await;
            judging.expect("judging does not panic")
        };
        self.judgement.get_or_init(judge).await
    }
}
