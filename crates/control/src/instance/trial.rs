//! Another size on trial: the guest starts anew with it, and its user confirms it or has the old one back.

use super::{
    action::refuse_locked, charges, placement::Needs, rebuild::refuse_unsettled, resize::refuse_own_disk,
};
use crate::{Caller, Control, Error, Result, transact::Transaction};
use model::{
    error::Code,
    flavor::Size,
    instance::{
        Instance, Kind, Power,
        trial::{Trial, larger},
    },
    node::Node,
    quota::Resource,
    volume::Volume,
};

impl Control {
    /// Gives an instance another flavor on trial. One that runs starts anew.
    ///
    /// # Errors
    /// `invalid` for the flavor that it has or a smaller disk, `conflict` while another is on trial, `quota_exceeded`,
    /// `no_capacity`, `not_found`, `forbidden`.
    pub async fn try_size(&self, caller: &Caller, reference: &str, flavor: &str) -> Result<Instance> {
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, "resizing an instance")?;
            let old = &found.record;
            refuse_locked(caller, old)?;
            refuse_unsettled(old)?;
            let owner = Caller { project: old.meta.project, ..caller.clone() };
            let (flavor, flavor_name, mut size) = self.size_asked(&owner, Some(flavor), None, None, None)?;
            if flavor == old.flavor && size == old.size {
                let message = format!("{} has the flavor {flavor_name} already", old.meta.name);
                return Err(Error::invalid("flavor", message).hint("`holm flavor list` shows the others"));
            }
            let disk_more_gib = self.disk_growth(old, &mut size)?;
            self.refuse_without_room(old, size)?;
            let mut next = old.clone();
            next.trial = Some(Trial {
                size: old.size,
                flavor: old.flavor,
                flavor_name: old.flavor_name.clone(),
                boot: old.boots + u64::from(old.power != Power::Off),
                disk_more_gib,
                since: self.now(),
            });
            (next.flavor, next.flavor_name, next.size) = (flavor, flavor_name, size);
            self.charge_change(tx, old, old.size, larger(old.size, size));
            self.charge(tx, old.meta.project, &[(Resource::VolumeGib, disk_more_gib.cast_signed())]);
            start_anew(&mut next);
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// Keeps the size on trial. The root disk grows now, while the guest runs.
    ///
    /// # Errors
    /// `conflict` if none is on trial, `not_found`, `forbidden`.
    pub async fn confirm_size(&self, caller: &Caller, reference: &str) -> Result<Instance> {
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, "confirming a size")?;
            let old = &found.record;
            let trial = trial_of(caller, old)?;
            let mut next = old.clone();
            next.trial = None;
            self.charge_change(tx, old, old.charged(), next.size);
            if trial.disk_more_gib > 0
                && let Some(root) = old.volumes.first().and_then(|id| self.get::<Volume>(*id))
            {
                let mut grown = root.record.clone();
                grown.size_gib += trial.disk_more_gib;
                grown.meta.touch(self.now());
                tx.update(&root, &grown);
            }
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// Takes the size on trial back. An instance that runs starts anew with the old one.
    ///
    /// # Errors
    /// `conflict` if none is on trial, `not_found`, `forbidden`.
    pub async fn revert_size(&self, caller: &Caller, reference: &str) -> Result<Instance> {
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, "taking a size back")?;
            let old = &found.record;
            let trial = trial_of(caller, old)?;
            let mut next = old.clone();
            (next.size, next.flavor, next.flavor_name) =
                (trial.size, trial.flavor, trial.flavor_name.clone());
            next.trial = None;
            self.charge_change(tx, old, old.charged(), next.size);
            self.charge(tx, old.meta.project, &[(Resource::VolumeGib, -trial.disk_more_gib.cast_signed())]);
            start_anew(&mut next);
            next.meta.touch(self.now());
            tx.update(&found, &next);
            Ok(next)
        })
        .await
    }

    /// GiB by which the root disk is to grow for a size. A flavor without a disk leaves the disk as it is.
    fn disk_growth(&self, instance: &Instance, size: &mut Size) -> Result<u64> {
        if instance.kind != Kind::Vm {
            if size.disk_gib == 0 || instance.size.disk_gib == 0 {
                size.disk_gib = instance.size.disk_gib;
            }
            return refuse_own_disk(instance, size.disk_gib, "flavor").map(|()| 0);
        }
        let own = instance.volumes.first();
        let Some(root) = own.and_then(|id| self.get::<Volume>(*id)) else {
            return Ok(0);
        };
        if size.disk_gib == 0 || !root.record.delete_with_instance {
            size.disk_gib = instance.size.disk_gib;
            return Ok(0);
        }
        size.disk_gib.checked_sub(root.record.size_gib).ok_or_else(|| {
            let message = format!(
                "the root disk of {} has {} GiB, the flavor {} GiB: a disk never shrinks",
                instance.meta.name, root.record.size_gib, size.disk_gib
            );
            Error::invalid("flavor", message).hint("choose a flavor whose disk is at least as large")
        })
    }

    /// Refuses a size that the instance's host cannot give it beside what it gives others.
    pub(super) fn refuse_without_room(&self, instance: &Instance, size: Size) -> Result<()> {
        let Some(host) = instance.node.and_then(|id| self.store.get::<Node>(&id.to_string())) else {
            return Ok(());
        };
        let Some(reason) =
            self.refusal_beside(&host.record, Needs::of(instance, size), Some(instance.meta.id))
        else {
            return Ok(());
        };
        let (host, name) = (&host.record.name, &instance.meta.name);
        let message = format!("host {host} cannot give {name} this size: {reason}");
        Err(Error::new(Code::NoCapacity, message)
            .field("flavor")
            .hint("choose a smaller flavor, or stop or delete instances (`holm ls`)"))
    }

    /// Charges the difference between two sizes.
    pub(super) fn charge_change(&self, tx: &mut Transaction, instance: &Instance, old: Size, new: Size) {
        let (new, old) = (charges(instance.kind, new, 1), charges(instance.kind, old, 1));
        let change = std::array::from_fn::<_, 3, _>(|n| (new[n].0, new[n].1 - old[n].1));
        self.charge(tx, instance.meta.project, &change);
    }
}

fn trial_of(caller: &Caller, instance: &Instance) -> Result<Trial> {
    refuse_locked(caller, instance)?;
    instance.trial.clone().filter(|_| !instance.meta.is_deleting()).ok_or_else(|| {
        Error::new(Code::Conflict, format!("{} has no other size on trial", instance.meta.name))
            .hint(format!("`holm resize {} FLAVOR`", instance.meta.name))
    })
}

/// What runs or is frozen is stopped, with time to do so, and started.
fn start_anew(instance: &mut Instance) {
    if instance.power != Power::Off {
        instance.power = Power::On;
        instance.boots += 1;
        instance.hard = false;
    }
}
