//! Lengths of time, from text and to it.

use std::time::Duration;

/// `14d`, `36h`, `90m`, `30s`, with or without a space.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time (examples: 14d, 36h, \"90 m\")");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let seconds: u64 = match unit.trim() {
        "d" => 86_400,
        "h" => 3_600,
        "m" | "min" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let all = number.checked_mul(seconds).filter(|seconds| (1..=SECONDS_MAX).contains(seconds));
    all.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is not between 1s and 3650d"))
}

/// Ten years.
const SECONDS_MAX: u64 = 3650 * 86_400;

/// A length of time as [`parse`] takes it, in the largest unit that leaves no rest.
pub(crate) fn words(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let fits = units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    let (unit, name) = fits.unwrap_or((1, "s"));
    format!("{}{name}", seconds / unit)
}

#[cfg(test)]
mod tests;
