//! Moments: Unix milliseconds as a person writes and reads them (RFC 3339).

use toml_edit::{Datetime, Offset, Time};

use super::link;
use crate::disk::dates;

/// A moment in the past, as Unix milliseconds: so long ago (`90s`, `15m`, `1h`, `7d`), or at a time of RFC
/// 3339. A time without a zone, or a date alone, is meant in UTC.
pub fn since(text: &str, now_ms: u64) -> Result<u64, String> {
    if let Ok(ago) = link::seconds(text) {
        return Ok(now_ms.saturating_sub(link::millis(ago)));
    }
    let wrong =
        || "give a time ago, such as 90s, 15m, 1h or 7d, or a moment: 2026-11-21T11:30:00Z".to_owned();
    let mut datetime: Datetime = text.parse().map_err(|_| wrong())?;
    let midnight = Time { hour: 0, minute: 0, second: None, nanosecond: None };
    datetime.time = datetime.time.or(Some(midnight));
    datetime.offset = datetime.offset.or(Some(Offset::Z));
    dates::unix_ms(&datetime).map_err(|_| wrong())
}

/// A moment to the second, in UTC.
pub fn utc(ms: u64) -> String {
    dates::datetime(ms / 1_000 * 1_000).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_told() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56.007Z", 951_827_696_007),
            ("2026-11-20T22:27:16+02:00", 1_795_206_436_000),
            ("2026-11-20T20:27:16", 1_795_206_436_000),
            ("2100-03-01", 4_107_542_400_000),
        ] {
            assert_eq!(since(text, 0), Ok(ms), "{text}");
        }
        assert_eq!(utc(951_827_696_007), "2000-02-29T12:34:56Z");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01T00:00:00Z");
        assert!(utc(u64::MAX).ends_with('Z'));
    }

    #[test]
    fn so_long_ago_is_a_moment_too() {
        assert_eq!(since("1h", 5_000_000), Ok(1_400_000));
        assert_eq!(since("7d", 5), Ok(0));
        for wrong in ["", "soon", "12:00:00", "2026-13-01", "1960-01-01", "-1h"] {
            assert!(since(wrong, 0).unwrap_err().contains("15m"), "{wrong}");
        }
    }
}
