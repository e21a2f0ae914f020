//! `class`.

use crate::following;
use crate::movement::{self, Patience};
use crate::outcome::Stop;
use crate::remote;
use crate::session::Session;
use crate::text::size;
use clap::{Args, Subcommand, ValueEnum};
use client::{Error, ErrorKind};
use serde::Serialize;
use types::layout::{CHUNK_SIZE_MAX, CHUNK_SIZE_MIN};
use types::movement::Direction;
use types::{ClassId, FailureDomain, Shortfall, StorageClass, TableId};

/// Storage classes: named policies of how data is kept.
#[derive(Args, Debug)]
pub(crate) struct Class {
    #[command(subcommand)]
    command: ClassCommand,
}

#[derive(Subcommand, Debug)]
enum ClassCommand {
    /// List the classes.
    #[command(after_help = "Example:\n  sr class ls --json")]
    Ls {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Show a class.
    #[command(after_help = "Example:\n  sr class show default")]
    Show {
        name: String,
        #[arg(long)]
        json: bool,
    },
    /// Make a class (administrator only).
    #[command(
        after_help = "Examples:\n  sr class create archive --copies 3 --domain rack\n  sr class create scratch --copies 1 --chunk-size 4M\n\nWith too few targets for its copies it is refused."
    )]
    Create {
        name: String,
        /// Copies of each chunk, 1 to 9.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
        copies: u8,
        /// Bytes per chunk: a power of two from 64K to 64M.
        #[arg(long, default_value = "64M", value_parser = size::parse)]
        chunk_size: u64,
        /// What no two copies may share [default: as in the class `default`].
        #[arg(long, value_enum)]
        domain: Option<Domain>,
        /// Only targets at this site (repeat for more); none: any.
        #[arg(long = "site")]
        sites: Vec<String>,
        /// Make it even if there are too few targets: some copies will be missing, or share what they should not.
        #[arg(long)]
        force: bool,
    },
    /// Change how a class keeps its data; all that is in it follows in the background (administrator only).
    ///
    /// Reads and writes go on. `sr repair status` shows how far it is. The chunk size stays: for another one, move the files to another
    /// class (`sr class set`).
    #[command(
        after_help = "Examples:\n  sr class change archive --copies 3 --wait\n  sr class change archive --site berlin --site paris --domain site\n  sr class change archive --any-site"
    )]
    Change {
        name: String,
        /// Copies of each chunk, 1 to 9.
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
        copies: Option<u8>,
        /// What no two copies may share.
        #[arg(long, value_enum)]
        domain: Option<Domain>,
        /// Only targets at this site (repeat for more).
        #[arg(long = "site", conflicts_with = "any_site")]
        sites: Vec<String>,
        /// Targets at any site.
        #[arg(long)]
        any_site: bool,
        /// Change it even if there are too few targets.
        #[arg(long)]
        force: bool,
        /// Wait until all data has followed.
        #[arg(long)]
        wait: bool,
    },
    /// Set the class of a directory: new files below get it, and those that are there follow in the background.
    ///
    /// Reads and writes go on. Directories below that have a class of their own keep it, with all that is in them. A file that
    /// may be written by somebody is moved when he is done.
    #[command(
        after_help = "Examples:\n  sr class set archive /iso --wait\n  sr class set archive /iso --new-files-only\n  sr class set --inherit /iso"
    )]
    Set {
        /// As the parent directory says.
        #[arg(long)]
        inherit: bool,
        /// Files that are there stay where they are.
        #[arg(long, conflicts_with = "wait")]
        new_files_only: bool,
        /// Wait until all files have followed.
        #[arg(long)]
        wait: bool,
        /// The class (not with --inherit), and the directories.
        #[arg(required = true, value_names = ["CLASS", "PATH"], num_args = 1..)]
        names: Vec<String>,
    },
    /// Show how far files are that follow their class: what is done, what is left, and what is skipped for now.
    #[command(after_help = "Examples:\n  sr class status\n  sr class status --json")]
    Status {
        /// One JSON object per directory.
        #[arg(long)]
        json: bool,
    },
    /// Have files that are not moved yet stay where they are; new files get the class all the same.
    #[command(after_help = "Example:\n  sr class stop /iso")]
    Stop {
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
    /// Show which class new files at a path get, and why; of a file that is there, where its data is.
    #[command(after_help = "Example:\n  sr class explain /iso/new")]
    Explain {
        #[arg(long)]
        json: bool,
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Domain {
    /// A disk.
    Target,
    Host,
    Rack,
    Site,
}

impl From<Domain> for FailureDomain {
    fn from(domain: Domain) -> FailureDomain {
        match domain {
            Domain::Target => FailureDomain::Target,
            Domain::Host => FailureDomain::Host,
            Domain::Rack => FailureDomain::Rack,
            Domain::Site => FailureDomain::Site,
        }
    }
}

#[derive(Serialize)]
struct ClassLine<'a> {
    name: &'a str,
    copies: u8,
    chunk_size: u32,
    domain: &'static str,
    sites: &'a [String],
    table: u16,
    chains: u16,
}

impl<'a> From<&'a StorageClass> for ClassLine<'a> {
    fn from(class: &'a StorageClass) -> ClassLine<'a> {
        ClassLine {
            name: &class.name,
            copies: class.copies,
            chunk_size: class.chunk_size,
            domain: domain_word(class.domain),
            sites: &class.sites,
            table: class.table.0,
            chains: class.slots,
        }
    }
}

#[derive(Serialize)]
struct ExplainLine<'a> {
    path: &'a str,
    set_by: Option<&'a str>,
    #[serde(flatten)]
    class: ClassLine<'a>,
    /// Of a file that is there: the class that its data is in.
    data_in: Option<&'a str>,
}

