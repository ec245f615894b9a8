//! Deployments: so many copies of one instance, and what has to be done so that there are as many.
//!
//! ```text
//!   wanted copies, their revision ─┐
//!   what is there ─────────────────┴─► next() ─► how many to make, which to retire
//!
//!   a copy:   made ──► there ──► leaving (no name leads to it, what is under way arrives) ──► going ──► gone
//! ```
//! A copy is an instance with two labels: which deployment it is of, and of which revision. Nothing else ties it to its
//! deployment, so what is there is found again by looking.

pub mod autoscale;

use crate::{
    error::Fault,
    id::{DeploymentId, InstanceId},
    meta::Meta,
    port::alias::Alias,
    record::Record,
    seal::Sealed,
};
use autoscale::{Autoscale, DeploymentScale};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{cmp::Reverse, collections::BTreeMap};

/// Label of an instance that tells which object of a file it was made of, like `deployment/web`.
pub const OBJECT_LABEL: &str = "kube";
/// Label of an instance that tells of which revision of that it is.
pub const REVISION_LABEL: &str = "kube-digest";
/// Most copies of a deployment.
pub const COPIES_MAX: u32 = 100;
/// Most deployments of a project.
pub const DEPLOYMENTS_MAX: u64 = 500;
/// Longest template in bytes of JSON: sealed, it has to fit a record.
pub const TEMPLATE_BYTES_MAX: usize = 704 * 1024;
/// Characters of a revision that are part of the names of its copies.
pub const REVISION_CHARS_MIN: usize = 5;
/// Most characters of a revision.
pub const REVISION_CHARS_MAX: usize = 20;
/// Bytes of a digest that tell a restart from others, as in a file's revision.
const RESTART_BYTES: usize = 5;
/// Copies there may be beyond those wanted while others take over from them.
const SURGE: usize = 1;

/// What stands for a copy's name in the texts of a template. Nobody types it.
pub const COPY: &str = "\u{e000}name of the copy\u{e000}";

/// So many copies of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Head.
    pub meta: Meta<DeploymentId>,
    /// Kind.
    pub kind: Kind,
    /// Copies that are wanted.
    pub replicas: u32,
    /// Tells this template from others.
    pub revision: String,
    /// When somebody last asked for copies anew, of the same template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<Timestamp>,
    /// The old copies go before new ones come.
    #[serde(default)]
    pub recreate: bool,
    /// It holds what one instance alone can have: a port of the host, a volume.
    #[serde(default)]
    pub is_single: bool,
    /// Names that lead to its copies.
    #[serde(default)]
    pub aliases: Vec<Alias>,
    /// What a copy is made of, as the API takes it: secrets are in it, so it is sealed for the deployment's id.
    pub template: Sealed,
    /// Size of that in KiB, as the project was charged for it; 0 where it was kept before anybody counted.
    #[serde(default)]
    pub template_kib: u32,
    /// An admin asked for it, so its copies may have what admins alone may give.
    #[serde(default)]
    pub by_admin: bool,
    /// The rule by which there are more or fewer copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
}

/// Kinds of deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// So many copies.
    Deployment,
    /// One copy for each host.
    DaemonSet,
}

impl Kind {
    /// Name on every door.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::DaemonSet => "daemonset",
        }
    }
}

impl Deployment {
    /// Kind and name, like `deployment/web`: the label of its copies.
    pub fn reference(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.meta.name)
    }

    /// The revision of the copies that stay: the template's, or what that has become by its last restart. Copies of another one
    /// are replaced. The template's own is left as it is, so that one that is played again is known.
    pub fn wanted_revision(&self) -> String {
        let Some(at) = self.restarted_at else { return self.revision.clone() };
        let digest = Sha256::digest(format!("{} {}", self.revision, at.as_nanosecond()));
        digest.iter().take(RESTART_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }

    /// What the names of its copies begin with. Another revision makes copies of other names, so that both are there while
    /// one takes over from the other.
    pub fn stem(&self) -> String {
        let start: String = self.wanted_revision().chars().take(REVISION_CHARS_MIN).collect();
        format!("{}-{start}-", self.meta.name)
    }

    /// Copies that are wanted: as many as was said, or as its rule has come to.
    pub fn wanted(&self, scale: Option<&DeploymentScale>) -> u32 {
        let replicas = match (&self.autoscale, scale) {
            (None, _) => self.replicas,
            (Some(rule), None) => rule.bounded(self.replicas),
            (Some(rule), Some(scale)) => rule.bounded(scale.replicas),
        };
        replicas.min(COPIES_MAX)
    }
}

