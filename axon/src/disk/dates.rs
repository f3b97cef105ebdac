//! Times as people write them in TOML, and Unix milliseconds.
//!
//! The calendar is the Gregorian one in both directions. Source of the arithmetic: Howard Hinnant,
//! "chrono-Compatible Low-Level Date Algorithms".

use toml_edit::{Date, Datetime, Offset, Time};

const DAY_MS: i64 = 86_400_000;
/// The last millisecond of the year 9999, which is the last that TOML can write.
const LAST_MS: i64 = 253_402_300_799_999;

/// What a time of a file means, or what is wrong with it.
pub fn unix_ms(datetime: &Datetime) -> Result<u64, String> {
    let (Some(date), Some(time)) = (datetime.date, datetime.time) else {
        return Err(match datetime.date {
            Some(date) => format!("has no time of day: write {date}T00:00:00Z"),
            None => "has no date: write such as 2027-01-31T12:00:00Z".to_owned(),
        });
    };
    let Some(offset) = datetime.offset else {
        return Err(format!("does not say in which time zone: write {date}T{time}Z, or with an offset"));
    };
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_from_civil(date.year.into(), date.month.into(), date.day.into());
    let secs = i64::from(time.hour) * 3_600 + i64::from(time.minute) * 60 - minutes * 60
        + i64::from(time.second.unwrap_or_default());
    let ms = i64::from(time.nanosecond.unwrap_or_default() / 1_000_000);
    u64::try_from(days * DAY_MS + secs * 1_000 + ms).map_err(|_| "is before 1970".to_owned())
}

/// A time as it is written to a file, in UTC.
pub fn datetime(unix_ms: u64) -> Datetime {
    // Later than every file can say is as good as never.
    let ms = i64::try_from(unix_ms).unwrap_or(LAST_MS).min(LAST_MS);
    let (year, month, day) = civil_from_days(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    // Each is within the field's range by the division before it.
    let small = |n: i64| u8::try_from(n).unwrap_or_default();
    let nanosecond = u32::try_from(of_day % 1_000).unwrap_or_default() * 1_000_000;
    Datetime {
        date: Some(Date {
            year: u16::try_from(year).unwrap_or_default(),
            month: small(month),
            day: small(day),
        }),
        time: Some(Time {
            hour: small(of_day / 3_600_000),
            minute: small(of_day / 60_000 % 60),
            second: Some(small(of_day / 1_000 % 60)),
            nanosecond: (nanosecond > 0).then_some(nanosecond),
        }),
        offset: Some(Offset::Z),
    }
}

/// Days since 1970-01-01. Years begin in March, so that the leap day is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a day since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Result<u64, String> {
        unix_ms(&text.parse().unwrap())
    }

    #[test]
    fn times_are_those_of_other_clocks() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.001Z", 1),
            ("2000-02-29T12:34:56Z", 951_827_696_000),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("2026-11-21T11:30:00Z", 1_795_260_600_000),
            ("2026-12-31T23:59:59.999Z", 1_798_761_599_999),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(ms(text), Ok(expected), "{text}");
            assert_eq!(datetime(expected).to_string(), text);
        }
        assert_eq!(ms("2026-11-21 13:30:00+02:00"), ms("2026-11-21T11:30:00Z"));
        assert_eq!(ms("2026-11-20T23:30:00-12:00"), ms("2026-11-21T11:30:00Z"));
        assert_eq!(ms("2016-12-31T23:59:60Z"), ms("2017-01-01T00:00:00Z"));
        assert_eq!(ms("2026-11-21T11:30:00.0019999Z"), Ok(1_795_260_600_001));
        assert_eq!(datetime(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn every_day_comes_back() {
        let (mut previous, mut days) = ((1969, 12, 31), 0);
        while previous < (2405, 1, 1) {
            let date = civil_from_days(days);
            assert!(date > previous, "{date:?} after {previous:?}");
            let (year, month, day) = date;
            assert_eq!(days_from_civil(year, month, day), days);
            (previous, days) = (date, days + 1);
        }
        assert_eq!(days, days_from_civil(2405, 1, 1) + 1);
    }

    #[test]
    fn a_time_that_is_none_is_told_with_one_that_is() {
        assert!(ms("2026-11-21").unwrap_err().contains("write 2026-11-21T00:00:00Z"));
        assert!(ms("2026-11-21T11:30:00").unwrap_err().contains("write 2026-11-21T11:30:00Z"));
        assert!(ms("11:30:00").unwrap_err().contains("no date"));
        assert!(ms("1969-12-31T23:59:59Z").unwrap_err().contains("before 1970"));
        assert!(ms("1970-01-01T00:00:00+01:00").unwrap_err().contains("before 1970"));
    }
}
