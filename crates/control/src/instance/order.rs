//! Whom an instance waits for when its host starts.

use crate::{Caller, Control, Error, Result};
use model::{
    error::Code,
    id::InstanceId,
    instance::{
        Instance,
        order::{START_AFTER_MAX, waits_for},
    },
};

const ACTION: &str = "ordering the starts of instances";

impl Control {
    /// Lets an instance wait, when its host starts, until these run, instead of those that it waited for.
    ///
    /// # Errors
    /// `invalid` where they would wait for each other, `not_found`, `forbidden`, `too_large`.
    pub async fn set_start_order(
        &self,
        caller: &Caller,
        reference: &str,
        others: &[String],
    ) -> Result<Instance> {
        self.transact(|tx| {
            let found = self.find_own::<Instance>(caller, reference, ACTION)?;
            let mut next = found.record.clone();
            next.start_after = self.start_after(caller, found.record.meta.id, others)?;
            if next != found.record {
                next.meta.touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }

    /// Those that `id` is to wait for, by names or ids.
    pub(crate) fn start_after(
        &self,
        caller: &Caller,
        id: InstanceId,
        others: &[String],
    ) -> Result<Vec<InstanceId>> {
        if others.len() > START_AFTER_MAX {
            let message =
                format!("an instance waits for at most {START_AFTER_MAX} others, not {}", others.len());
            return Err(Error::new(Code::TooLarge, message)
                .field("start_after")
                .hint("let some of them wait for each other instead"));
        }
        let mut found = vec![];
        for other in others {
            let other =
                self.find_own::<Instance>(caller, other, ACTION).map_err(|e| e.field("start_after"))?;
            let (name, other) = (&other.record.meta.name, other.record.meta.id);
            let after = |id| self.get::<Instance>(id).map_or(vec![], |i| i.record.start_after.clone());
            if other == id || waits_for(other, id, after) {
                let message = format!("it would wait for {name}, which waits for it");
                return Err(
                    Error::invalid("start_after", message).hint(format!("holm set {name} --start-after ''"))
                );
            }
            if !found.contains(&other) {
                found.push(other);
            }
        }
        Ok(found)
    }
}