impl Record for Deployment {
    const TABLE: &'static str = "deployment";
    fn key(&self) -> String {
        self.meta.id.to_string()
    }
}

/// How far a deployment was brought. Written by its reconcile alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentStatus {
    /// Which one.
    pub id: DeploymentId,
    /// Generation of the wish that was last looked at.
    pub generation: u64,
    /// Copies to which no name leads any more, and when they are asked to end.
    #[serde(default)]
    pub leaving: BTreeMap<InstanceId, Timestamp>,
    /// Why there are not as many copies as are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

impl DeploymentStatus {
    /// Of one that nobody has looked at yet.
    pub fn new(id: DeploymentId) -> Self {
        Self { id, generation: 0, leaving: BTreeMap::new(), fault: None }
    }
}

impl Record for DeploymentStatus {
    const TABLE: &'static str = "deployment_status";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// Where a copy is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// It is there to stay.
    There,
    /// No name leads to it any more; it ends soon.
    Leaving,
    /// It is being deleted, or goes when it has ended.
    Going,
}

/// A copy, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Its instance.
    pub id: InstanceId,
    /// Its number, the last part of its name.
    pub number: u32,
    /// It is of the revision that is wanted.
    pub is_current: bool,
    /// Where it is in its life.
    pub stand: Stand,
    /// It can be given work.
    pub is_ready: bool,
}

/// What is to be done next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Next {
    /// So many copies are made.
    pub make: usize,
    /// These are not wanted any more.
    pub retire: Vec<InstanceId>,
}

/// What is to be done next, so that there are `wanted` copies of the current revision and no others. While one revision
/// takes over from another, as many copies as are wanted can be given work all the time, as far as there were so many, and
/// one more is there at most. With `recreate` nothing new comes before all that was is gone.
pub fn next(wanted: usize, recreate: bool, copies: &[Copy]) -> Next {
    let there = |copy: &&Copy| copy.stand == Stand::There;
    let (current, old): (Vec<&Copy>, Vec<&Copy>) = copies.iter().filter(there).partition(|it| it.is_current);
    let missing = wanted.saturating_sub(current.len());
    // One that cannot be given work is missed the least, then the one that came last.
    let by_worth = |copy: &&Copy| (copy.is_ready, Reverse(copy.number));
    let mut surplus = current.clone();
    surplus.sort_by_key(by_worth);
    surplus.truncate(current.len().saturating_sub(wanted));
    let mut retire: Vec<InstanceId> = surplus.iter().map(|copy| copy.id).collect();
    if recreate {
        retire.extend(old.iter().map(|copy| copy.id));
        let all_settled = old.is_empty() && copies.iter().all(|copy| copy.stand == Stand::There);
        return Next { make: if all_settled { missing } else { 0 }, retire };
    }
    if old.is_empty() {
        return Next { make: missing, retire };
    }
    let room = (wanted + SURGE).saturating_sub(copies.len());
    let ready = current.iter().filter(|copy| copy.is_ready).count();
    let mut leave = old.clone();
    leave.sort_by_key(by_worth);
    leave.truncate((ready + old.len()).saturating_sub(wanted));
    retire.extend(leave.iter().map(|copy| copy.id));
    Next { make: missing.min(room), retire }
}

