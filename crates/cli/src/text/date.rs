//! Dates: a calendar, and the machine's time zone.

use types::Time;

/// A moment on a calendar, at some offset from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
}

impl Civil {
    /// The moment `seconds` after 1970-01-01 00:00:00 of the same zone.
    fn from_seconds(seconds: i64) -> Civil {
        // Howard Hinnant's days-to-civil: years start in March, so that the leap day is the last.
        let days = seconds.div_euclid(86_400) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            second_of_day: seconds.rem_euclid(86_400),
        }
    }

    /// The inverse of [`Civil::from_seconds`].
    fn seconds(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let shifted = if self.month > 2 { self.month - 3 } else { self.month + 9 };
        let day_of_year = (153 * shifted + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        (era * 146_097 + day_of_era - 719_468) * 86_400 + self.second_of_day
    }

    fn date(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    fn clock(self) -> (i64, i64, i64) {
        (self.second_of_day / 3_600, self.second_of_day / 60 % 60, self.second_of_day % 60)
    }
}

/// `2026-11-20 12:40`, in local time: what `ls -l` shows.
pub(crate) fn minute(time: Time) -> String {
    let civil = Civil::from_seconds(time.seconds() + offset(time.seconds()));
    let (hour, minute, _) = civil.clock();
    format!("{} {hour:02}:{minute:02}", civil.date())
}

/// `2026-11-20 12:40:05.123456789 +0100`, in local time: what `stat` shows.
pub(crate) fn full(time: Time) -> String {
    let offset = offset(time.seconds());
    let civil = Civil::from_seconds(time.seconds() + offset);
    let (hour, minute, second) = civil.clock();
    let sign = if offset < 0 { '-' } else { '+' };
    let ahead = offset.abs() / 60;
    format!(
        "{} {hour:02}:{minute:02}:{second:02}.{:09} {sign}{:02}{:02}",
        civil.date(),
        time.subsecond_nanoseconds(),
        ahead / 60,
        ahead % 60
    )
}

/// `2026-11-20T11:40:05.123456789Z`: what `--json` shows.
pub(crate) fn rfc3339(time: Time) -> String {
    let civil = Civil::from_seconds(time.seconds());
    let (hour, minute, second) = civil.clock();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{:09}Z", civil.date(), time.subsecond_nanoseconds())
}

/// A moment in words: `2026-11-20`, `2026-11-20 12:40[:05]` (local time; `T` may stand for the space, and `Z` or
/// `+01:00` may follow), `@1763640000` (seconds since 1970), or `now`.
pub(crate) fn parse(text: &str, now: Time) -> Result<Time, String> {
    let wrong = || {
        format!(
            "{text:?} is not a time (examples: 2026-11-20, \"2026-11-20 12:40\", 2026-11-20T11:40:05Z, @1763640000, now)"
        )
    };
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse().map(|s| Time::from_parts(s, 0)).map_err(|_| wrong());
    }
    let (date, rest) = text.split_at_checked(10).ok_or_else(wrong)?;
    let mut parts = date.split('-').map(|part| number(part).ok_or_else(wrong));
    let mut next = || parts.next().unwrap_or_else(|| Err(wrong()));
    let mut civil = Civil { year: next()?, month: next()?, day: next()?, second_of_day: 0 };
    let valid = (1..=12).contains(&civil.month) && Civil::from_seconds(civil.seconds()) == civil;
    if !valid || parts.next().is_some() {
        return Err(wrong());
    }
    let rest = rest.strip_prefix(['T', 't', ' ']).unwrap_or(rest).trim();
    let zone = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone);
    civil.second_of_day = clock_seconds(clock.trim()).ok_or_else(wrong)?;
    let seconds = civil.seconds();
    let offset = match zone {
        "" => local_offset(seconds),
        "Z" | "z" => 0,
        zone => zone_offset(zone).ok_or_else(wrong)?,
    };
    Ok(Time::from_parts(seconds - offset, 0))
}

/// A number of digits only.
fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Seconds of `12:40` or `12:40:05`; of nothing, 0.
fn clock_seconds(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let mut parts = text.split(':');
    let hour = number(parts.next()?)?;
    let minute = number(parts.next()?)?;
    let second = parts.next().map_or(Some(0), number)?;
    let valid = hour < 24 && minute < 60 && second < 61 && parts.next().is_none();
    valid.then_some(hour * 3_600 + minute * 60 + second)
}

/// Seconds of `+01:00` or `-0530`.
fn zone_offset(text: &str) -> Option<i64> {
    let (sign, digits) = text.split_at_checked(1)?;
    let digits = digits.replace(':', "");
    let value = number(&digits).filter(|_| digits.len() == 4)?;
    let seconds = (value / 100) * 3_600 + (value % 100) * 60;
    Some(if sign == "-" { -seconds } else { seconds })
}

/// The offset from UTC that holds at the local time `seconds`.
fn local_offset(seconds: i64) -> i64 {
    // Two rounds find it but for the hours that a change of clocks skips or repeats.
    offset(seconds - offset(seconds - offset(seconds)))
}

/// Seconds that local time is ahead of UTC at a moment.
#[allow(unsafe_code, reason = "the C library is the only keeper of the machine's time zone")]
fn offset(seconds: i64) -> i64 {
    let mut broken = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call, and `localtime_r` keeps neither. No thread of this program changes
    // the environment, which it reads.
    let filled = unsafe { libc::localtime_r(&raw const seconds, broken.as_mut_ptr()) };
    if filled.is_null() {
        return 0;
    }
    // SAFETY: all fields of `tm` may be zero, and the call succeeded, so it is filled.
    unsafe { broken.assume_init() }.tm_gmtoff
}

#[cfg(test)]
mod tests;
