//! Changes to what is said of a record: name, description, labels and simple switches, for every noun alike.

use crate::{Caller, Control, Error, Result, resolve::Noun, transact::Transaction};
use model::{
    error::Code,
    meta::{ALL_LABELS_BYTES_MAX, DESCRIPTION_BYTES_MAX, LABEL_BYTES_MAX, LABELS_MAX, Labels},
};

impl Control {
    /// Changes one record of the caller's project in one transaction. `change` may be called several times, when
    /// others changed the record meanwhile; it must not touch what has an action of its own (addresses, targets).
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `taken` for a name in use, `conflict` for a record that is going, and what `change`
    /// refuses.
    pub async fn change<R: Noun + Clone + PartialEq>(
        &self,
        caller: &Caller,
        reference: &str,
        change: impl Fn(&mut R) -> Result<()> + Send + Sync,
    ) -> Result<R> {
        self.change_in(caller, reference, |_, next| change(next)).await
    }

    /// As [`Self::change`], with the transaction, for what else changes with the record.
    pub(crate) async fn change_in<R: Noun + Clone + PartialEq>(
        &self,
        caller: &Caller,
        reference: &str,
        change: impl Fn(&mut Transaction, &mut R) -> Result<()> + Send + Sync,
    ) -> Result<R> {
        let action = format!("changing a {}", R::WORD);
        self.transact(|tx| {
            let found = self.find_own::<R>(caller, reference, &action)?;
            if found.record.meta().is_deleting() {
                let message = format!("{} {} is being deleted", R::WORD, found.record.meta().name);
                return Err(Error::new(Code::Conflict, message));
            }
            let mut next = found.record.clone();
            change(tx, &mut next)?;
            if next != found.record {
                next.meta_mut().touch(self.now());
                tx.update(&found, &next);
            }
            Ok(next)
        })
        .await
    }
}

/// Refuses labels beyond what is kept with a record.
///
/// # Errors
/// `too_large` or `invalid`, with the field `labels`.
pub fn check_labels(labels: &Labels) -> Result<()> {
    if labels.len() > LABELS_MAX {
        let message = format!("{} labels: at most {LABELS_MAX} are possible", labels.len());
        return Err(Error::new(Code::TooLarge, message).field("labels"));
    }
    for (key, value) in labels {
        if key.is_empty() || key.chars().any(char::is_control) {
            return Err(Error::invalid("labels", "a label's key is empty or has control characters"));
        }
        if key.len() > LABEL_BYTES_MAX || value.len() > LABEL_BYTES_MAX {
            let message = format!("label {:.40}… has more than {LABEL_BYTES_MAX} bytes", key);
            return Err(Error::new(Code::TooLarge, message).field("labels"));
        }
    }
    let all_bytes: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    if all_bytes > ALL_LABELS_BYTES_MAX {
        let message =
            format!("the labels have {all_bytes} bytes: at most {ALL_LABELS_BYTES_MAX} are possible");
        return Err(Error::new(Code::TooLarge, message).field("labels"));
    }
    Ok(())
}

/// Refuses a description beyond what is kept with a record.
///
/// # Errors
/// `too_large`, with the field `description`.
pub fn check_description(text: &str) -> Result<()> {
    if text.len() <= DESCRIPTION_BYTES_MAX {
        return Ok(());
    }
    let message =
        format!("the description has {} bytes: at most {DESCRIPTION_BYTES_MAX} are possible", text.len());
    Err(Error::new(Code::TooLarge, message).field("description"))
}