fn domain_word(domain: FailureDomain) -> &'static str {
    match domain {
        FailureDomain::Target => "target",
        FailureDomain::Host => "host",
        FailureDomain::Rack => "rack",
        FailureDomain::Site => "site",
    }
}

/// `2 copies on different hosts, chunks of 64 MiB`.
fn sentence(class: &StorageClass) -> String {
    let copies = match class.copies {
        1 => "1 copy".to_owned(),
        copies => format!("{copies} copies on different {}s", domain_word(class.domain)),
    };
    let sites = match class.sites.as_slice() {
        [] => String::new(),
        sites => format!(", only at {}", sites.join(" and ")),
    };
    format!("{copies}, chunks of {}{sites}", size::words(u64::from(class.chunk_size)))
}

impl Class {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        match self.command {
            ClassCommand::Ls { json } => {
                let classes = session.client.classes().await?;
                let width = classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0);
                for class in &classes {
                    if json {
                        session.out.json(&ClassLine::from(class))?;
                    } else {
                        session.out.line(&format!("{:width$}  {}", class.name, sentence(class)))?;
                    }
                }
                Ok(())
            }
            ClassCommand::Show { name, json } => show(session, &name, json).await,
            ClassCommand::Create { name, copies, chunk_size, domain, sites, force } => {
                let allowed = u64::from(CHUNK_SIZE_MIN)..=u64::from(CHUNK_SIZE_MAX);
                let chunk_size = u32::try_from(chunk_size)
                    .ok()
                    .filter(|size| size.is_power_of_two() && allowed.contains(&chunk_size))
                    .ok_or_else(|| Stop::usage("the chunk size must be a power of two from 64K to 64M"))?;
                let class = StorageClass {
                    // The server chooses these three.
                    id: ClassId::default(),
                    table: TableId::default(),
                    slots: 0,
                    name: name.clone(),
                    copies,
                    chunk_size,
                    domain: match domain {
                        Some(domain) => domain.into(),
                        None => default_domain(session).await?,
                    },
                    sites,
                };
                create(session, class, force).await
            }
            ClassCommand::Change { name, copies, domain, sites, any_site, force, wait } => {
                let classes = session.client.classes().await?;
                let Some(old) = classes.iter().find(|class| class.name == name) else {
                    return Err(no_class("change the class", &name, &classes));
                };
                let sites = match (any_site, sites.is_empty()) {
                    (true, _) => Vec::new(),
                    (false, true) => old.sites.clone(),
                    (false, false) => sites,
                };
                let class = StorageClass {
                    copies: copies.unwrap_or(old.copies),
                    domain: domain.map_or(old.domain, FailureDomain::from),
                    sites,
                    ..old.clone()
                };
                change(session, class, force).await?;
                movement::wait(session, Patience::from(wait), movement::left).await
            }
            ClassCommand::Set { inherit, new_files_only, wait, names } => {
                let follow = if new_files_only { Follow::NewFiles } else { Follow::AllFiles };
                set(session, inherit, follow, names, Patience::from(wait)).await
            }
            ClassCommand::Status { json } => following::status(session, json).await,
            ClassCommand::Stop { paths } => {
                for path in &paths {
                    let stopped = session.client.stop_following(remote::normal(path).as_str()).await;
                    session.report.item(stopped.map_err(not_moving))?;
                }
                Ok(())
            }
            ClassCommand::Explain { json, paths } => explain(session, json, &paths).await,
        }
    }
}

/// Which files get a class that is set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follow {
    NewFiles,
    AllFiles,
}

/// Sets the class of directories: the first name is the class, unless they inherit it.
async fn set(
    session: &mut Session,
    inherit: bool,
    follow: Follow,
    mut names: Vec<String>,
    patience: Patience,
) -> Result<(), Stop> {
    let class = if inherit { None } else { Some(names.remove(0)) };
    if names.is_empty() {
        return Err(Stop::usage("a directory is wanted after the class"));
    }
    let mut set = Vec::new();
    for path in names.iter().map(|path| remote::normal(path)) {
        let done = match follow {
            Follow::NewFiles => session.client.set_class(path.as_str(), class.clone()).await,
            Follow::AllFiles => session.client.follow_class(path.as_str(), class.clone()).await,
        };
        if session.report.item(done.map_err(no_directory))?.is_some() {
            set.push(path);
        }
    }
    following::wait(session, patience, &set).await
}

