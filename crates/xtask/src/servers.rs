//! Servers that the tests start themselves: fetched, and not installed, for their packages would have the system start one.

use crate::inputs::target_folder;
use crate::steps::run_in;
use std::fs;

/// The Debian package, and the program in it.
const SERVERS: &[(&str, &str)] = &[("etcd-server", "usr/bin/etcd")];

/// Puts what is missing into `inputs/bin`.
pub(crate) fn fetch() -> Result<(), String> {
    let folder = target_folder()?.join("inputs");
    let bin = folder.join("bin");
    for (package, program) in SERVERS {
        let to = bin.join(program.rsplit('/').next().unwrap_or(program));
        if to.exists() {
            continue;
        }
        let scratch = folder.join("unfinished-servers");
        let failed = |error: std::io::Error| format!("cannot prepare {}: {error}", to.display());
        fs::create_dir_all(&bin).and_then(|()| fs::create_dir_all(&scratch)).map_err(failed)?;
        // A fresh machine has no lists of packages, or old ones.
        run_in(&scratch, "apt-get", &["download", package])
            .or_else(|_| {
                run_in(&scratch, "apt-get", &["update", "--quiet"])?;
                run_in(&scratch, "apt-get", &["download", package])
            })
            .and_then(|()| run_in(&scratch, "sh", &["-c", "dpkg-deb -x *.deb ."]))
            .map_err(|why| format!("{why}; the tests start {program} of the Debian package {package}"))?;
        fs::rename(scratch.join(program), &to).map_err(failed)?;
        fs::remove_dir_all(&scratch).map_err(failed)?;
    }
    Ok(())
}
