//! `xattr`.

use crate::outcome::Stop;
use crate::remote::{self, Missing};
use crate::session::Session;
use clap::{Args, Subcommand};
use client::glob::Match;
use serde::Serialize;
use std::io::Read;
use types::meta::{Follow, XATTR_VALUE_MAX, XattrReplace};

/// Read and change extended attributes.
#[derive(Args, Debug)]
pub(crate) struct Xattr {
    #[command(subcommand)]
    command: XattrCommand,
}

#[derive(Subcommand, Debug)]
enum XattrCommand {
    /// Print the value of an attribute, as it is.
    #[command(after_help = "Example:\n  sr xattr get /data/a.csv user.origin")]
    Get { path: String, name: String },
    /// Set an attribute.
    #[command(
        after_help = "Examples:\n  sr xattr set /data/a.csv user.origin 'camera 3'\n  sr xattr set /data/a.csv user.thumbnail --stdin < thumb.png"
    )]
    Set {
        path: String,
        name: String,
        #[arg(required_unless_present = "stdin", allow_hyphen_values = true)]
        value: Option<String>,
        /// The value is the standard input.
        #[arg(long, conflicts_with = "value")]
        stdin: bool,
        /// Refuse when the attribute is there.
        #[arg(long, conflicts_with = "replace")]
        create: bool,
        /// Refuse when the attribute is not there.
        #[arg(long)]
        replace: bool,
    },
    /// List the attributes of files, with their values.
    #[command(after_help = "Examples:\n  sr xattr ls /data/a.csv\n  sr xattr ls --json '/data/*'")]
    Ls {
        /// One JSON object per line; values are text, or hexadecimal where they are none.
        #[arg(long)]
        json: bool,
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
    /// Remove an attribute.
    #[command(after_help = "Example:\n  sr xattr rm /data/a.csv user.origin")]
    Rm { path: String, name: String },
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    name: &'a str,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl Xattr {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        match self.command {
            XattrCommand::Get { path, name } => {
                let value =
                    session.client.get_xattr(remote::normal(&path).as_str(), Follow::Yes, &name).await?;
                session.out.bytes(&value)?;
                if session.out.is_terminal() { session.out.line("") } else { Ok(()) }
            }
            XattrCommand::Set { path, name, value, stdin, create, replace } => {
                let value = if stdin { from_stdin()? } else { value.unwrap_or_default().into_bytes() };
                let replace = match (create, replace) {
                    (true, _) => XattrReplace::MustBeNew,
                    (_, true) => XattrReplace::MustExist,
                    _ => XattrReplace::Either,
                };
                let path = remote::normal(&path);
                Ok(session.client.set_xattr(path.as_str(), Follow::Yes, &name, &value, replace).await?)
            }
            XattrCommand::Ls { json, paths } => list(session, json, &paths).await,
            XattrCommand::Rm { path, name } => {
                Ok(session.client.remove_xattr(remote::normal(&path).as_str(), Follow::Yes, &name).await?)
            }
        }
    }
}

fn from_stdin() -> Result<Vec<u8>, Stop> {
    let mut value = Vec::new();
    // One byte more than is allowed tells that it is too long.
    let limit = u64::try_from(XATTR_VALUE_MAX).unwrap_or(u64::MAX) + 1;
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut value);
    read.map_err(|error| Stop::message(format!("cannot read the standard input: {error}")))?;
    if value.len() > XATTR_VALUE_MAX {
        return Err(Stop::usage(format!("the value is longer than {XATTR_VALUE_MAX} bytes")));
    }
    Ok(value)
}

async fn list(session: &mut Session, json: bool, paths: &[String]) -> Result<(), Stop> {
    let found = remote::expand(
        &session.client,
        &session.report,
        "list attributes of",
        paths,
        Follow::Yes,
        Missing::Fails,
    )
    .await?;
    for Match { path, .. } in found {
        let names = session.client.list_xattrs(path.as_str(), Follow::Yes).await;
        for name in session.report.item(names)?.unwrap_or_default() {
            let value = session.client.get_xattr(path.as_str(), Follow::Yes, &name).await;
            let value = match value {
                Ok(value) => value,
                Err(error) => {
                    session.report.failed(error)?;
                    continue;
                }
            };
            let text = std::str::from_utf8(&value).ok();
            let hex = text.is_none().then(|| hexadecimal(&value));
            if json {
                session.out.json(&Line { path: &path, name: &name, size: value.len(), value: text, hex })?;
            } else {
                let value = match (&text, hex) {
                    (Some(text), _) => format!("{text:?}"),
                    (None, hex) => format!("0x{}", hex.unwrap_or_default()),
                };
                let line = format!("{}: {} = {value}", session.out.name(&path), session.out.name(&name));
                session.out.line(&line)?;
            }
        }
    }
    Ok(())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
