//! The directory of a cluster or of one server: what is where in it.
//!
//! ```text
//! authority.pem, authority.key   the certificate authority (only where `sr up` or `sr ca init` made it)
//! node.pem, node.key             this server's certificate
//! context.toml                   what clients need: address and the administrator's certificate
//! admin.pem, admin.key           the administrator's certificate
//! meta/                          the metadata: log and table
//! stores.toml                    which store each target has: see `stores`
//! targets/N/                     chunks: segments and index
//! ```

use net::{Authority, Credentials, User};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use types::{Gid, NodeId, Uid};

/// How long the administrator's certificate is good for. `sr ca user` makes a new one.
pub(super) const ADMIN_VALIDITY: Duration = Duration::from_secs(5 * 365 * 86_400);

/// The age at which `sr up` makes its own certificates anew.
const RENEW_AFTER: Duration = Duration::from_secs(300 * 86_400);

/// A directory with the layout above.
#[derive(Clone)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Opens it, making it if it is not there. What is in it is private to this user.
    pub(crate) fn open(path: &Path) -> Result<Directory, String> {
        fs::create_dir_all(path)
            .map_err(|error| format!("cannot make the directory {}: {error}", path.display()))?;
        let absolute = fs::canonicalize(path)
            .map_err(|error| format!("cannot open the directory {}: {error}", path.display()))?;
        Ok(Directory(absolute))
    }

    /// Opens one that must be there.
    pub(crate) fn existing(path: &Path) -> Result<Directory, String> {
        let absolute = fs::canonicalize(path)
            .map_err(|error| format!("cannot open the directory {}: {error}", path.display()))?;
        Ok(Directory(absolute))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Keeps other processes from serving the same directory, while the answer lives.
    pub(crate) fn lock(&self) -> Result<fs::File, String> {
        let path = self.path("lock");
        let failed = |error: &dyn std::fmt::Display| format!("cannot lock {}: {error}", path.display());
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| failed(&error))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(format!(
                "{} is in use by another process: stop that one, or use another directory",
                self.0.display()
            )),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Reads a file.
    pub(crate) fn read(&self, name: &str) -> Result<String, String> {
        let path = self.path(name);
        fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    }

    /// Writes a file that only its owner may read, whole or not at all.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.path(name);
        write_private(&path, text.as_bytes())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), String> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", path.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The authority kept here.
    pub(crate) fn authority(&self) -> Result<Authority, String> {
        let (certificate, key) = (self.read("authority.pem")?, self.read("authority.key")?);
        Authority::load(&certificate, &key)
            .map_err(|error| format!("the authority in {} cannot be used: {error}", self.0.display()))
    }

    /// Makes an authority here. Refuses to replace one: all certificates it gave would be void.
    pub(crate) fn make_authority(&self, name: &str) -> Result<Authority, String> {
        if self.has("authority.key") {
            return Err(format!(
                "{} has an authority already; a new one would void every certificate it gave",
                self.0.display()
            ));
        }
        let authority =
            Authority::create(name).map_err(|error| format!("cannot make an authority: {error}"))?;
        self.write("authority.key", &authority.key_pem())?;
        self.write("authority.pem", authority.certificate_pem())?;
        Ok(authority)
    }

    /// Certificate and key kept under `name`.
    pub(crate) fn credentials(&self, name: &str) -> Result<Credentials, String> {
        Ok(Credentials {
            authority: self.read("authority.pem")?,
            certificate: self.read(&format!("{name}.pem"))?,
            key: self.read(&format!("{name}.key"))?,
        })
    }

    /// Keeps a certificate and its key under `name`.
    pub(crate) fn keep(&self, name: &str, credentials: &Credentials) -> Result<(), String> {
        self.write(&format!("{name}.key"), &credentials.key)?;
        self.write(&format!("{name}.pem"), &credentials.certificate)?;
        if !self.has("authority.pem") {
            self.write("authority.pem", &credentials.authority)?;
        }
        Ok(())
    }

    /// Whether a certificate is missing, or old enough to be made anew: those of servers are good for two years.
    fn is_due(&self, name: &str) -> bool {
        let made = fs::metadata(self.path(name)).and_then(|found| found.modified()).ok();
        made.is_none_or(|made| made.elapsed().unwrap_or_default() > RENEW_AFTER)
    }

    /// The authority, and certificates for one server and the administrator: made at the first start, renewed at later
    /// ones.
    pub(crate) fn prepare(&self, node: NodeId, hosts: &[String]) -> Result<(), String> {
        if !self.has("authority.pem") {
            self.make_authority("Steradian")?;
        }
        if self.is_due("node.pem") {
            let credentials = self
                .authority()?
                .issue_node(node, hosts)
                .map_err(|error| format!("cannot make the server's certificate: {error}"))?;
            self.keep("node", &credentials)?;
        }
        if self.is_due("admin.pem") {
            let credentials = self
                .authority()?
                .issue_user(&administrator(), ADMIN_VALIDITY)
                .map_err(|error| format!("cannot make the administrator's certificate: {error}"))?;
            self.keep("admin", &credentials)?;
        }
        Ok(())
    }
}

/// The user whom no permission stops.
pub(crate) fn administrator() -> User {
    User { name: "admin".to_owned(), uid: Uid::ROOT, groups: vec![Gid(0)] }
}

/// Writes a file that only its owner may read: under another name, synced, then renamed.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let unfinished = path.with_file_name(name);
    let written = (|| {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    })();
    if written.is_err() {
        // What is left behind is overwritten by the next attempt.
        let _ = fs::remove_file(&unfinished);
    }
    written
}
