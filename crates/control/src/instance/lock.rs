//! Locking: an instance that nobody deletes or stops by mistake.

use crate::{Caller, Control, Error, Result, Role};
use model::{
    error::Code,
    instance::{
        Instance,
        lock::{Lock, REASON_CHARS_MAX},
    },
};

impl Control {
    /// Locks an instance: until it is unlocked, only admins delete it and change its power. Locking it again changes
    /// the reason.
    ///
    /// # Errors
    /// `invalid`, `not_found`, `forbidden` where an admin locked it.
    pub async fn lock_instance(
        &self,
        caller: &Caller,
        reference: &str,
        reason: Option<&str>,
    ) -> Result<Instance> {
        if let Some(reason) = reason
            && !(1..=REASON_CHARS_MAX).contains(&reason.chars().count())
        {
            let message = format!("the reason of a lock has 1 to {REASON_CHARS_MAX} characters");
            return Err(Error::invalid("reason", message));
        }
        let lock = Lock { reason: reason.map(str::to_string), by_admin: caller.role == Role::Admin };
        self.set_lock(caller, reference, "locking an instance", Some(lock)).await
    }

    /// Takes the lock away. None there is fine.
    ///
    /// # Errors
    /// `not_found`, `forbidden` where an admin locked it.
    pub async fn unlock_instance(&self, caller: &Caller, reference: &str) -> Result<Instance> {
        self.set_lock(caller, reference, "unlocking an instance", None).await
    }

    async fn set_lock(
        &self,
        caller: &Caller,
        reference: &str,
        action: &str,
        lock: Option<Lock>,
    ) -> Result<Instance> {
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, action)?;
            let by_admin = found.record.lock.as_ref().is_some_and(|lock| lock.by_admin);
            if by_admin && caller.role != Role::Admin {
                let message = format!("{action}: an admin locked {}", found.record.meta.name);
                return Err(Error::new(Code::Forbidden, message).hint("ask an admin"));
            }
            let mut next = found.record.clone();
            next.lock.clone_from(&lock);
            if next != found.record {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }
}
