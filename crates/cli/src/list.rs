//! `ls`, `tree` and `stat`.

use crate::item::{Item, Row, Sizes, Widths};
use crate::outcome::Stop;
use crate::remote::{self, Missing};
use crate::session::Session;
use crate::text::{date, mode, size};
use clap::{ArgAction, Args};
use client::glob::Match;
use client::{ListOptions, WalkOptions};
use types::meta::{Entry, Follow};
use types::{Attributes, FileKind, Mode};

/// List directories.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  sr ls /\n  sr ls -lh /data '/logs/*.gz'\n  sr ls -R --json /data | jq .path"
)]
pub(crate) struct Ls {
    /// Mode, links, owner, group, size and time of each entry.
    #[arg(short = 'l', long = "long")]
    long: bool,
    /// Sizes with units (4.0K, 12M).
    #[arg(short = 'h', long = "human-readable")]
    human: bool,
    /// All below, too.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Directories themselves, not their entries.
    #[arg(short = 'd', long)]
    directory: bool,
    /// All entries (always so: nothing is hidden here).
    #[arg(short = 'a', long, hide = true)]
    all: bool,
    /// One JSON object per line.
    #[arg(long, conflicts_with_all = ["long", "null"])]
    json: bool,
    /// Whole paths, each ended by a zero byte instead of a new line.
    #[arg(short = '0', long, conflicts_with = "long")]
    null: bool,
    /// Print help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// What to list; wildcards are matched by the servers (quote them).
    #[arg(default_value = "/")]
    paths: Vec<String>,
}

impl Ls {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        // As `ls` does: a link to a directory is listed itself with -l, entered without.
        let follow = if self.long || self.directory { Follow::No } else { Follow::Yes };
        let found = expand_leniently(session, &self.paths, follow).await?;
        let is_entered = |item: &Match| item.attributes.kind == FileKind::Directory && !self.directory;
        let (directories, others): (Vec<Match>, Vec<Match>) = found.into_iter().partition(is_entered);
        let several = directories.len() + others.len() > 1 || self.recursive || self.paths.len() > 1;
        let shown: Vec<(&str, &str, &Attributes)> =
            others.iter().map(|m| (m.path.as_str(), m.path.as_str(), &m.attributes)).collect();
        self.show(session, &shown)?;
        shown.iter().for_each(|_| session.report.done());
        let mut first = others.is_empty();
        for directory in &directories {
            let headed = if several { Headings::Shown } else { Headings::None };
            self.directory(session, &directory.path, headed, &mut first).await?;
        }
        Ok(())
    }

    async fn directory(
        &self,
        session: &mut Session,
        path: &str,
        headings: Headings,
        first: &mut bool,
    ) -> Result<(), Stop> {
        let depth_max = if self.recursive { None } else { Some(1) };
        let mut walk = session.client.walk(path, WalkOptions { depth_max, ..WalkOptions::default() });
        while let Some(page) = walk.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    session.report.failed(error)?;
                    continue;
                }
            };
            let directory = remote::normal(&page.directory);
            if page.first {
                session.report.done();
                if headings == Headings::Shown && !self.json && !self.null {
                    let gap = if std::mem::take(first) { "" } else { "\n" };
                    let heading = format!("{gap}{}:", session.out.name(&directory));
                    session.out.line(&heading)?;
                }
            }
            self.entries(session, &directory, &page.entries)?;
        }
        Ok(())
    }

    fn entries(&self, session: &mut Session, directory: &str, entries: &[Entry]) -> Result<(), Stop> {
        let whole = self.json || self.null;
        let paths: Vec<String> = if whole {
            entries.iter().map(|e| remote::join(directory, &e.name)).collect()
        } else {
            Vec::new()
        };
        let shown: Vec<(&str, &str, &Attributes)> = entries
            .iter()
            .enumerate()
            .map(|(at, entry)| {
                let path = paths.get(at).map_or("", String::as_str);
                (path, if self.null { path } else { entry.name.as_str() }, &entry.attributes)
            })
            .collect();
        self.show(session, &shown)
    }

    /// Shows items: path, name, attributes.
    fn show(&self, session: &mut Session, items: &[(&str, &str, &Attributes)]) -> Result<(), Stop> {
        if self.json {
            return items
                .iter()
                .try_for_each(|(path, _, attributes)| session.out.json(&Item::new(path, attributes)));
        }
        if !self.long {
            return items.iter().try_for_each(|(_, name, _)| session.out.entry(name, self.null));
        }
        let sizes = Sizes::from_flag(self.human);
        let rows: Vec<Row> = items.iter().map(|(_, _, attributes)| Row::new(attributes, sizes)).collect();
        let widths = Widths::of(&rows);
        for (row, (_, name, attributes)) in rows.iter().zip(items) {
            let mut line = widths.line(row);
            line.push_str(&session.out.name(name));
            if let Some(target) = &attributes.target {
                line.push_str(" -> ");
                line.push_str(&session.out.name(target));
            }
            session.out.line(&line)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Headings {
    Shown,
    None,
}

/// As [`remote::expand`], but a link that leads nowhere stands for itself.
async fn expand_leniently(session: &Session, paths: &[String], follow: Follow) -> Result<Vec<Match>, Stop> {
    let Session { client, report, .. } = session;
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        let exact = remote::normal(path);
        let there = match client.try_stat(exact.as_str(), follow).await {
            Ok(None) => client.try_stat(exact.as_str(), Follow::No).await,
            other => other,
        };
        match there {
            Ok(Some(attributes)) => found.push(Match { path: exact, attributes }),
            Ok(None) => {
                let one = std::slice::from_ref(path);
                found.append(&mut remote::expand(client, report, "list", one, follow, Missing::Fails).await?);
            }
            Err(error) => report.failed(error)?,
        }
    }
    Ok(found)
}

/// Show all there is to know about files and directories.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  sr stat /data/a.csv\n  sr stat --json '/data/*.csv'\n  sr stat -L /link"
)]
pub(crate) struct StatCommand {
    /// What a symbolic link leads to, not the link.
    #[arg(short = 'L', long)]
    dereference: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    #[arg(required = true)]
    paths: Vec<String>,
}

