//! How many copies there are to be by what they use: the rule of Kubernetes' HorizontalPodAutoscaler (autoscaling/v2) for one
//! metric, the CPU time that copies use of what they ask for.
//!
//! ```text
//!   what each copy uses ──recommend──► a number ──decide──► up at once, at most twice as many or four more
//!                                                     └───► down to the most that was recommended within the window
//! ```

use super::COPIES_MAX;
use crate::{id::DeploymentId, record::Record};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, ops::RangeInclusive};

/// Seconds within which the highest recommendation counts before there are fewer copies, where nothing is said.
pub const DOWN_WINDOW_S_USUAL: u32 = 300;
/// Longest such time.
pub const DOWN_WINDOW_S_MAX: u32 = 3_600;
/// Percent of what copies ask for that they are to use.
pub const CPU_PERCENT: RangeInclusive<u32> = 1..=10_000;
/// The same where nothing is said.
pub const CPU_PERCENT_USUAL: u32 = 80;
/// The tenth part by which the use may differ before anything is done.
const TOLERANCE_PART: u128 = 10;
/// So many copies more at once at most, or twice as many.
const UP_AT_ONCE: u32 = 4;

/// Bounds of the number of copies, and the use that is wanted of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autoscale {
    /// Least copies.
    pub replicas_min: u32,
    /// Most copies.
    pub replicas_max: u32,
    /// Percent of the CPU time that they ask for which copies are to use.
    pub cpu_percent: u32,
    /// CPU time that a copy asks for, in thousandths of a CPU.
    pub cpu_asked_millis: u32,
    /// Seconds within which the highest recommendation counts before there are fewer copies.
    pub down_window_s: u32,
}

/// What the rule has come to. Written by the autoscaler alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentScale {
    /// Of which deployment.
    pub id: DeploymentId,
    /// Copies that are wanted.
    pub replicas: u32,
    /// Percent of what they ask for that the copies used when they were last looked at.
    pub used_percent: u32,
}

