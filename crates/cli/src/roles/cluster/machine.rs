//! One machine of a cluster: its directory, what it applies with, and how what it is told is written down.

use super::place::{self, CERTIFICATE, ETCD, KEY, META, META_CONFIG, STORAGE, STORAGE_CONFIG};
use super::units::{self, Unit};
use super::wire::{MetadataPart, StoragePart, StorePart, VERSION, Welcome, Wish};
use super::{Machine as Arguments, port, say};
use crate::roles::directory::{Directory, write_private};
use net::{Applicant, Credentials};
use serde::Serialize;
use serde_json::json;
use std::fs::{self, DirBuilder, File, Permissions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The prefix of the keys in etcd.
const PREFIX: &str = "steradian";

/// A machine's directory, which only this process changes.
pub(super) struct Machine {
    pub(super) directory: Directory,
    /// This program, as units start it.
    sr: PathBuf,
    etcd: Option<PathBuf>,
    _lock: File,
}

/// `sr meta --config` reads it.
#[derive(Serialize)]
struct MetaConfig<'a> {
    dir: PathBuf,
    listen: String,
    store: Option<String>,
    copies: u8,
    targets: u32,
    domain: &'a str,
}

/// `sr storage --config` reads it.
#[derive(Serialize)]
struct StorageConfig<'a> {
    dir: PathBuf,
    id: u32,
    listen: String,
    managers: Vec<String>,
    site: Option<&'a str>,
    rack: Option<&'a str>,
    /// An address is one machine's, while the names of machines may be the same: then copies would be taken to share a host.
    host: String,
    targets: toml::Table,
}

impl Machine {
    /// Checks what the user said, as far as this machine can tell, and opens the directory.
    pub(super) fn open(arguments: &Arguments) -> Result<Machine, String> {
        place::check_here(arguments.address)?;
        let absolute = std::path::absolute(&arguments.dir)
            .map_err(|error| format!("{} is no directory: {error}", arguments.dir.display()))?;
        place::check(&absolute)?;
        let sr = std::env::current_exe().map_err(|error| format!("cannot tell where sr is: {error}"))?;
        place::check(&sr).map_err(|why| format!("{why}; move sr, or give it another name"))?;
        let etcd = match &arguments.etcd {
            Some(file) if !file.is_file() => {
                return Err(format!("--etcd {}: there is no such file", file.display()));
            }
            Some(file) => Some(fs::canonicalize(file).map_err(|error| format!("--etcd: {error}"))?),
            None => units::etcd_in_path(),
        };
        if let Some(etcd) = &etcd {
            place::check(etcd)?;
        }
        // What is not there yet is made for this user only.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&absolute)
            .map_err(|error| format!("cannot make the directory {}: {error}", absolute.display()))?;
        let directory = Directory::open(&absolute)?;
        place::check(&directory.path(""))?;
        let lock = directory.lock()?;
        Ok(Machine { directory, sr, etcd, _lock: lock })
    }

