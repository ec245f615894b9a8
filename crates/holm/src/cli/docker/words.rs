//! Times and sizes as docker writes them: `About a minute ago`, `4.26MB`.

use jiff::Timestamp;

/// How many digits of an id are shown.
pub const SHORT_DIGITS: usize = 12;

/// A time span as docker tells it.
pub fn span(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1_800) / 3_600);
    let days = hours / 24;
    match seconds {
        ..1 => "Less than a second".to_string(),
        1 => "1 second".to_string(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_string(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_string(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if days < 14 => format!("{days} days"),
        _ if days < 60 => format!("{} weeks", days / 7),
        _ if days < 730 => format!("{} months", days / 30),
        _ => format!("{} years", days / 365),
    }
}

/// How long ago a moment was.
pub fn ago(then_s: i64, now: Timestamp) -> String {
    format!("{} ago", span(now.as_second().saturating_sub(then_s)))
}

/// A moment as docker's lists have it: `2026-01-31 12:00:00 +0000 UTC`.
pub fn moment(then_s: i64) -> String {
    let then = Timestamp::from_second(then_s).unwrap_or_default();
    then.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// A size in powers of 1000, with so many digits.
pub fn size(bytes: f64, digits: usize) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], digits)
}

/// A size in powers of 1024.
pub fn binary_size(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

fn scaled(mut value: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// A number with so many digits that count, without zeros at its end (`%.3g`).
fn significant(value: f64, digits: usize) -> String {
    let before = if value >= 1.0 { value.log10().floor() as usize + 1 } else { 1 };
    let text = format!("{value:.*}", digits.saturating_sub(before));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// At most so many characters, the last an ellipsis where more were there.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    text.chars().take(most.saturating_sub(1)).collect::<String>() + "…"
}

/// The digits of an id that are shown, without `sha256:`.
pub fn short_id(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(SHORT_DIGITS).collect()
}

/// Reads a size as docker's options have it, in bytes: `512m`, `2g`, `1.5GiB`, `100`.
///
/// # Errors
/// It is none.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write it like 512m or 2g");
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| wrong())?;
    let power = match text[end..].trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong()),
    };
    let bytes = number * 1024_f64.powi(power);
    if bytes.is_finite() && bytes < i64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (600, "10 minutes"),
            (3_700, "About an hour"),
            (7_200, "2 hours"),
            (3 * 86_400, "3 days"),
            (21 * 86_400, "3 weeks"),
            (70 * 86_400, "2 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
        for (bytes, text) in [
            (0.0, "0B"),
            (999.0, "999B"),
            (4_260_000.0, "4.26MB"),
            (117_000_000.0, "117MB"),
            (1_000.0, "1kB"),
        ] {
            assert_eq!(size(bytes, 3), text, "{bytes}");
        }
        assert_eq!(size(1_234_567.0, 4), "1.235MB");
        assert_eq!(binary_size(1_572_864.0), "1.5MiB");
        assert_eq!((shortened("abcdef", 4).as_str(), shortened("abc", 4).as_str()), ("abc…", "abc"));
        assert_eq!(parse_bytes("1.5g"), Ok(3 << 29));
        assert_eq!((parse_bytes("64MiB"), parse_bytes("7b")), (Ok(64 << 20), Ok(7)));
        assert!(parse_bytes("x").is_err() && parse_bytes("1z").is_err());
    }
}