/// The lowest numbers that are free, `count` of them. `taken` says which are not.
pub fn free_numbers(count: usize, taken: impl Fn(u32) -> bool) -> Vec<u32> {
    (1..).filter(|number| !taken(*number)).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies as a text: `c` current, `o` old; a capital letter is one that can be given work; `-` behind it: leaving, `x`:
    /// going. Numbers and ids are places.
    fn copies(text: &str) -> Vec<Copy> {
        let mut all: Vec<Copy> = vec![];
        for letter in text.chars() {
            match (letter, all.last_mut()) {
                ('-', Some(last)) => last.stand = Stand::Leaving,
                ('x', Some(last)) => last.stand = Stand::Going,
                _ => {
                    let number = u8::try_from(all.len() + 1).unwrap();
                    all.push(Copy {
                        id: InstanceId::from_random([number; 16]),
                        number: u32::from(number),
                        is_current: letter.eq_ignore_ascii_case(&'c'),
                        stand: Stand::There,
                        is_ready: letter.is_ascii_uppercase(),
                    });
                }
            }
        }
        all
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_too_much_goes() {
        for (wanted, recreate, seen, make, retire) in [
            (3, false, "", 3, &[][..]),
            (3, false, "Cc", 1, &[]),
            (3, false, "CCC", 0, &[]),
            (0, false, "CC", 0, &[2, 1]),
            (2, false, "CCCC", 0, &[4, 3]),
            (2, false, "cCCC", 0, &[1, 4]),
            // One that somebody deletes comes again at once.
            (3, false, "CxCC", 1, &[]),
            (3, false, "CC-C", 1, &[]),
            // One revision takes over from another.
            (2, false, "OO", 1, &[]),
            (2, false, "OOc", 0, &[]),
            (2, false, "OOC", 0, &[2]),
            (2, false, "OO-C", 0, &[]),
            (2, false, "OC", 1, &[]),
            (2, false, "OCc", 0, &[]),
            (2, false, "OCC", 0, &[1]),
            (2, false, "oOc", 0, &[]),
            (2, false, "oOC", 0, &[1]),
            (2, false, "O-CC", 0, &[]),
            // Another revision and another number at once.
            (5, false, "OO", 4, &[]),
            (2, false, "OOOOO", 0, &[5, 4, 3]),
            (1, false, "OCC", 0, &[3, 1]),
            (0, false, "OO", 0, &[2, 1]),
            // What one alone can have is free before the next one asks for it.
            (1, true, "", 1, &[]),
            (1, true, "O", 0, &[1]),
            (1, true, "Ox", 0, &[]),
            (1, true, "O-", 0, &[]),
            (1, true, "C", 0, &[]),
            (1, true, "Cx", 0, &[]),
            (2, true, "OC", 0, &[1]),
        ] {
            let found = next(wanted, recreate, &copies(seen));
            let ids: Vec<InstanceId> = retire.iter().map(|n| InstanceId::from_random([*n; 16])).collect();
            assert_eq!(found, Next { make, retire: ids }, "{wanted} of {seen}, recreate {recreate}");
        }
    }

    /// Whatever is there at first: done again and again it ends with what is wanted, and on the way there are never fewer
    /// that can be given work than before or than wanted, and never more than one too many.
    #[test]
    fn it_comes_to_an_end_and_fails_nobody_on_the_way() {
        for (wanted, old, current, recreate) in (0..5).flat_map(|w| {
            (0..5).flat_map(move |o| (0..5).flat_map(move |c| [(w, o, c, false), (w, o, c, true)]))
        }) {
            let mut seen = copies(&format!("{}{}", "O".repeat(old), "C".repeat(current)));
            let most = (wanted + SURGE).max(seen.len());
            let mut number = 50;
            for round in 0.. {
                assert!(round < 60, "{wanted} of {old} old and {current} current ones: no end");
                let next = next(wanted, recreate, &seen);
                let is_done = next == Next::default() && seen.iter().all(|copy| copy.is_ready);
                for copy in &mut seen {
                    copy.stand = if next.retire.contains(&copy.id) { Stand::Leaving } else { copy.stand };
                }
                let at_work = seen.iter().filter(|it| it.is_ready && it.stand == Stand::There).count();
                assert!(recreate || at_work >= wanted.min(old + current), "{wanted} of {seen:?}");
                // What was retired in the round before is gone, what was made is ready.
                seen.retain(|copy| copy.stand == Stand::There);
                seen.iter_mut().for_each(|copy| copy.is_ready = true);
                for _ in 0..next.make {
                    number += 1;
                    let id = InstanceId::from_random([number; 16]);
                    let copy = Copy {
                        id,
                        number: number.into(),
                        is_current: true,
                        stand: Stand::There,
                        is_ready: false,
                    };
                    seen.push(copy);
                }
                assert!(
                    seen.len() <= most,
                    "{wanted} of {old} old and {current} current ones: {}",
                    seen.len()
                );
                if is_done {
                    break;
                }
            }
            assert!(seen.len() == wanted && seen.iter().all(|copy| copy.is_current));
        }
    }

    #[test]
    fn numbers_that_are_free_are_used_again() {
        assert_eq!(free_numbers(3, |number| [1, 3].contains(&number)), [2, 4, 5]);
        assert_eq!(free_numbers(0, |_| false), Vec::<u32>::new());
    }
}