/// Classes are set on directories alone.
fn no_directory(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotDirectory => error.advise("set the class of its directory: files follow that"),
        _ => error,
    }
}

/// Nothing follows there.
fn not_moving(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => {
            error.advise("`sr class status` names the directories whose files are being moved")
        }
        _ => error,
    }
}

/// What the copies of files without a class of their own do not share.
async fn default_domain(session: &Session) -> Result<FailureDomain, Stop> {
    let classes = session.client.classes().await?;
    Ok(classes.iter().find(|class| class.name == "default").map_or(FailureDomain::Host, |class| class.domain))
}

/// Makes a class. With `force` it is made even if its copies cannot be kept as it asks; what is missing is said.
async fn create(session: &Session, class: StorageClass, force: bool) -> Result<(), Stop> {
    let client = &session.client;
    let wanted = sentence(&class);
    match client.make_class(class.clone(), Shortfall::Refused).await {
        Err(error) if error.kind() == ErrorKind::TooFewTargets && force => {
            let lacks = error.cause().to_owned();
            client.make_class(class, Shortfall::Allowed).await?;
            session.report.say(&format!("made, but it is not kept as it says ({wanted}): {lacks}"));
        }
        Err(error) if error.kind() == ErrorKind::TooFewTargets => {
            let advice = "add targets, ask for fewer copies or a narrower --domain, or make it all the same with --force";
            return Err(error.advise(advice).into());
        }
        made => drop(made?),
    }
    session.report.done();
    Ok(())
}

fn no_class(action: &str, name: &str, classes: &[StorageClass]) -> Stop {
    let known: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    let error = Error::new(ErrorKind::NotFound, action, name, "there is no such class");
    error.advise(format!("the classes are: {}", known.join(", "))).into()
}

/// Changes a class, as [`create`] makes one.
async fn change(session: &Session, class: StorageClass, force: bool) -> Result<(), Stop> {
    let shortfall = if force { Shortfall::Allowed } else { Shortfall::Refused };
    let name = class.name.clone();
    match session.client.direct("change the class", &name, Direction::ChangeClass { class, shortfall }).await
    {
        Err(error) if error.kind() == ErrorKind::TooFewTargets => {
            let advice = "add targets, ask for fewer copies or a narrower --domain, or change it all the same with --force";
            return Err(error.advise(advice).into());
        }
        changed => changed?,
    }
    session.report.done();
    Ok(())
}

async fn show(session: &mut Session, name: &str, json: bool) -> Result<(), Stop> {
    let classes = session.client.classes().await?;
    let Some(class) = classes.iter().find(|class| class.name == name) else {
        return Err(no_class("show the class", name, &classes));
    };
    if json {
        return session.out.json(&ClassLine::from(class));
    }
    for line in [
        format!("      Name: {}", class.name),
        format!("    Copies: {}", class.copies),
        format!("Chunk size: {}", size::words(u64::from(class.chunk_size))),
        format!("Apart from: each other's {}", domain_word(class.domain)),
        format!(
            "     Sites: {}",
            if class.sites.is_empty() { "any".to_owned() } else { class.sites.join(", ") }
        ),
        format!("    Chains: {} (table {})", class.slots, class.table),
    ] {
        session.out.line(&line)?;
    }
    Ok(())
}

async fn explain(session: &mut Session, json: bool, paths: &[String]) -> Result<(), Stop> {
    for path in paths {
        let path = remote::normal(path);
        let mut explained = session.client.explain_class(path.as_str()).await;
        if explained.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            // A new file gets what its directory says.
            explained = session.client.explain_class(remote::parent(&path)).await;
        }
        let Some((class, set_by)) = session.report.item(explained)? else { continue };
        let data_in = data_class(session, &path).await?;
        if json {
            let (set_by, data_in) = (set_by.as_deref(), data_in.as_deref());
            session.out.json(&ExplainLine {
                path: &path,
                set_by,
                class: ClassLine::from(&class),
                data_in,
            })?;
            continue;
        }
        let why = match set_by {
            Some(directory) => format!("set on {}", session.out.name(&directory)),
            None => "the default".to_owned(),
        };
        let data = match data_in {
            Some(there) if there != class.name => format!("; its data is still in class {there}"),
            Some(_) | None => String::new(),
        };
        let line = format!("{}: {} ({why}): {}{data}", session.out.name(&path), class.name, sentence(&class));
        session.out.line(&line)?;
    }
    Ok(())
}

/// The class that a file's data is in. `None`: there is no such file.
async fn data_class(session: &Session, path: &str) -> Result<Option<String>, Stop> {
    let layout = match session.client.stat(path, types::meta::Follow::Yes).await {
        Ok(attributes) => attributes.layout,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let Some(layout) = layout else { return Ok(None) };
    let classes = session.client.classes().await?;
    Ok(classes.into_iter().find(|class| class.id == layout.class).map(|class| class.name))
}
