//! Contexts: where the servers are, and as whom to speak to them.

use crate::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the servers are, and as whom to speak to them. A TOML file; unknown keys are refused.
///
/// ```toml
/// servers = ["127.0.0.1:7400"]
///
/// [security]
/// mode = "tls"
/// authority = "ca.pem"        # or the PEM text itself
/// certificate = "admin.pem"
/// key = "admin.key"
/// ```
///
/// Files are named relative to the context file's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `host:port` of the metadata servers; one that does not answer is passed over.
    pub servers: Vec<String>,
    pub security: ContextSecurity,
    /// Where relative file names start.
    #[serde(skip)]
    pub directory: PathBuf,
}

/// See [`Context`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase", deny_unknown_fields)]
pub enum ContextSecurity {
    /// TLS 1.3, both certificates checked. Each is PEM text, or the name of a file that holds it.
    Tls { authority: String, certificate: String, key: String },
    /// No encryption: only where the administrator turned it off for the whole cluster.
    Plain { name: String, user: u32, groups: Vec<u32> },
}

impl Context {
    /// Reads a context file.
    pub fn load(path: &Path) -> Result<Context> {
        let refuse = |cause: String| {
            Error::new(ErrorKind::Context, "use the context file", path.display().to_string(), cause)
        };
        let text = std::fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
        let mut context: Context = toml::from_str(&text).map_err(|e| refuse(e.to_string()))?;
        if context.servers.is_empty() {
            return Err(refuse("it names no servers".to_string()));
        }
        context.directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(context)
    }

    /// Writes a context file, whole or not at all, readable by its owner only (it may hold a key).
    pub fn save(&self, path: &Path) -> Result<()> {
        let refuse = |cause: String| {
            Error::new(ErrorKind::Context, "write the context file", path.display().to_string(), cause)
        };
        let text = toml::to_string(self).map_err(|e| refuse(e.to_string()))?;
        write_private(path, text.as_bytes()).map_err(|e| refuse(e.to_string()))
    }

    /// PEM text as it is, or the contents of the file it names.
    pub fn resolve(&self, pem: &str) -> Result<String> {
        if pem.trim_start().starts_with("-----BEGIN") {
            return Ok(pem.to_string());
        }
        let path = self.directory.join(pem);
        std::fs::read_to_string(&path).map_err(|e| {
            Error::new(ErrorKind::Context, "read the credentials", path.display().to_string(), e.to_string())
        })
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    let renamed = written.and_then(|()| std::fs::rename(&fresh, path));
    if renamed.is_err() {
        // The half-made file is of no use; the first error is the one to tell.
        std::fs::remove_file(&fresh).unwrap_or_default();
    }
    renamed
}

#[cfg(test)]
mod tests;