impl Record for DeploymentScale {
    const TABLE: &'static str = "deployment_scale";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// What was recommended within the window, the oldest first.
pub type Past = VecDeque<(Timestamp, u32)>;

/// What is wrong with a rule: the field and why.
pub type Wrong = (&'static str, String);

impl Autoscale {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn check(&self) -> Result<(), Wrong> {
        if !(1..=COPIES_MAX).contains(&self.replicas_max) {
            return Err(("replicas_max", format!("{}: 1 to {COPIES_MAX} are possible", self.replicas_max)));
        }
        if !(1..=self.replicas_max).contains(&self.replicas_min) {
            let message = format!("{}: 1 to {} are possible", self.replicas_min, self.replicas_max);
            return Err(("replicas_min", message));
        }
        if !CPU_PERCENT.contains(&self.cpu_percent) {
            let (least, most) = (CPU_PERCENT.start(), CPU_PERCENT.end());
            return Err(("cpu_percent", format!("{}: {least} to {most} are possible", self.cpu_percent)));
        }
        if self.cpu_asked_millis == 0 {
            return Err((
                "cpu_asked_millis",
                "a copy asks for no CPU, so there is nothing to compare with".into(),
            ));
        }
        if self.down_window_s > DOWN_WINDOW_S_MAX {
            let message = format!("{} s: at most {DOWN_WINDOW_S_MAX} s are possible", self.down_window_s);
            return Err(("down_window_s", message));
        }
        Ok(())
    }

    /// A number of copies within the bounds.
    pub fn bounded(&self, replicas: u32) -> u32 {
        replicas.clamp(self.replicas_min, self.replicas_max.max(self.replicas_min))
    }

    /// Percent of what they ask for that copies use on average, given what each uses in thousandths of a CPU.
    pub fn used_percent(&self, used: &[Option<u64>]) -> Option<u32> {
        let known: Vec<u128> = used.iter().flatten().map(|millis| u128::from(*millis)).collect();
        let asked = (known.len() as u128 * u128::from(self.cpu_asked_millis)).max(1);
        let percent = known.iter().sum::<u128>() * 100 / asked;
        (!known.is_empty()).then(|| u32::try_from(percent).unwrap_or(u32::MAX))
    }

    /// How many copies would use as much as is wanted, given what each of them uses in thousandths of a CPU. A copy that is
    /// not ready, or of which nothing is known, is taken to use nothing where more are needed, and what is wanted where
    /// fewer are. `None` where nothing is known of any.
    pub fn recommend(&self, current: u32, used: &[Option<u64>]) -> Option<u32> {
        let known = used.iter().flatten().count() as u128;
        if known == 0 {
            return None;
        }
        let goal = u128::from(self.cpu_asked_millis.max(1)) * u128::from(self.cpu_percent.max(1));
        let total = used.iter().flatten().map(|millis| u128::from(*millis) * 100).sum::<u128>();
        let is_more = total > known * goal;
        let unknown = used.len() as u128 - known;
        let (total, all) = match is_more {
            true => (total, known + unknown),
            false => (total + unknown * goal, known + unknown),
        };
        let is_near = total.abs_diff(all * goal) * TOLERANCE_PART <= all * goal;
        if is_near || (total > all * goal) != is_more {
            return Some(current);
        }
        let wanted = u32::try_from(total.div_ceil(goal)).unwrap_or(u32::MAX);
        // Copies that are still on their way are no reason to go the other way.
        Some(if is_more { wanted.max(current) } else { wanted.min(current) })
    }

    /// How many copies there are to be now, where `current` are wanted so far and `recommended` would do. `past` is kept for
    /// the next time.
    pub fn decide(&self, past: &mut Past, current: u32, recommended: u32, now: Timestamp) -> u32 {
        if past.is_empty() {
            // What was there before anybody looked had its reasons.
            past.push_back((now, current));
        }
        let window = SignedDuration::from_secs(i64::from(self.down_window_s));
        past.retain(|(at, _)| now.duration_since(*at) <= window);
        past.push_back((now, recommended));
        let highest = past.iter().map(|(_, count)| *count).max().unwrap_or(recommended);
        let most = current.saturating_mul(2).max(current.saturating_add(UP_AT_ONCE));
        let next = match recommended > current {
            true => recommended.min(most),
            false => current.min(highest),
        };
        self.bounded(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Autoscale = Autoscale {
        replicas_min: 1,
        replicas_max: 10,
        cpu_percent: 50,
        cpu_asked_millis: 200,
        down_window_s: 300,
    };

    #[test]
    fn as_many_are_recommended_as_use_what_is_wanted() {
        let known = |used: &[u64]| -> Vec<Option<u64>> { used.iter().map(|it| Some(*it)).collect() };
        // Each is to use 100 of the 200 thousandths that it asks for.
        for (current, used, expected) in [
            (1, known(&[100]), Some(1)),
            (1, known(&[110]), Some(1)),
            (1, known(&[111]), Some(2)),
            (1, known(&[90]), Some(1)),
            (2, known(&[90, 90]), Some(2)),
            (2, known(&[89, 89]), Some(2)),
            (4, known(&[70, 70, 70, 70]), Some(3)),
            (2, known(&[200, 200]), Some(4)),
            (3, known(&[1_000, 0, 0]), Some(10)),
            (3, known(&[0, 0, 0]), Some(0)),
            (2, known(&[40, 60]), Some(1)),
            // Of one nothing is known: it is taken to use nothing where more are needed …
            (2, vec![Some(200), None], Some(2)),
            (2, vec![Some(300), None], Some(3)),
            // … and what is wanted where fewer are.
            (2, vec![Some(40), None], Some(2)),
            (3, vec![Some(0), Some(0), None], Some(1)),
            // More are asked for than are there yet: they are on their way.
            (5, known(&[200, 200]), Some(5)),
            (1, known(&[40, 40, 40]), Some(1)),
            (2, vec![None, None], None),
            (0, vec![], None),
        ] {
            assert_eq!(RULE.recommend(current, &used), expected, "{current} with {used:?}");
        }
        assert_eq!(RULE.used_percent(&[Some(100), None, Some(50)]), Some(37));
        assert_eq!(RULE.used_percent(&[None]), None);
    }

    #[test]
    fn it_goes_up_at_once_and_down_when_the_window_has_passed() {
        let mut past = Past::new();
        let mut current = 1;
        for (at_s, recommended, expected) in [
            (0, 3, 3),
            (10, 30, 7),
            (20, 30, 10),
            (30, 12, 10),
            (40, 2, 10),
            (320, 2, 10),
            (330, 2, 10),
            (331, 2, 2),
            (340, 5, 5),
            (350, 0, 5),
            (640, 0, 5),
            (641, 0, 1),
        ] {
            let now = Timestamp::from_second(1_800_000_000 + at_s).unwrap();
            current = RULE.decide(&mut past, current, recommended, now);
            assert_eq!(current, expected, "after {at_s} s, where {recommended} are recommended");
        }
        let at_once = Autoscale { down_window_s: 0, ..RULE };
        let now = Timestamp::from_second(1_800_001_000).unwrap();
        assert_eq!(at_once.decide(&mut past, 5, 2, now), 2);
        // What was there before anybody looked stays for the window's time.
        assert_eq!(RULE.decide(&mut Past::new(), 8, 2, now), 8);
        assert_eq!(RULE.decide(&mut Past::new(), 20, 20, now), 10, "never beyond the bounds");
    }

    #[test]
    fn rules_that_cannot_be_are_refused_with_their_field() {
        assert_eq!(RULE.check(), Ok(()));
        for (rule, field) in [
            (Autoscale { replicas_max: 101, ..RULE }, "replicas_max"),
            (Autoscale { replicas_max: 0, ..RULE }, "replicas_max"),
            (Autoscale { replicas_min: 11, ..RULE }, "replicas_min"),
            (Autoscale { replicas_min: 0, ..RULE }, "replicas_min"),
            (Autoscale { cpu_percent: 0, ..RULE }, "cpu_percent"),
            (Autoscale { cpu_percent: 10_001, ..RULE }, "cpu_percent"),
            (Autoscale { cpu_asked_millis: 0, ..RULE }, "cpu_asked_millis"),
            (Autoscale { down_window_s: 3_601, ..RULE }, "down_window_s"),
        ] {
            assert_eq!(rule.check().unwrap_err().0, field, "{rule:?}");
        }
    }
}
