//! Times at which an instance is to run, as cron writes them (crontab(5)): minute, hour, day, month and day of the week, in
//! UTC.
//!
//! ```text
//!   30 2 * * 1-5      at 02:30 from Monday to Friday
//!   */15 * * * *      four times an hour
//! ```

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Longest text of times.
pub const CRON_BYTES_MAX: usize = 200;
/// Days that are looked ahead: 29 February comes again within eight years.
const DAYS_MAX: usize = 9 * 366;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 8] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// When an instance runs, and since when it is waited for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Times.
    pub at: Cron,
    /// What came due before is done with.
    pub since: Timestamp,
}

impl Schedule {
    /// When it is to run next.
    pub fn next(&self) -> Option<Timestamp> {
        self.at.next_after(self.since)
    }
}

/// Times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Where both kinds of days are named, either is meant (crontab(5)).
    either: bool,
}

/// Why a text names no times.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five parts.
    #[error("times are five parts: minute, hour, day, month and day of the week, like \"30 2 * * 1-5\"")]
    Parts,
    /// One part is wrong.
    #[error("{0:.40} is no {1}: numbers from {2} to {3}, with - , * and / between them, are")]
    Part(String, &'static str, u32, u32),
    /// It never comes.
    #[error("no day is ever like that")]
    Never,
}

/// The numbers of one part, as bits.
fn part(text: &str, name: &'static str, (least, most): (u32, u32), words: &[&str]) -> Result<u64, CronError> {
    let wrong = || CronError::Part(text.to_string(), name, least, most);
    let number = |text: &str| {
        let by_word = words.iter().position(|word| text.eq_ignore_ascii_case(word));
        let number = match by_word {
            Some(at) => u32::try_from(at).ok().map(|at| at + if name == "month" { 1 } else { 0 }),
            None => text.parse::<u32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit())),
        };
        number.filter(|number| (least..=most).contains(number)).ok_or_else(wrong)
    };
    let mut bits = 0;
    for piece in text.split(',') {
        let (range, step) = match piece.split_once('/') {
            Some((range, step)) => (range, step.parse::<u32>().ok().filter(|s| *s > 0).ok_or_else(wrong)?),
            None => (piece, 1),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((first, last)) => (number(first)?, number(last)?),
            // A step without an end goes on to the last.
            None if piece.contains('/') => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        if first > last {
            return Err(wrong());
        }
        (first..=last).step_by(usize::try_from(step).unwrap_or(usize::MAX)).for_each(|n| bits |= 1 << n);
    }
    Ok(bits)
}

impl FromStr for Cron {
    type Err = CronError;
    fn from_str(text: &str) -> Result<Self, CronError> {
        if text.len() > CRON_BYTES_MAX {
            return Err(CronError::Parts);
        }
        let text = text.trim();
        let known = WORDS.iter().find(|(word, _)| *word == text).map_or(text, |(_, meaning)| *meaning);
        let [minutes, hours, days, months, weekdays] = known.split_ascii_whitespace().collect::<Vec<_>>()[..]
        else {
            return Err(CronError::Parts);
        };
        let mut cron = Self {
            text: text.to_string(),
            minutes: part(minutes, "minute", (0, 59), &[])?,
            hours: part(hours, "hour", (0, 23), &[])?,
            days: part(days, "day of the month", (1, 31), &[])?,
            months: part(months, "month", (1, 12), &MONTHS)?,
            weekdays: part(weekdays, "day of the week", (0, 7), &WEEKDAYS)?,
            either: !days.starts_with('*') && !weekdays.starts_with('*'),
        };
        // Sunday is 0 and 7.
        cron.weekdays = (cron.weekdays | cron.weekdays >> 7) & 0x7f;
        match cron.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never),
        }
    }
}

