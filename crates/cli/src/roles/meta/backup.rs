//! `sr meta backup`: the metadata store to a directory, while it runs.

use crate::output::Output;
use clap::Args;
use client::{Client, Context, ContextSecurity};
use env::{Disk, RealDisk};
use kv::backup::{self, Chain, Header, Kind, Writer};
use kv::{Change, Revision};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Pieces of rows between two looks at what changed meanwhile: what is kept of the history is much more than that.
const PIECES: u32 = 16;

/// Arguments of `sr meta backup`.
#[derive(Args, Debug)]
#[command(after_help = "\
The first backup in a directory is full; later ones hold what changed since. When that is no longer known (too much has
changed), the next one is full again. Everything in the directory is needed to restore the newest state, back to the last
full backup. It holds the cluster's secret key: guard it as you guard the metadata.

Examples:
  sr meta backup /backups/meta
  sr meta backup /backups/meta --full         and older files may go then")]
pub(crate) struct Backup {
    /// Where the backup is kept; made if it is not there
    directory: PathBuf,
    /// Make a full backup
    #[arg(long)]
    full: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Makes a backup.
pub(crate) async fn run(arguments: Backup, context: Option<PathBuf>) -> Result<(), String> {
    let context = crate::context::load(context).map_err(|stop| stop.to_string())?;
    let cluster = cluster(&context)?;
    let client =
        Client::connect(&context, crate::context::options()?).await.map_err(|error| error.to_string())?;
    let directory = arguments.directory;
    make_private(&directory)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::default());
    let _lock = disk.lock(&directory).map_err(|error| error.to_string())?;
    let before = before(&*disk, &directory, cluster)?;
    let task = Task { disk, directory: directory.clone(), cluster, client };
    let part = match (&before, arguments.full) {
        (Before::Whole(header), false) => task.part(header).await?,
        (Before::Whole(_) | Before::Broken(_) | Before::Nothing, _) => None,
    };
    let made = match part {
        Some(made) => made,
        None => Some(task.full(before.header()).await?),
    };
    tell(&directory, made.as_ref(), arguments.json)
}

/// The number that says which cluster a backup is of.
pub(super) fn cluster_number(authority: &str) -> u64 {
    let hash = blake3::hash(authority.trim().as_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]))
}

fn cluster(context: &Context) -> Result<u64, String> {
    match &context.security {
        ContextSecurity::Tls { authority, .. } => {
            let text = context.resolve(authority).map_err(|error| error.to_string())?;
            Ok(cluster_number(&text))
        }
        ContextSecurity::Plain { .. } => Ok(0),
    }
}

fn make_private(directory: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot make {}: {error}", directory.display());
    if !directory.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    }
    let mode = fs::metadata(directory).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!(
            "{} may be read by others, and the backup holds the cluster's secret key: chmod 700 it first",
            directory.display()
        ));
    }
    Ok(())
}

/// What is in the directory already.
enum Before {
    Nothing,
    /// Something that nothing can follow, but whose number is taken.
    Broken(Header),
    Whole(Header),
}

impl Before {
    fn header(&self) -> Option<&Header> {
        match self {
            Before::Nothing => None,
            Before::Broken(header) | Before::Whole(header) => Some(header),
        }
    }
}

fn before(disk: &dyn Disk, directory: &Path, cluster: u64) -> Result<Before, String> {
    let files = backup::list(disk, directory).map_err(|error| error.to_string())?;
    let Some((number, kind)) = files.last() else { return Ok(Before::Nothing) };
    let chain = Chain::find(disk, directory, None);
    let last = chain.as_ref().ok().and_then(Chain::last).copied();
    if let Some(header) = last {
        if header.cluster != cluster {
            return Err(format!(
                "{} holds a backup of another cluster: choose another directory",
                directory.display()
            ));
        }
        return Ok(Before::Whole(header));
    }
    if let Err(error) = chain {
        println!("{error}: making a full backup");
    }
    Ok(Before::Broken(Header::unreadable(*kind, *number)))
}

/// A backup under way.
struct Task {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    cluster: u64,
    client: Client,
}

impl Task {
    /// What changed since `before`. `None`: that is not known any more. `Some(None)`: nothing.
    async fn part(&self, before: &Header) -> Result<Option<Option<Header>>, String> {
        let mut through = before.through;
        let mut writer = None;
        loop {
            let Some(changes) = self.changes(through).await? else { return Ok(None) };
            let Some(last) = changes.last() else { break };
            through = last.revision;
            let writer = match &mut writer {
                Some(writer) => writer,
                None => writer.insert(self.start(Kind::Part, Some(before))?),
            };
            writer.changes(&changes).map_err(|error| error.to_string())?;
        }
        let finish =
            |writer: Writer| writer.finish(before.through, through).map_err(|error| error.to_string());
        Ok(Some(writer.map(finish).transpose()?))
    }

    /// All rows, and what changed while they were read.
    async fn full(&self, before: Option<&Header>) -> Result<Header, String> {
        let mut writer = self.start(Kind::Full, before)?;
        let mut next = Vec::new();
        let mut span: Option<(Revision, Revision)> = None;
        let mut pieces: u32 = 0;
        loop {
            let (rows, revision) =
                self.client.export_rows(next.clone()).await.map_err(|error| error.to_string())?;
            let (from, mut through) = *span.get_or_insert((Revision(revision), Revision(revision)));
            let ended = rows.is_empty();
            if let Some((last, _)) = rows.last() {
                next.clone_from(last);
                next.push(0);
            }
            writer.rows(&rows).map_err(|error| error.to_string())?;
            pieces += 1;
            if ended || pieces.is_multiple_of(PIECES) {
                // At the end through the last piece's revision: all that any row may show is in.
                while through.0 < revision {
                    let changes = self.changes(through).await?;
                    let changes =
                        changes.ok_or("the metadata changes faster than it can be read: try again")?;
                    let Some(last) = changes.last() else { break };
                    through = last.revision;
                    writer.changes(&changes).map_err(|error| error.to_string())?;
                }
                span = Some((from, through));
            }
            if ended {
                return writer.finish(from, through).map_err(|error| error.to_string());
            }
        }
    }

    fn start(&self, kind: Kind, before: Option<&Header>) -> Result<Writer, String> {
        Writer::start(self.disk.clone(), &self.directory, kind, before, self.cluster)
            .map_err(|error| error.to_string())
    }

    async fn changes(&self, after: Revision) -> Result<Option<Vec<Change>>, String> {
        let found = self.client.export_changes(after.0).await.map_err(|error| error.to_string())?;
        let change = |(revision, writes)| Change { revision: Revision(revision), writes };
        Ok(found.map(|changes| changes.into_iter().map(change).collect()))
    }
}

fn tell(directory: &Path, made: Option<&Header>, json: bool) -> Result<(), String> {
    let mut out = Output::new();
    let printed = match made {
        Some(made) if json => out.json(&serde_json::json!({
            "file": directory.join(backup::file_name(made.kind, made.number)), "full": made.kind == Kind::Full,
            "bytes": made.length, "revision": made.through.0,
        })),
        None if json => out.json(&serde_json::json!({ "file": null })),
        Some(made) => out.line(&format!(
            "wrote {} ({})",
            directory.join(backup::file_name(made.kind, made.number)).display(),
            crate::text::size::human(made.length)
        )),
        None => out.line("nothing changed since the last backup"),
    };
    printed.and_then(|()| out.flush()).map_err(|stop| stop.to_string())
}
