//! Which versions of the messages this process speaks.

use std::ffi::OsStr;
use types::wire::{WIRE_VERSION, WIRE_VERSION_MIN, WireVersion};

/// Names the newest version that is spoken: for upgrades in stages, and for tests.
const VARIABLE: &str = "SR_WIRE_VERSION_MAX";

/// The newest version that this process speaks: that of this build, unless the environment says less.
pub(crate) fn newest() -> Result<WireVersion, String> {
    std::env::var_os(VARIABLE).map_or(Ok(WIRE_VERSION), |value| parse(&value))
}

fn parse(value: &OsStr) -> Result<WireVersion, String> {
    let text = value.to_string_lossy();
    let version = text.parse().ok().map(WireVersion);
    version.filter(|version| (WIRE_VERSION_MIN..=WIRE_VERSION).contains(version)).ok_or_else(|| {
        format!("{VARIABLE} is {text:?}: this build speaks versions {WIRE_VERSION_MIN} to {WIRE_VERSION}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_of_this_build_are_spoken() {
        let check = |text: &str| parse(OsStr::new(text));
        assert_eq!(check("4"), Ok(WireVersion(4)));
        assert_eq!(check("5"), Ok(WireVersion(5)));
        for wrong in ["3", "6", "", "new", "-4", "99999"] {
            let said = format!("SR_WIRE_VERSION_MAX is {wrong:?}: this build speaks versions 4 to 5");
            assert_eq!(check(wrong), Err(said));
        }
    }
}