impl Cron {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first of these times after another one.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let begin = after.to_zoned(TimeZone::UTC).datetime();
        let mut date = begin.date();
        for _ in 0..DAYS_MAX {
            if self.has_day(date)
                && let Some(found) = self.time_in(date, begin)
            {
                return found.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    fn has_day(&self, date: Date) -> bool {
        let has = |bits: u64, number: i8| u32::try_from(number).is_ok_and(|number| bits >> number & 1 == 1);
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let day = has(self.days, date.day());
        has(self.months, date.month()) && if self.either { day || weekday } else { day && weekday }
    }

    /// The first time of a day that comes after `begin`.
    fn time_in(&self, date: Date, begin: DateTime) -> Option<DateTime> {
        let bits = |bits: u64, count: i8| (0..count).filter(move |n| bits >> n & 1 == 1);
        let times =
            bits(self.hours, 24).flat_map(|hour| bits(self.minutes, 60).map(move |minute| (hour, minute)));
        times.map(|(hour, minute)| date.at(hour, minute, 0, 0)).find(|time| *time > begin)
    }
}

impl TryFrom<String> for Cron {
    type Error = CronError;
    fn try_from(text: String) -> Result<Self, CronError> {
        text.parse()
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> String {
        cron.text
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_as_cron_has_them() {
        for (text, after, next) in [
            ("* * * * *", "2026-01-01T00:00:00Z", Some("2026-01-01T00:01:00Z")),
            ("* * * * *", "2026-01-01T00:00:59.9Z", Some("2026-01-01T00:01:00Z")),
            ("*/15 * * * *", "2026-01-01T00:46:00Z", Some("2026-01-01T01:00:00Z")),
            ("5/20 * * * *", "2026-01-01T00:06:00Z", Some("2026-01-01T00:25:00Z")),
            ("30 2 * * 1-5", "2026-01-02T02:30:00Z", Some("2026-01-05T02:30:00Z")),
            ("30 2 * * mon-FRI", "2026-01-02T02:30:00Z", Some("2026-01-05T02:30:00Z")),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", Some("2028-02-29T00:00:00Z")),
            ("0 0 29 2 *", "2096-03-01T00:00:00Z", Some("2104-02-29T00:00:00Z")),
            ("0 12 13 * 5", "2026-01-01T00:00:00Z", Some("2026-01-02T12:00:00Z")),
            ("0 12 13 * 5", "2026-01-09T12:00:00Z", Some("2026-01-13T12:00:00Z")),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", Some("2026-01-04T00:00:00Z")),
            ("1,3-5,9 1 * * *", "2026-01-01T01:05:00Z", Some("2026-01-01T01:09:00Z")),
            ("0 0 1 jan *", "2026-01-01T00:00:00Z", Some("2027-01-01T00:00:00Z")),
            ("0 0 */2 * 1", "2026-01-01T00:00:00Z", Some("2026-01-05T00:00:00Z")),
            ("@hourly", "2026-12-31T23:00:00Z", Some("2027-01-01T00:00:00Z")),
            ("@weekly", "2026-01-01T00:00:00Z", Some("2026-01-04T00:00:00Z")),
        ] {
            let cron: Cron = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            let found = cron.next_after(after.parse().unwrap());
            assert_eq!(found, next.map(|next| next.parse().unwrap()), "{text} after {after}");
            assert_eq!(serde_json::to_string(&cron).unwrap(), format!("{text:?}"));
        }
    }

    #[test]
    fn what_names_no_times_is_refused() {
        for (text, part) in [
            ("", "five parts"),
            ("* * * *", "five parts"),
            ("* * * * * *", "five parts"),
            ("@reboot", "five parts"),
            ("60 * * * *", "60 is no minute"),
            ("* 24 * * *", "24 is no hour"),
            ("* * 0 * *", "0 is no day of the month"),
            ("* * * 13 *", "13 is no month"),
            ("* * * * 8", "8 is no day of the week"),
            ("5-1 * * * *", "5-1 is no minute"),
            ("*/0 * * * *", "*/0 is no minute"),
            ("+1 * * * *", "+1 is no minute"),
            ("1, * * * *", "1, is no minute"),
            ("0 0 30 2 *", "no day is ever"),
            (&"* ".repeat(101), "five parts"),
        ] {
            let error = text.parse::<Cron>().expect_err(text);
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }
}