impl StatCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let follow = if self.dereference { Follow::Yes } else { Follow::No };
        let found =
            remote::expand(&session.client, &session.report, "show", &self.paths, follow, Missing::Fails)
                .await?;
        let classes = session.client.routing().classes.clone();
        for Match { path, attributes } in &found {
            let class = attributes.layout.and_then(|layout| classes.iter().find(|c| c.id == layout.class));
            let class = class.map(|class| class.name.as_str());
            if self.json {
                session.out.json(&Item::new(path, attributes).of_class(class))?;
            } else {
                let path = session.out.name(path).into_owned();
                let target = attributes.target.as_deref().map(|target| session.out.name(target).into_owned());
                for line in described(&path, target.as_deref(), attributes, class) {
                    session.out.line(&line)?;
                }
            }
            session.report.done();
        }
        Ok(())
    }
}

fn described(path: &str, target: Option<&str>, attributes: &Attributes, class: Option<&str>) -> Vec<String> {
    let Attributes { inode, kind, mode, uid, gid, links, length, .. } = attributes;
    let arrow = target.map(|target| format!(" -> {target}")).unwrap_or_default();
    let size = match kind {
        FileKind::File => format!("{length} ({})", size::words(*length)),
        FileKind::Directory => format!("{length} entries"),
        _ => length.to_string(),
    };
    let mut lines = vec![
        format!("    Path: {path}{arrow}"),
        format!("    Kind: {}", mode::kind_word(*kind)),
        format!("    Size: {size}"),
        format!("   Inode: {inode}   Links: {links}"),
        format!(
            "    Mode: {:04o} {}   Uid: {uid}   Gid: {gid}",
            mode.0 & Mode::MASK,
            mode::string(*kind, *mode)
        ),
    ];
    if let Some(layout) = attributes.layout {
        let chunks = layout.chunks(*length).unwrap_or(u32::MAX);
        let class = class.unwrap_or("?");
        let each = size::words(u64::from(layout.chunk_size));
        let written = if attributes.dense { "" } else { " (may have holes)" };
        lines.push(format!("   Class: {class}   Chunks: {chunks} of {each}{written}"));
    }
    for (label, time) in [
        ("Modified", attributes.modified),
        ("Accessed", attributes.accessed),
        (" Changed", attributes.changed),
        ("    Born", attributes.born),
    ] {
        lines.push(format!("{label}: {}", date::full(time)));
    }
    lines
}

/// Show directories as a tree.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  sr tree /data\n  sr tree -L 2 /")]
pub(crate) struct Tree {
    /// Levels to show.
    #[arg(short = 'L', long = "level", value_parser = clap::value_parser!(u32).range(1..))]
    level: Option<u32>,
    /// Directories only.
    #[arg(short = 'd', long)]
    directories: bool,
    #[arg(default_value = "/")]
    paths: Vec<String>,
}

#[derive(Default)]
struct Counts {
    directories: u64,
    files: u64,
}

impl Tree {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let found = remote::expand(
            &session.client,
            &session.report,
            "show",
            &self.paths,
            Follow::Yes,
            Missing::Fails,
        )
        .await?;
        let mut counts = Counts::default();
        for Match { path, attributes } in found {
            let line = session.out.name(&path).into_owned();
            session.out.line(&line)?;
            if attributes.kind == FileKind::Directory {
                self.below(session, path, &mut counts).await?;
            }
            session.report.done();
        }
        let Counts { directories, files } = counts;
        session.out.line("")?;
        session.out.line(&format!("{directories} directories, {files} files"))
    }

    /// Shows a directory's tree, deep first, without recursion: the stack holds what is still to be shown of each level.
    async fn below(&self, session: &mut Session, path: String, counts: &mut Counts) -> Result<(), Stop> {
        let entries = self.entries(session, &path).await?;
        let mut stack = vec![(path, entries.into_iter(), String::new())];
        while let Some((path, entries, indent)) = stack.last_mut() {
            let Some(entry) = entries.next() else {
                stack.pop();
                continue;
            };
            let is_last = entries.as_slice().is_empty();
            let is_directory = entry.attributes.kind == FileKind::Directory;
            let branch = if is_last { "└── " } else { "├── " };
            let mut line = format!("{indent}{branch}{}", session.out.name(&entry.name));
            if let Some(target) = &entry.attributes.target {
                line.push_str(" -> ");
                line.push_str(&session.out.name(target));
            }
            let child = remote::join(path, &entry.name);
            let below = format!("{indent}{}", if is_last { "    " } else { "│   " });
            session.out.line(&line)?;
            if !is_directory {
                counts.files += 1;
                continue;
            }
            counts.directories += 1;
            let depth = u32::try_from(stack.len()).unwrap_or(u32::MAX);
            if self.level.is_none_or(|level| depth < level) {
                let entries = self.entries(session, &child).await?;
                stack.push((child, entries.into_iter(), below));
            }
        }
        Ok(())
    }

    async fn entries(&self, session: &Session, path: &str) -> Result<Vec<Entry>, Stop> {
        let mut entries = match session.client.list(path, ListOptions::default()).collect().await {
            Ok(entries) => entries,
            Err(error) => {
                session.report.failed(error)?;
                Vec::new()
            }
        };
        if self.directories {
            entries.retain(|entry| entry.attributes.kind == FileKind::Directory);
        }
        Ok(entries)
    }
}
