//! `find`.

use crate::item::Item;
use crate::outcome::Stop;
use crate::remote::{self, Missing};
use crate::session::Session;
use crate::text::{date, size};
use clap::Args;
use client::WalkOptions;
use client::glob::{Match, Pattern};
use std::time::{SystemTime, UNIX_EPOCH};
use types::meta::Follow;
use types::{Attributes, FileKind, Time};

/// Find files and directories by what they are.
#[derive(Args, Debug)]
#[command(
    after_help = "All tests given must hold. One dash will do for them, as in find(1).\n\nExamples:\n  sr find /data -name '*.csv' -size +10M\n  sr find / -type d -name 'tmp*'\n  sr find /data -newer /data/marker\n  sr find /data -newer '2026-11-01 08:00' --json"
)]
pub(crate) struct Find {
    /// The name matches this wildcard pattern.
    #[arg(long, value_name = "GLOB")]
    name: Option<String>,
    /// The name matches, whether letters are small or capital.
    #[arg(long, value_name = "GLOB")]
    iname: Option<String>,
    /// The size in bytes (or with K, M, G, T): +N more than, -N less than, N exactly.
    #[arg(long, value_name = "[+-]N", allow_hyphen_values = true)]
    size: Option<SizeTest>,
    /// Modified after the file REF was, or after this date and time.
    #[arg(long, value_name = "REF")]
    newer: Option<String>,
    /// The kind: f file, d directory, l symbolic link, p fifo, s socket, c or b device; several as f,d.
    #[arg(long = "type", value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<KindTest>,
    /// Empty files and directories.
    #[arg(long)]
    empty: bool,
    /// The owner's number.
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// Levels to go down; 0 is PATH alone.
    #[arg(long, value_name = "N")]
    maxdepth: Option<u32>,
    /// Levels that are left out from the top.
    #[arg(long, value_name = "N", default_value_t = 0)]
    mindepth: u32,
    /// End each path with a zero byte instead of a new line.
    #[arg(short = '0', long = "null", visible_alias = "print0", conflicts_with = "json")]
    null: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    #[arg(default_value = "/", value_name = "PATH")]
    paths: Vec<String>,
}

/// Options that may be written with one dash, and whether a value follows.
const SINGLE_DASHED: [(&str, bool); 11] = [
    ("-name", true),
    ("-iname", true),
    ("-size", true),
    ("-newer", true),
    ("-type", true),
    ("-uid", true),
    ("-maxdepth", true),
    ("-mindepth", true),
    ("-empty", false),
    ("-print0", false),
    ("-json", false),
];

/// The arguments of `find` with two dashes where users of find(1) write one. A value that follows is tied to its
/// option, so that it may start with a dash.
pub(crate) fn double_dashes(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Vec<std::ffi::OsString> {
    let mut result = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            result.push(argument);
            result.extend(arguments);
            break;
        }
        let known = SINGLE_DASHED.iter().find(|(name, _)| argument == *name);
        let Some((name, has_value)) = known else {
            result.push(argument);
            continue;
        };
        let mut doubled = std::ffi::OsString::from(format!("-{name}"));
        if *has_value && let Some(value) = arguments.next() {
            doubled.push("=");
            doubled.push(value);
        }
        result.push(doubled);
    }
    result
}

/// A size that `-size` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SizeTest {
    More(u64),
    Less(u64),
    Exactly(u64),
}

impl std::str::FromStr for SizeTest {
    type Err = String;

    fn from_str(text: &str) -> Result<SizeTest, String> {
        match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(more), _) => size::parse(more).map(SizeTest::More),
            (_, Some(less)) => size::parse(less).map(SizeTest::Less),
            _ => size::parse(text).map(SizeTest::Exactly),
        }
    }
}

impl SizeTest {
    fn holds(self, length: u64) -> bool {
        match self {
            SizeTest::More(than) => length > than,
            SizeTest::Less(than) => length < than,
            SizeTest::Exactly(this) => length == this,
        }
    }
}

/// A kind that `-type` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KindTest(FileKind);

impl std::str::FromStr for KindTest {
    type Err = String;

