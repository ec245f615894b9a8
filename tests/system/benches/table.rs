//! The table of a run: pairs measured in turns, their ratios, and whether each keeps its budget.
//!
//! Times of one machine say little; the ratio of two things that were measured in turns says something. A row whose
//! budget is missed says so.

use crate::peers::Took;
use std::time::{Duration, Instant};

/// What several rounds took, or why they were not measured.
pub type Times = Result<Vec<Duration>, String>;

/// Rows so far, printed as they come.
#[derive(Default)]
pub struct Table {
    rows: Vec<String>,
    missed: Vec<String>,
}

/// What a measured value must stay under or over.
#[derive(Debug, Clone, Copy)]
pub enum Budget {
    /// Nothing was promised.
    None,
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

impl Budget {
    fn kept(self, value: f64) -> bool {
        match self {
            Self::None => true,
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::None => "–".into(),
            Self::AtMost(most) => format!("≤ {most}{unit}"),
            Self::AtLeast(least) => format!("≥ {least}{unit}"),
        }
    }
}

impl Table {
    /// A row of one value.
    pub fn value(&mut self, what: &str, value: f64, unit: &str, budget: Budget) {
        self.row(what, &format!("{value:.1}{unit}"), "–", "–", &budget.text(unit), Some(budget.kept(value)));
    }

    /// A row of a pair, whose budget is about the ratio of ours to theirs.
    pub fn ratio(&mut self, what: &str, ours: &str, theirs: &str, ratio: f64, budget: Budget) {
        self.row(what, ours, theirs, &format!("{ratio:.2}"), &budget.text(" ×"), Some(budget.kept(ratio)));
    }

    /// Measures two things in turns and adds the ratio of their medians.
    pub fn pair(
        &mut self,
        what: &str,
        rounds: usize,
        budget: Budget,
        mut ours: impl FnMut() -> Duration,
        mut theirs: impl FnMut() -> Duration,
    ) {
        // The first of each warms caches.
        ours();
        theirs();
        let (mut a, mut b): (Vec<_>, Vec<_>) = (0..rounds).map(|_| (ours(), theirs())).unzip();
        let (a, b) = (median(&mut a), median(&mut b));
        self.ratio(what, &millis(a), &millis(b), a.as_secs_f64() / b.as_secs_f64(), budget);
    }

    /// Measures ours and those of several others in turns; each of them gives a row, with a ratio of medians or with the
    /// words why there is none.
    pub fn beside(
        &mut self,
        what: &str,
        rounds: usize,
        budget: Budget,
        mut ours: impl FnMut() -> Duration,
        others: &mut [(&str, &mut dyn FnMut() -> Took)],
    ) {
        let mut times: Vec<Times> = others.iter().map(|_| Ok(vec![])).collect();
        let mut own = vec![];
        for round in 0..=rounds {
            let time = ours();
            for ((_, other), times) in others.iter_mut().zip(&mut times) {
                match times.as_mut().map(|times| (times, other())) {
                    // The first of each warms caches.
                    Ok((times, Ok(time))) => times.extend((round > 0).then_some(time)),
                    Ok((_, Err(reason))) => *times = Err(reason),
                    Err(_) => {}
                }
            }
            own.extend((round > 0).then_some(time));
        }
        for ((name, _), times) in others.iter().zip(times) {
            self.compare(&format!("{what}, beside {name}"), &own, times, budget);
        }
    }

    /// A row of two series of times, the second of which may be missing for a reason.
    pub fn compare(&mut self, what: &str, ours: &[Duration], theirs: Times, budget: Budget) {
        let ours = median(&mut ours.to_vec());
        match theirs {
            Ok(mut theirs) => {
                let theirs = median(&mut theirs);
                let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
                self.ratio(what, &millis(ours), &millis(theirs), ratio, budget);
            }
            Err(reason) => self.alone(what, &millis(ours), &reason, budget),
        }
    }

    /// A row of ours whose other part this machine does not run.
    pub fn alone(&mut self, what: &str, ours: &str, reason: &str, budget: Budget) {
        self.row(what, ours, &format!("not here: {reason}"), "–", &budget.text(" ×"), None);
    }

    fn row(&mut self, what: &str, ours: &str, theirs: &str, ratio: &str, budget: &str, kept: Option<bool>) {
        let verdict = match (budget, kept) {
            ("–", _) => "",
            (_, None) => "not measured",
            (_, Some(true)) => "kept",
            (_, Some(false)) => "**missed**",
        };
        let row = format!("| {what} | {ours} | {theirs} | {ratio} | {budget} | {verdict} |");
        eprintln!("{row}");
        self.rows.push(row);
        if kept == Some(false) {
            self.missed.push(what.to_string());
        }
    }

    /// The rows as a table in Markdown, and the budgets that were missed.
    pub fn page(&self) -> String {
        let head = "| what | holm | beside it | ratio | budget | |\n|---|---|---|---|---|---|\n";
        let missed = match self.missed.as_slice() {
            [] => "Every budget was kept.".to_string(),
            missed => format!("Missed: {}.", missed.join("; ")),
        };
        format!("{head}{}\n\n{missed}\n", self.rows.join("\n"))
    }
}

/// The middle of some durations.
pub fn median(all: &mut [Duration]) -> Duration {
    all.sort();
    all[all.len() / 2]
}

/// The duration within which so many of a hundred are done.
pub fn percentile(all: &mut [Duration], percent: usize) -> Duration {
    all.sort();
    all[(all.len() * percent).div_ceil(100).saturating_sub(1)]
}

/// A duration as people read it.
pub fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// How long something took.
pub fn took(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// Looks every millisecond until there is a value, and gives it with the time that took.
///
/// # Panics
/// With `what`, when two minutes are over.
pub fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> (T, Duration) {
    let began = Instant::now();
    loop {
        if let Some(value) = look() {
            return (value, began.elapsed());
        }
        assert!(began.elapsed() < Duration::from_secs(120), "not within 120 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
