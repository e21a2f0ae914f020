//! How a storage server looks after its targets: flags and configuration of the scrub.

use crate::text::size;
use clap::Args;
use serde::Deserialize;
use server::storage::ScrubOptions;
use std::time::Duration;

/// Flags of the scrub.
#[derive(Args, Debug, Default)]
pub(crate) struct Care {
    /// Everything on the targets is read and verified once in this time [default: 14d]
    #[arg(long, value_name = "TIME", value_parser = parse_period)]
    scrub_period: Option<Duration>,
    /// Bytes a second that verifying reads of one target at most [default: 64M]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    scrub_rate: Option<u64>,
}

/// The same in a config file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CareConfig {
    period: Option<String>,
    rate: Option<String>,
}

impl Care {
    /// What holds: a flag, or else the config, or else the default.
    pub(crate) fn options(&self, config: &CareConfig) -> Result<ScrubOptions, String> {
        let wrong = |key: &str, why: String| format!("scrub.{key} in the config: {why}");
        let period = config.period.as_deref().map(parse_period).transpose();
        let rate = config.rate.as_deref().map(parse_rate).transpose();
        let default = ScrubOptions::default();
        Ok(ScrubOptions {
            period: self
                .scrub_period
                .or(period.map_err(|why| wrong("period", why))?)
                .unwrap_or(default.period),
            limit: self.scrub_rate.or(rate.map_err(|why| wrong("rate", why))?).unwrap_or(default.limit),
        })
    }
}

/// `14d`, `36h`, `90m`, `30s`, with or without a space.
fn parse_period(text: &str) -> Result<Duration, String> {
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

fn parse_rate(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        0 => Err("0 would never come to an end".to_owned()),
        rate => Ok(rate),
    }
}

#[cfg(test)]
mod tests;