    /// What this machine asks for. Its key is made at the first time, and is on the disk before anybody hears of it.
    pub(super) fn wish(&self, arguments: &Arguments) -> Result<Wish, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot apply for certificates: {error}");
        let path = self.directory.path(KEY);
        let applicant = match fs::read_to_string(&path) {
            Ok(key) => Applicant::load(&key)
                .map_err(|error| format!("{} cannot be used: {error}", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let applicant = Applicant::create().map_err(|error| failed(&error))?;
                self.directory.write(KEY, &applicant.key_pem())?;
                applicant
            }
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        Ok(Wish {
            version: VERSION,
            address: arguments.address,
            application: applicant.application().map_err(|error| failed(&error))?,
            authority: fs::read_to_string(self.directory.path(CERTIFICATE)).ok(),
            storage: !arguments.no_storage,
            targets: arguments.targets.clone(),
            site: arguments.site.clone(),
            rack: arguments.rack.clone(),
        })
    }

    /// Writes down what the machine is. May be done again.
    pub(super) fn settle(&self, welcome: &Welcome) -> Result<(), String> {
        let key = fs::read_to_string(self.directory.path(KEY))
            .map_err(|error| format!("cannot read {}: {error}", self.directory.path(KEY).display()))?;
        self.directory.write(CERTIFICATE, &welcome.authority)?;
        if let Some(metadata) = &welcome.metadata {
            self.settle_metadata(metadata, welcome, &key)?;
        }
        if let Some(storage) = &welcome.storage {
            self.settle_storage(storage, welcome, &key)?;
        }
        Ok(())
    }

    fn settle_metadata(&self, part: &MetadataPart, welcome: &Welcome, key: &str) -> Result<(), String> {
        self.keep(META, &welcome.authority, &part.certificate, key)?;
        let store = match &part.store {
            StorePart::Local => None,
            StorePart::Elsewhere(place) => Some(place.clone()),
            StorePart::Etcd { authority, certificate, .. } => {
                self.keep(ETCD, authority, certificate, key)?;
                Some(self.etcd_place(welcome))
            }
        };
        let config = MetaConfig {
            dir: self.directory.path(META),
            listen: SocketAddr::new(welcome.address, port::METADATA).to_string(),
            store,
            copies: part.copies,
            targets: part.wait_for,
            domain: &part.domain,
        };
        self.write_config(META_CONFIG, &config)
    }

    fn settle_storage(&self, part: &StoragePart, welcome: &Welcome, key: &str) -> Result<(), String> {
        self.keep(STORAGE, &welcome.authority, &part.certificate, key)?;
        let managers = welcome.metadata_machines.iter();
        let targets = self.targets(part).into_iter();
        let config = StorageConfig {
            dir: self.directory.path(STORAGE),
            id: part.number,
            listen: SocketAddr::new(welcome.address, port::STORAGE).to_string(),
            managers: managers.map(|ip| SocketAddr::new(*ip, port::METADATA).to_string()).collect(),
            site: part.site.as_deref(),
            rack: part.rack.as_deref(),
            host: welcome.address.to_string(),
            targets: targets.map(|(number, path)| (number.to_string(), path.into())).collect(),
        };
        self.write_config(STORAGE_CONFIG, &config)
    }

    /// The targets with their directories.
    fn targets(&self, part: &StoragePart) -> Vec<(u32, String)> {
        let own = |number: u32| self.directory.path(STORAGE).join(format!("targets/{number}"));
        let targets = part.targets.iter().map(|target| {
            let directory = target.directory.clone().unwrap_or_else(|| own(target.number));
            (target.number, directory.display().to_string())
        });
        targets.collect()
    }

    /// All members of etcd, this machine's first: it is the nearest.
    fn etcd_place(&self, welcome: &Welcome) -> String {
        let others = welcome.metadata_machines.iter().filter(|other| **other != welcome.address);
        let members = std::iter::once(&welcome.address).chain(others);
        let members: Vec<_> = members.map(|ip| SocketAddr::new(*ip, port::ETCD).to_string()).collect();
        let file = |name: &str| self.directory.path(ETCD).join(name).display().to_string();
        let (ca, cert, key) = (file("authority.pem"), file("node.pem"), file("node.key"));
        format!("etcd://{}/{PREFIX}?ca={ca}&cert={cert}&key={key}", members.join(","))
    }

    fn keep(&self, role: &str, authority: &str, certificate: &str, key: &str) -> Result<(), String> {
        let credentials = Credentials {
            authority: authority.to_owned(),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        Directory::open(&self.directory.path(role))?.keep("node", &credentials)
    }

    /// A config that was changed by hand is set aside.
    fn write_config(&self, name: &str, config: &impl Serialize) -> Result<(), String> {
        let path = self.directory.path(name);
        let text =
            toml::to_string(config).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        if let Ok(before) = fs::read_to_string(&path)
            && before != text
        {
            let aside = format!("{name}.before");
            self.directory.write(&aside, &before)?;
            tracing::warn!(file = %path.display(), before = %self.directory.path(&aside).display(), "a config was written anew");
        }
        self.directory.write(name, &text)
    }

    /// The units that run what this machine is.
    pub(super) fn units(&self, welcome: &Welcome) -> Vec<Unit> {
        let place = units::Place { directory: self.directory.path(""), sr: self.sr.clone() };
        let mut units = Vec::new();
        let store = welcome.metadata.as_ref().map(|metadata| &metadata.store);
        if let (Some(metadata), Some(StorePart::Etcd { cluster, .. })) = (&welcome.metadata, store) {
            let program = self.etcd.clone().unwrap_or_else(|| PathBuf::from(units::ETCD_DEFAULT));
            let member =
                units::Member { number: metadata.number, cluster, machines: &welcome.metadata_machines };
            units.push(place.etcd(&program, welcome.address, &member));
        }
        if welcome.metadata.is_some() {
            units.push(place.metadata(matches!(store, Some(StorePart::Etcd { .. }))));
        }
        if let Some(storage) = &welcome.storage {
            let targets = self.targets(storage);
            units.push(
                place.storage(targets.iter().map(|(_, path)| Path::new(path)), welcome.metadata.is_some()),
            );
        }
        units
    }

    /// Whether etcd is to run here and is not there yet.
    fn lacks_etcd(&self, welcome: &Welcome) -> bool {
        let store = welcome.metadata.as_ref().map(|metadata| &metadata.store);
        self.etcd.is_none() && matches!(store, Some(StorePart::Etcd { .. }))
    }

    /// Tells the user what the machine is, and what to do next.
    pub(super) fn tell(
        &self,
        welcome: &Welcome,
        arguments: &Arguments,
        next: &[String],
    ) -> Result<(), String> {
        let (units, directory) = (self.units(welcome), self.directory.path(""));
        if let Some(to) = &arguments.units {
            write_units(to, &units)?;
        }
        if arguments.json {
            say(json!({
                "record": "machine",
                "directory": directory,
                "address": welcome.address,
                "metadata": welcome.metadata.as_ref().map(|part| part.number),
                "storage": welcome.storage.as_ref().map(|part| part.number),
                "targets": welcome.storage.as_ref().map(|part| {
                    let targets = self.targets(part).into_iter();
                    targets.map(|(number, path)| (number.to_string(), path)).collect::<std::collections::BTreeMap<_, _>>()
                }),
                "units": units.iter().map(|unit| (unit.name, unit.text.as_str())).collect::<std::collections::BTreeMap<_, _>>(),
            }));
            return Ok(());
        }
        say(format!("this machine, {}, is {}", welcome.address, words(welcome)));
        say(format!("everything of it is in {}", directory.display().to_string().trim_end_matches('/')));
        if arguments.units.is_none() {
            for unit in &units {
                say(format!("\n# {}/{}\n{}", units::FOLDER, unit.name, unit.text.trim_end()));
            }
        }
        say("\nNext, on this machine:");
        if self.lacks_etcd(welcome) {
            say(format!("  install etcd 3.4 or later: its unit starts {}", units::ETCD_DEFAULT));
        }
        match &arguments.units {
            None => say(format!(
                "  write the units above to {} (--units {} does it)",
                units::FOLDER,
                units::FOLDER
            )),
            Some(to) if to != Path::new(units::FOLDER) => {
                say(format!("  cp {}/steradian-*.service {}/", to.display(), units::FOLDER));
            }
            Some(_) => {}
        }
        let names: Vec<_> = units.iter().map(|unit| unit.name.trim_end_matches(".service")).collect();
        say("  systemctl daemon-reload");
        say(format!("  systemctl enable --now {}", names.join(" ")));
        next.iter().for_each(say);
        Ok(())
    }
}

/// What a machine is, in words.
pub(super) fn words(welcome: &Welcome) -> String {
    let metadata = welcome.metadata.as_ref().map(|part| format!("metadata server {}", part.number));
    let storage = welcome.storage.as_ref().map(|part| {
        let targets: Vec<_> = part.targets.iter().map(|target| target.number.to_string()).collect();
        let word = if targets.len() == 1 { "target" } else { "targets" };
        format!("storage server {} with {word} {}", part.number, targets.join(", "))
    });
    metadata.into_iter().chain(storage).collect::<Vec<_>>().join(" and ")
}

fn write_units(to: &Path, units: &[Unit]) -> Result<(), String> {
    let directory = Directory::open(to)?;
    for unit in units {
        let path = directory.path(unit.name);
        // Anybody may read it: there is no secret in it.
        write_private(&path, unit.text.as_bytes())
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// How clients and storage servers reach the metadata servers.
pub(super) fn metadata_servers(machines: &[IpAddr]) -> Vec<String> {
    machines.iter().map(|ip| SocketAddr::new(*ip, port::METADATA).to_string()).collect()
}
