//! `chmod` and `chown`.

use crate::accounts::{self, Kind};
use crate::jobs::{self, Jobs};
use crate::outcome::Stop;
use crate::remote::{self, Missing};
use crate::session::Session;
use crate::text::mode::ModeChange;
use clap::Args;
use client::glob::Match;
use client::{Client, WalkOptions};
use types::meta::{Follow, SetAttributes};
use types::{Attributes, FileKind, Gid, Mode, Uid};

/// Change permissions.
#[derive(Args, Debug)]
#[command(
    after_help = "MODE is octal (644) or symbolic (u+x, go-w, a+rX, u=rw,go=r). Symbolic links are not changed by -R.\n\nExamples:\n  sr chmod 640 /data/a.csv\n  sr chmod -R go-rwx /private\n  sr chmod a+rX '/pub/*'"
)]
pub(crate) struct Chmod {
    /// All below, too.
    #[arg(short = 'R', long)]
    recursive: bool,
    #[arg(allow_hyphen_values = true)]
    mode: String,
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

impl Chmod {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let change = ModeChange::parse(&self.mode).map_err(Stop::Usage)?;
        let umask = session.umask;
        let set = move |attributes: &Attributes| {
            (attributes.kind != FileKind::SymbolicLink).then(|| SetAttributes {
                mode: Some(changed(&change, attributes, umask)),
                ..SetAttributes::default()
            })
        };
        change_all(session, &self.paths, Follow::Yes, self.recursive, set).await
    }
}

fn changed(change: &ModeChange, attributes: &Attributes, umask: u16) -> Mode {
    change.apply(attributes.mode, attributes.kind, umask)
}

/// Change owners.
#[derive(Args, Debug)]
#[command(
    after_help = "Owners and groups are kept as numbers: what the certificate of a user says. Names are looked up on this machine. Only the administrator gives files away.\n\nExamples:\n  sr chown alice /data/a.csv\n  sr chown -R 1000:100 /data\n  sr chown :100 '/pub/*'"
)]
pub(crate) struct Chown {
    /// All below, too.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Symbolic links themselves, not what they lead to.
    #[arg(long)]
    no_dereference: bool,
    #[arg(value_name = "OWNER[:GROUP]")]
    owner: String,
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

impl Chown {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let (uid, gid) = owner(&self.owner).map_err(Stop::Usage)?;
        let follow = if self.no_dereference { Follow::No } else { Follow::Yes };
        let set = SetAttributes { uid, gid, ..SetAttributes::default() };
        change_all(session, &self.paths, follow, self.recursive, move |_| Some(set)).await
    }
}

/// Reads `alice`, `1000:users` or `:100`.
fn owner(text: &str) -> Result<(Option<Uid>, Option<Gid>), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() && group.is_empty() {
        return Err(format!("{text:?} names neither an owner nor a group: as in alice, 1000:users or :100"));
    }
    let number = |kind, name: &str| (!name.is_empty()).then(|| accounts::number(kind, name)).transpose();
    Ok((number(Kind::User, user)?.map(Uid), number(Kind::Group, group)?.map(Gid)))
}

/// Sets on each path, and on all below if `recursive`, what `set` says; `None` leaves an item alone. A directory is
/// changed after what is in it was listed, so that taking away one's own rights does not stop the work half way.
async fn change_all(
    session: &Session,
    paths: &[String],
    follow: Follow,
    recursive: bool,
    set: impl Fn(&Attributes) -> Option<SetAttributes>,
) -> Result<(), Stop> {
    let Session { client, report, .. } = session;
    let found = remote::expand(client, report, "change", paths, follow, Missing::Fails).await?;
    let mut jobs = Jobs::new(jobs::METADATA);
    for Match { path, attributes } in found {
        let mut directories = Vec::new();
        if recursive && attributes.kind == FileKind::Directory {
            let mut walk = client.walk(path.as_str(), WalkOptions::default());
            while let Some(page) = walk.next().await {
                let page = match page {
                    Ok(page) => page,
                    Err(error) => {
                        report.failed(error)?;
                        continue;
                    }
                };
                let directory = remote::normal(&page.directory);
                for entry in &page.entries {
                    let Some(set) = set(&entry.attributes) else { continue };
                    let path = remote::join(&directory, &entry.name);
                    if entry.attributes.kind == FileKind::Directory {
                        directories.push((path, Follow::No, set));
                    } else {
                        start(session, &mut jobs, path, Follow::No, set).await?;
                    }
                }
            }
        }
        // The deepest first: they were found last.
        for (path, follow, set) in directories.into_iter().rev() {
            start(session, &mut jobs, path, follow, set).await?;
        }
        finish(&mut jobs).await?;
        if let Some(set) = set(&attributes) {
            start(session, &mut jobs, path, follow, set).await?;
        }
    }
    finish(&mut jobs).await
}

async fn start(
    session: &Session,
    jobs: &mut Jobs<()>,
    path: String,
    follow: Follow,
    set: SetAttributes,
) -> Result<(), Stop> {
    while !jobs.has_room() {
        jobs.next().await.unwrap_or(Ok(()))?;
    }
    let (client, report): (Client, _) = (session.client.clone(), session.report.clone());
    jobs.start(async move { report.item(client.set_attributes(path.as_str(), follow, set).await).map(drop) });
    Ok(())
}

async fn finish(jobs: &mut Jobs<()>) -> Result<(), Stop> {
    while let Some(ended) = jobs.next().await {
        ended?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
