//! The order in which instances start with their host: each after those that it is built upon.

use crate::id::InstanceId;
use std::collections::HashSet;

/// Most instances that one may wait for by itself.
pub const START_AFTER_MAX: usize = 16;

/// Whether `from` waits for `to`, by itself or by those that it waits for. `start_after` tells whom one waits for by itself.
pub fn waits_for(
    from: InstanceId,
    to: InstanceId,
    start_after: impl Fn(InstanceId) -> Vec<InstanceId>,
) -> bool {
    let (mut seen, mut todo) = (HashSet::from([from]), vec![from]);
    while let Some(id) = todo.pop() {
        for next in start_after(id) {
            if next == to {
                return true;
            }
            if seen.insert(next) {
                todo.push(next);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_goes_on_by_others_and_circles_end() {
        let [a, b, c, d] = [1, 2, 3, 4].map(|n: u8| InstanceId::from_random([n; 16]));
        // c after b after a; d and b wait for each other.
        let after = |id| match id {
            id if id == c => vec![b],
            id if id == b => vec![a, d],
            id if id == d => vec![b],
            _ => vec![],
        };
        for (from, to, waits) in
            [(c, a, true), (b, a, true), (a, c, false), (b, b, true), (d, a, true), (a, a, false)]
        {
            assert_eq!(waits_for(from, to, after), waits, "{from} {to}");
        }
    }
}
