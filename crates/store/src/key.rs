//! Where things lie in the engine: the one place that builds and takes apart keys.
//!
//! ```text
//!   /holm/record/<table>/<key>      one record; the key may hold further slashes
//!   /holm/unique/<scope>/<value>    who owns a unique value; the value is percent-encoded, so it is always
//!                                   the last segment
//! ```

/// Everything of ours lies below this.
pub(crate) const ROOT: &str = "/holm/";
/// Records lie below this.
pub const RECORD_ROOT: &str = "/holm/record/";
/// Unique claims lie below this.
pub const UNIQUE_ROOT: &str = "/holm/unique/";

/// The engine key of a record.
pub fn record_key(table: &str, key: &str) -> String {
    format!("{RECORD_ROOT}{table}/{key}")
}

/// The engine key of a unique value. The value may be any text; bytes that a key cannot hold are encoded.
pub fn unique_key(scope: &str, value: &str) -> String {
    let mut key = format!("{UNIQUE_ROOT}{scope}/");
    for byte in value.bytes() {
        match byte {
            b'%' | b'/' => push_encoded(&mut key, byte),
            _ if byte.is_ascii_graphic() => key.push(char::from(byte)),
            _ => push_encoded(&mut key, byte),
        }
    }
    key
}

/// The table and the record's key, if this is the engine key of a record.
pub(crate) fn parse_record_key(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(RECORD_ROOT)?.split_once('/')
}

fn push_encoded(key: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    key.push('%');
    key.push(char::from(DIGITS[usize::from(byte >> 4)]));
    key.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_values_never_leave_their_segment_and_never_collide() {
        let check = |scope: &str, value: &str, wanted: &str| assert_eq!(unique_key(scope, value), wanted);
        check("network-name/p1", "web", "/holm/unique/network-name/p1/web");
        check("cidr", "10.0.0.0/8", "/holm/unique/cidr/10.0.0.0%2F8");
        check("cidr", "10.0.0.0%2F8", "/holm/unique/cidr/10.0.0.0%252F8");
        check("name", "grün 1", "/holm/unique/name/gr%C3%BCn%201");
    }

    #[test]
    fn record_keys_come_apart_as_they_were_put_together() {
        assert_eq!(parse_record_key(&record_key("port", "a/b")), Some(("port", "a/b")));
        assert_eq!(parse_record_key("/holm/unique/a/b"), None);
        assert_eq!(parse_record_key("/other"), None);
    }
}
