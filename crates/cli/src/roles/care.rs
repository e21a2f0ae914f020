//! How a storage server looks after its targets: flags and configuration of the scrub.

use crate::text::{size, span};
use clap::Args;
use serde::Deserialize;
use server::storage::ScrubOptions;
use std::time::Duration;

/// Flags of the scrub.
#[derive(Args, Debug, Default)]
pub(crate) struct Care {
    /// Everything on the targets is read and verified once in this time [default: 14d]
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
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
        let period = config.period.as_deref().map(span::parse).transpose();
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

fn parse_rate(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        0 => Err("0 would never come to an end".to_owned()),
        rate => Ok(rate),
    }
}

#[cfg(test)]
mod tests;
