//! Days and local times, counted here: proleptic Gregorian calendar, years 0001 to 9998.

/// Days since 1970-01-01 of an ISO date `YYYY-MM-DD`.
pub fn day(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (
        number(&bytes[..4])?,
        number(&bytes[5..7])?,
        number(&bytes[8..])?,
    );
    let fits = (1..=9998).contains(&year)
        && (1..=12).contains(&month)
        && day >= 1
        && day <= month_length(year, month);
    fits.then(|| days_before(year, month) + day - 1)
}

/// Microseconds since 1970-01-01T00:00 of a Java local date-time, fractions of a microsecond cut off.
pub fn local_time(text: &str) -> Option<i64> {
    let day = day(text.get(..10)?)?;
    let bytes = text.as_bytes();
    let two = |at: usize| number(bytes.get(at..at + 2)?);
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    if !is(10, b'T') || !is(13, b':') {
        return None;
    }
    let (hour, minute) = (two(11)?, two(14)?);
    let mut second = 0;
    let mut micros = 0;
    if bytes.len() > 16 {
        second = two(17).filter(|_| is(16, b':'))?;
    }
    if bytes.len() > 19 {
        let fraction = bytes
            .get(20..)
            .filter(|f| is(19, b'.') && (1..=9).contains(&f.len()))?;
        let digits = number(fraction)?;
        let width = u32::try_from(fraction.len()).expect("at most nine");
        micros = digits * 10_i64.pow(9 - width) / 1000;
    }
    let fits = hour < 24 && minute < 60 && second < 60;
    fits.then(|| ((day * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000 + micros)
}

/// The ISO date of a day since 1970-01-01.
pub fn iso(day: i64) -> String {
    let mut year = 1970 + day.div_euclid(365);
    while days_before(year, 1) > day {
        year -= 1;
    }
    while days_before(year + 1, 1) <= day {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_before(year, month + 1) <= day {
        month += 1;
    }
    format!(
        "{year:04}-{month:02}-{:02}",
        day - days_before(year, month) + 1
    )
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0_i64, |n, b| {
        b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0'))
    })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_before(year: i64, month: i64) -> i64 {
    let past = year - 1;
    let leap_days = past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400);
    let months: i64 = (1..month).map(|month| month_length(year, month)).sum();
    past * 365 + leap_days + months - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_says() {
        assert_eq!(day("1970-01-01"), Some(0));
        assert_eq!(day("2000-03-01"), Some(11_017));
        assert_eq!(day("2024-02-29"), Some(19_782));
        assert_eq!(day("0001-01-01"), Some(-719_162));
        for wrong in [
            "2025-02-29",
            "1900-02-29",
            "2025-13-01",
            "2025-00-10",
            "2025-04-31",
            "0000-01-01",
            "9999-01-01",
        ] {
            assert_eq!(day(wrong), None, "{wrong}");
        }
        for wrong in [
            "2025-1-01",
            "20250101",
            "+2025-01-01",
            "2025-01-01 ",
            "２025-01-0",
        ] {
            assert_eq!(day(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_day_survives_the_way_there_and_back() {
        for number in (-719_162..2_932_532).step_by(13) {
            assert_eq!(day(&iso(number)), Some(number));
        }
    }

    #[test]
    fn local_times_are_read_as_java_prints_them() {
        assert_eq!(local_time("1970-01-01T00:00"), Some(0));
        assert_eq!(local_time("1970-01-02T01:02:03"), Some(90_123_000_000));
        assert_eq!(local_time("1970-01-01T00:00:00.1"), Some(100_000));
        assert_eq!(local_time("1970-01-01T00:00:00.123456789"), Some(123_456));
        for wrong in [
            "2025-05-26",
            "2025-05-26 14:23",
            "2025-05-26T14",
            "2025-05-26T14:2",
            "2025-05-26T14:23:",
            "2025-05-26T24:00",
            "2025-05-26T14:60",
            "2025-05-26T14:23:60",
            "2025-05-26T14:23Z",
            "2025-05-26T14:23:51.",
            "2025-05-26T14:23:51.1234567890",
            "2025-05-26T14:23:51+01:00",
            "2025-05-26T14:23.5",
        ] {
            assert_eq!(local_time(wrong), None, "{wrong}");
        }
    }
}
