//! Quantities: amounts of CPU, memory and storage as Kubernetes writes them (`250m`, `1.5`, `64Mi`, `1G`, `2e3`).

/// Suffixes and what they stand for, in thousandths.
const SUFFIXES: [(&str, u128); 14] = [
    ("Ki", 1_000 << 10),
    ("Mi", 1_000 << 20),
    ("Gi", 1_000 << 30),
    ("Ti", 1_000 << 40),
    ("Pi", 1_000 << 50),
    ("Ei", 1_000 << 60),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
    ("", 1_000),
];

/// An amount in thousandths, rounded up. `None` for what is no quantity, is negative or beyond all measure.
pub fn thousandths(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
        return None;
    }
    let unit = match SUFFIXES.iter().find(|(known, _)| *known == suffix) {
        Some((_, unit)) => *unit,
        None => {
            let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_u128.checked_pow(exponent.checked_add(3)?)?
        }
    };
    let mut amount = if whole.is_empty() { 0 } else { whole.parse::<u128>().ok()?.checked_mul(unit)? };
    if !fraction.is_empty() {
        let part = fraction.parse::<u128>().ok()?.checked_mul(unit)?;
        amount =
            amount.checked_add(part.div_ceil(10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?))?;
    }
    Some(amount)
}

/// An amount of whole pieces of so many bytes each, rounded up.
pub fn pieces(text: &str, bytes: u64) -> Option<u64> {
    u64::try_from(thousandths(text)?.div_ceil(u128::from(bytes) * 1_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        for (text, wanted) in [
            ("1", Some(1_000)),
            ("0", Some(0)),
            ("250m", Some(250)),
            ("1.5", Some(1_500)),
            (".5", Some(500)),
            ("0.0001", Some(1)),
            ("1k", Some(1_000_000)),
            ("1Ki", Some(1_024_000)),
            ("1e3", Some(1_000_000)),
            ("1E2", Some(100_000)),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("-1", None),
            ("1X", None),
            ("1 Gi", None),
            ("Gi", None),
            ("1e99", None),
            ("99999999999999999999999999999999", None),
        ] {
            assert_eq!(thousandths(text), wanted, "{text:?}");
        }
        for (text, mib) in [
            ("64Mi", Some(64)),
            ("1", Some(1)),
            ("128M", Some(123)),
            ("1Gi", Some(1024)),
            ("1E", Some(953_674_316_407)),
        ] {
            assert_eq!(pieces(text, 1 << 20), mib, "{text:?}");
        }
    }
}
