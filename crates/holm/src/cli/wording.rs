//! How sizes, times and ages are read and written for people.
//!
//! Tables are for people (`1.5 GiB`, `3m`); JSON, YAML and CSV carry bytes and full times and never pass through here.

use jiff::Timestamp;

/// A size in bytes as people read it, in powers of 1024: `0 B`, `512 KiB`, `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut value = count as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 || (value - value.round()).abs() < 0.05 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A size in MiB as people read it.
pub fn mebibytes(count: u64) -> String {
    bytes(count.saturating_mul(1 << 20))
}

/// How long ago something was, in one unit as kubectl does: `12s`, `3m`, `5h`, `2d`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    duration(now.as_second().saturating_sub(then.as_second()).max(0))
}

/// A number of seconds in one unit.
pub fn duration(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time with its age: `2026-11-21 07:28:56 UTC (3m ago)`.
pub fn time(then: Timestamp, now: Timestamp) -> String {
    format!("{} ({} ago)", then.strftime("%Y-%m-%d %H:%M:%S UTC"), age(then, now))
}

/// Reads seconds: `90`, `90s`, `10m`, `2h`, `7d`.
///
/// # Errors
/// Says what is understood.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = split_number(text);
    let factor = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(format!("{text:?} is no time: write 90, 90s, 10m, 2h or 7d")),
    };
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} is no time: write 90, 90s, 10m, 2h or 7d"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is too long"))
}

/// Reads milliseconds: `500ms`, and all that [`parse_seconds`] reads.
///
/// # Errors
/// Says what is understood.
pub fn parse_milliseconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time: write 500ms, 30s, 2m or 1h");
    match split_number(text) {
        (digits, "ms") => digits.parse().map_err(|_| wrong()),
        _ => parse_seconds(text).map_err(|_| wrong())?.checked_mul(1_000).ok_or_else(wrong),
    }
}

/// Reads a size in MiB: `512`, `512m`, `2g` (powers of 1024).
///
/// # Errors
/// Says what is understood.
pub fn parse_mib(text: &str) -> Result<u64, String> {
    parse_size(text, 1 << 20, "512m or 2g").map(|bytes| bytes >> 20)
}

/// Reads a size in GiB: `10`, `10g`, `2t` (powers of 1024); a rest is rounded up.
///
/// # Errors
/// Says what is understood.
pub fn parse_gib(text: &str) -> Result<u64, String> {
    parse_size(text, 1 << 30, "10g or 2t").map(|bytes| bytes.div_ceil(1 << 30))
}

/// Whether a text looks like a size with a unit, as in `10g`.
pub fn is_size(text: &str) -> bool {
    let (digits, unit) = split_number(text);
    !digits.is_empty() && !unit.is_empty() && parse_gib(text).is_ok()
}

fn parse_size(text: &str, unit_default: u64, examples: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write {examples}");
    let (digits, unit) = split_number(text);
    let unit = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => unit_default,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim())
}

/// `1 instance`, `2 instances`.
pub fn counted(count: usize, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) if !noun.ends_with("key") => format!("{count} {stem}ies"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_and_read() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536 << 20, "1.5 GiB"),
            (10 << 30, "10 GiB"),
            (700 << 20, "700 MiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (text, mib) in [("512", 512), ("512m", 512), ("2g", 2048), ("2GiB", 2048), ("1t", 1 << 20)] {
            assert_eq!(parse_mib(text), Ok(mib), "{text}");
        }
        assert_eq!(parse_gib("10"), Ok(10));
        assert_eq!(parse_gib("1025m"), Ok(2));
        for bad in ["", "g", "1x", "-1", "1.5g", "99999999999t"] {
            assert!(parse_gib(bad).is_err(), "{bad}");
        }
        assert!(is_size("10g") && !is_size("10") && !is_size("data"));
    }

    #[test]
    fn times_are_written_and_read() {
        for (seconds, text) in [(0, "0s"), (119, "119s"), (120, "2m"), (7_200, "2h"), (172_800, "2d")] {
            assert_eq!(duration(seconds), text);
        }
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7_200), ("1d", 86_400)] {
            assert_eq!(parse_seconds(text), Ok(seconds));
        }
        assert!(parse_seconds("soon").is_err());
        for (text, ms) in [("500ms", 500), ("2s", 2_000), ("3", 3_000), ("1m", 60_000)] {
            assert_eq!(parse_milliseconds(text), Ok(ms));
        }
        assert!(parse_milliseconds("0.5s").is_err() && parse_milliseconds("18446744073709551615h").is_err());
    }
}
