//! Who keeps the roll, and gives certificates: the authority's directory, opened by one process at a time.

use super::place::{AUTHORITY, ETCD_AUTHORITY};
use super::roll::{Member, Roll, Settings};
use super::wire::{MetadataPart, StoragePart, StorePart, VERSION, Welcome, Wish};
use crate::roles::directory::Directory;
use net::{Application, Authority};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use types::NodeId;

/// The roll's file.
const ROLL: &str = "machines.toml";

pub(super) struct Registrar {
    directory: Directory,
    authority: Authority,
    /// Signs for members of etcd and who may use it: nobody else has a certificate of it, so neither users nor storage servers can go past
    /// the metadata servers to what is in etcd.
    etcd: Option<Authority>,
    roll: Roll,
    /// Those whose address another machine may have.
    replace: BTreeSet<IpAddr>,
    _lock: File,
}

impl Registrar {
    /// Begins a cluster below `directory`. There is none before [`Registrar::keep`].
    pub(super) fn create(directory: &Directory, settings: Settings) -> Result<Registrar, String> {
        let directory = Directory::open(&directory.path(AUTHORITY))?;
        let lock = directory.lock()?;
        let authority = directory.make_authority("Steradian")?;
        let etcd = match settings.has_etcd() {
            true => Some(Directory::open(&directory.path(ETCD_AUTHORITY))?.make_authority("Steradian etcd")?),
            false => None,
        };
        let (roll, replace) = (Roll::new(settings), BTreeSet::new());
        Ok(Registrar { directory, authority, etcd, roll, replace, _lock: lock })
    }

    /// Whether a cluster was begun in `directory`.
    pub(super) fn is_in(directory: &Path) -> bool {
        directory.join(AUTHORITY).join(ROLL).exists()
    }

    /// Opens what [`Registrar::create`] made below `directory`.
    pub(super) fn open(directory: &Directory, replace: BTreeSet<IpAddr>) -> Result<Registrar, String> {
        let place = directory.path(AUTHORITY);
        if !Registrar::is_in(&directory.path("")) {
            return Err(format!(
                "there is no {}: give the directory of the machine where `sr cluster init` was run",
                place.join(ROLL).display()
            ));
        }
        let directory = Directory::existing(&place)?;
        let lock = directory.lock()?;
        let path = directory.path(ROLL);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let roll: Roll = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let authority = directory.authority()?;
        let etcd = match roll.cluster.has_etcd() {
            true => Some(Directory::existing(&directory.path(ETCD_AUTHORITY))?.authority()?),
            false => None,
        };
        if let Some(nobody) = replace.iter().find(|ip| !roll.machines.iter().any(|m| m.address == **ip)) {
            return Err(format!("--replace {nobody}: no machine with this address has joined"));
        }
        Ok(Registrar { directory, authority, etcd, roll, replace, _lock: lock })
    }

    /// Writes the roll.
    pub(super) fn keep(&self) -> Result<(), String> {
        let text = toml::to_string(&self.roll).map_err(|error| format!("cannot write {ROLL}: {error}"))?;
        self.directory.write(ROLL, &text)
    }

    /// The machine that `sr cluster init` was run on.
    pub(super) fn first(&self) -> Option<IpAddr> {
        self.roll.machines.first().map(|machine| machine.address)
    }

    /// Takes a machine in. When this answers, its numbers are on the disk.
    pub(super) fn admit(&mut self, wish: &Wish) -> Result<Welcome, String> {
        let before = self.roll.clone();
        let welcome = self.welcome(wish)?;
        if self.roll != before
            && let Err(why) = self.keep()
        {
            self.roll = before;
            return Err(format!("on the machine that invites: {why}"));
        }
        Ok(welcome)
    }

    /// Takes a machine in, for now in memory only.
    pub(super) fn welcome(&mut self, wish: &Wish) -> Result<Welcome, String> {
        if wish.version != VERSION {
            return Err(
                "the other machine has another version of sr: install the same one on both".to_owned()
            );
        }
        if wish.authority.as_deref().is_some_and(|known| known != self.authority.certificate_pem()) {
            return Err("that directory is of another cluster: join with an empty one".to_owned());
        }
        let application = Application::parse(&wish.application)
            .map_err(|error| format!("the application for certificates is of no use: {error}"))?;
        let mut roll = self.roll.clone();
        let member = roll.admit(wish, &application.key(), &self.replace)?;
        let cluster = &roll.cluster;
        let metadata = match cluster.metadata_at(member.address) {
            Some(number) => Some(MetadataPart {
                number,
                certificate: certify(&self.authority, &application, number, &member)?,
                copies: cluster.copies,
                wait_for: cluster.wait_for,
                domain: cluster.domain.clone(),
                store: self.store(cluster, &application, number, &member)?,
            }),
            None => None,
        };
        let storage = match member.storage {
            Some(number) => Some(StoragePart {
                number,
                certificate: certify(&self.authority, &application, number, &member)?,
                targets: member.targets.clone(),
                site: member.site.clone(),
                rack: member.rack.clone(),
            }),
            None => None,
        };
        let metadata_machines = cluster.metadata.clone();
        self.roll = roll;
        let authority = self.authority.certificate_pem().to_owned();
        Ok(Welcome { address: member.address, authority, metadata_machines, metadata, storage })
    }

    fn store(
        &self,
        cluster: &Settings,
        application: &Application,
        number: u32,
        member: &Member,
    ) -> Result<StorePart, String> {
        Ok(match (&cluster.store, &self.etcd) {
            (Some(place), _) => StorePart::Elsewhere(place.clone()),
            (None, None) => StorePart::Local,
            (None, Some(etcd)) => StorePart::Etcd {
                authority: etcd.certificate_pem().to_owned(),
                certificate: certify(etcd, application, number, member)?,
                // Two clusters never take each other's members for their own.
                cluster: format!(
                    "steradian-{}",
                    &blake3::hash(etcd.certificate_pem().as_bytes()).to_hex()[..16]
                ),
            },
        })
    }
}

/// Of a server of this machine.
fn certify(
    authority: &Authority,
    application: &Application,
    number: u32,
    member: &Member,
) -> Result<String, String> {
    authority
        .certify_node(application, NodeId(number), &[member.address.to_string()])
        .map_err(|error| format!("cannot issue a certificate: {error}"))
}
