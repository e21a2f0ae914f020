//! `mount.steradian`: what `mount` and `/etc/fstab` call for the file system type `steradian` (mount(8), "external helpers"). It is
//! `sr` by another name; its arguments are those of `sr mount` in another form.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The name that it is called by.
const NAME: &str = "mount.steradian";
/// Options for whoever reads `/etc/fstab`, and those that are as it is here anyway.
const FOR_OTHERS: &[&str] = &[
    "defaults",
    "rw",
    "auto",
    "noauto",
    "nouser",
    "nofail",
    "_netdev",
    "nodev",
    "nosuid",
    "exec",
    "async",
    "atime",
    "noatime",
    "relatime",
    "norelatime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "silent",
    "loud",
];

/// The command line to go by: as it is, or of `sr mount` for a helper; `None`: there is nothing to do. An error is a sentence
/// for the user.
pub(crate) fn command_line(arguments: Vec<OsString>) -> Result<Option<Vec<OsString>>, String> {
    let name = arguments.first().and_then(|name| Path::new(name).file_name());
    if name == Some(OsStr::new(NAME)) { translate(&arguments[1..]) } else { Ok(Some(arguments)) }
}

/// `SOURCE DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]`
fn translate(arguments: &[OsString]) -> Result<Option<Vec<OsString>>, String> {
    let (mut places, mut options) = (Vec::new(), Vec::new());
    let mut is_feigned = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("-o") => options.push(rest.next().ok_or("-o needs options")?),
            Some("-N") => {
                return Err("it cannot mount in another namespace: run it there (`nsenter`)".to_owned());
            }
            Some("-t") => drop(rest.next()),
            Some(flags) if flags.len() > 1 && flags.starts_with('-') => is_feigned |= flags.contains('f'),
            Some(_) | None => places.push(argument),
        }
    }
    let [source, at] = places[..] else {
        return Err(format!("usage: {NAME} PATH DIR [-o OPTIONS]"));
    };
    let mut line = vec![OsString::from("sr"), OsString::from("mount")];
    for option in options.iter().flat_map(|options| options.as_bytes().split(|byte| *byte == b',')) {
        line.extend(translate_option(option)?);
    }
    line.extend([OsString::from("--subtree"), subtree(source)?, OsString::from("--"), at.clone()]);
    Ok((!is_feigned).then_some(line))
}

/// The part of the cloud that a source names: a path in it, with or without what `/proc/mounts` shows before it.
fn subtree(source: &OsStr) -> Result<OsString, String> {
    let bytes = source.as_bytes();
    let path = bytes.strip_prefix(b"steradian:").unwrap_or(bytes);
    if !path.starts_with(b"/") {
        let shown = source.display();
        return Err(format!(
            "cannot mount {shown}: a source is a path of the cloud, as in `/` or `steradian:/`"
        ));
    }
    Ok(OsStr::from_bytes(path).to_owned())
}

fn translate_option(option: &[u8]) -> Result<Vec<OsString>, String> {
    let (name, value) = match option.iter().position(|byte| *byte == b'=') {
        Some(at) => (&option[..at], Some(OsStr::from_bytes(&option[at + 1..]).to_owned())),
        None => (option, None),
    };
    let name = String::from_utf8_lossy(name);
    let flag = |flag: &str| Ok(vec![OsString::from(flag)]);
    match (&*name, value) {
        ("ro", None) => flag("--read-only"),
        ("allow_other", None) => flag("--allow-other"),
        ("context_file", Some(value)) => Ok(vec![OsString::from("--context"), value]),
        ("disk_cache", Some(value)) => Ok(vec![OsString::from("--disk-cache"), value]),
        ("disk_cache_dir", Some(value)) => Ok(vec![OsString::from("--disk-cache-dir"), value]),
        ("cache" | "log", Some(value)) => Ok(vec![OsString::from(format!("--{name}")), value]),
        ("", None) => Ok(Vec::new()),
        (name, None) if FOR_OTHERS.contains(&name) => Ok(Vec::new()),
        (name, _) if name.starts_with("x-") || name.starts_with("X-") || name == "comment" => Ok(Vec::new()),
        ("remount", _) => Err("it cannot be mounted anew with other options: unmount it first".to_owned()),
        ("suid" | "dev" | "noexec" | "sync" | "dirsync" | "mand", None) => {
            Err(format!("a mount of the cloud cannot have the option {name}"))
        }
        (name, _) => Err(format!(
            "it knows no option {name}; those of its own are ro, allow_other, cache=SIZE, disk_cache=SIZE, disk_cache_dir=DIR, context_file=FILE, log=FILE"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Vec<String>, String> {
        let line = command_line(words.iter().map(OsString::from).collect())?;
        Ok(line.into_iter().flatten().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn what_is_called_by_its_own_name_is_left_as_it_is() {
        assert_eq!(of(&["/usr/bin/sr", "ls", "-o"]).unwrap(), ["/usr/bin/sr", "ls", "-o"]);
    }

    #[test]
    fn a_line_of_fstab_becomes_a_mount() {
        let options = "ro,_netdev,x-systemd.automount,context_file=/etc/steradian/context.toml,cache=1G,disk_cache=20G,disk_cache_dir=/ssd,allow_other";
        assert_eq!(
            of(&["/sbin/mount.steradian", "steradian:/projects", "/mnt/a b", "-n", "-o", options]).unwrap(),
            [
                "sr",
                "mount",
                "--read-only",
                "--context",
                "/etc/steradian/context.toml",
                "--cache",
                "1G",
                "--disk-cache",
                "20G",
                "--disk-cache-dir",
                "/ssd",
                "--allow-other",
                "--subtree",
                "/projects",
                "--",
                "/mnt/a b"
            ]
        );
        assert_eq!(
            of(&["mount.steradian", "/", "-d"]).unwrap_err(),
            "usage: mount.steradian PATH DIR [-o OPTIONS]"
        );
        let line = of(&["mount.steradian", "steradian:/", "/mnt", "-o", "rw,defaults", "-v"]).unwrap();
        assert_eq!(line, ["sr", "mount", "--subtree", "/", "--", "/mnt"]);
    }

    #[test]
    fn what_it_cannot_do_is_refused() {
        for options in ["remount,ro", "suid", "unknown=1", "ro=1", "context_file", "context=f"] {
            let refused = of(&["mount.steradian", "/", "/mnt", "-o", options]);
            assert!(refused.is_err(), "{options}: {refused:?}");
        }
        assert!(of(&["mount.steradian", "cloud", "/mnt"]).is_err());
        assert!(of(&["mount.steradian", "/", "/mnt", "-sf"]).unwrap().is_empty());
        assert!(of(&["mount.steradian", "/", "/mnt", "-N", "/proc/1/ns/mnt"]).is_err());
        assert!(of(&["mount.steradian", "/", "/mnt", "-o"]).is_err());
    }
}