    fn from_str(text: &str) -> Result<KindTest, String> {
        Ok(KindTest(match text {
            "f" => FileKind::File,
            "d" => FileKind::Directory,
            "l" => FileKind::SymbolicLink,
            "p" => FileKind::Fifo,
            "s" => FileKind::Socket,
            "c" => FileKind::CharacterDevice,
            "b" => FileKind::BlockDevice,
            _ => return Err(format!("{text:?} is no kind (f, d, l, p, s, c or b)")),
        }))
    }
}

/// What is asked for, ready to be tested.
struct Tests {
    name: Option<Pattern>,
    iname: Option<Pattern>,
    size: Option<SizeTest>,
    newer: Option<Time>,
    kinds: Vec<KindTest>,
    empty: bool,
    uid: Option<u32>,
}

impl Tests {
    fn hold(&self, name: &str, attributes: &Attributes) -> bool {
        let is_file = attributes.kind == FileKind::File;
        let can_be_empty = is_file || attributes.kind == FileKind::Directory;
        self.name.as_ref().is_none_or(|pattern| pattern.matches(name))
            && self.iname.as_ref().is_none_or(|pattern| pattern.matches(&name.to_lowercase()))
            && self.size.is_none_or(|size| is_file && size.holds(attributes.length))
            && self.newer.is_none_or(|newer| attributes.modified > newer)
            && (self.kinds.is_empty() || self.kinds.contains(&KindTest(attributes.kind)))
            && (!self.empty || (can_be_empty && attributes.length == 0))
            && self.uid.is_none_or(|uid| attributes.uid.0 == uid)
    }
}

impl Find {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let tests = self.tests(session).await?;
        let found = remote::expand(
            &session.client,
            &session.report,
            "search",
            &self.paths,
            Follow::No,
            Missing::Fails,
        )
        .await?;
        for Match { path, attributes } in found {
            if self.mindepth == 0 && tests.hold(remote::base(&path), &attributes) {
                self.show(session, &path, &attributes)?;
            }
            session.report.done();
            if attributes.kind == FileKind::Directory && self.maxdepth != Some(0) {
                self.below(session, &path, &tests).await?;
            }
        }
        Ok(())
    }

    async fn below(&self, session: &mut Session, path: &str, tests: &Tests) -> Result<(), Stop> {
        let options = WalkOptions { depth_max: self.maxdepth, ..WalkOptions::default() };
        let mut walk = session.client.walk(path, options);
        while let Some(page) = walk.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    session.report.failed(error)?;
                    continue;
                }
            };
            if page.depth.saturating_add(1) < self.mindepth {
                continue;
            }
            for entry in page.entries.iter().filter(|entry| tests.hold(&entry.name, &entry.attributes)) {
                let path = remote::join(&remote::normal(&page.directory), &entry.name);
                self.show(session, &path, &entry.attributes)?;
            }
            // The next page may take a while, and somebody may be waiting at the end of a pipe.
            session.out.flush()?;
        }
        Ok(())
    }

    fn show(&self, session: &mut Session, path: &str, attributes: &Attributes) -> Result<(), Stop> {
        if self.json {
            session.out.json(&Item::new(path, attributes))
        } else {
            session.out.entry(path, self.null)
        }
    }

    async fn tests(&self, session: &Session) -> Result<Tests, Stop> {
        let pattern = |text: &str| {
            Pattern::parse(text).map_err(|error| Stop::usage(format!("{text:?} is no pattern: {}", error.0)))
        };
        let newer = match &self.newer {
            None => None,
            Some(reference) => Some(moment(session, reference).await?),
        };
        Ok(Tests {
            name: self.name.as_deref().map(pattern).transpose()?,
            iname: self.iname.as_deref().map(|text| pattern(&text.to_lowercase())).transpose()?,
            size: self.size,
            newer,
            kinds: self.kinds.clone(),
            empty: self.empty,
            uid: self.uid,
        })
    }
}

/// When the file `reference` was modified; if there is no such file, the date that it is.
async fn moment(session: &Session, reference: &str) -> Result<Time, Stop> {
    let path = remote::normal(reference);
    if let Some(attributes) = session.client.try_stat(path.as_str(), Follow::Yes).await? {
        return Ok(attributes.modified);
    }
    date::parse(reference, now()).map_err(|_| {
        Stop::usage(format!("-newer {reference}: neither a path in the cloud nor a date and time"))
    })
}

/// This machine's time.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
