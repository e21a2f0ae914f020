//! `sr meta migrate`: a cluster's metadata from one store to another.

use super::super::directory::Directory;
use super::super::parts::{self, Machine};
use super::restore::into_fresh;
use crate::output::Output;
use crate::text::size;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kv::{AnyStore, Revision};
use server::migration::{self, Claimed, Closed, Compared, MigrationError, PROMISES, Places, Progress};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use types::Time;

/// How often the progress is drawn.
const DRAWN: Duration = Duration::from_millis(200);

/// Arguments of `sr meta migrate`.
#[derive(Args, Debug)]
#[command(after_help = "\
FROM and TO are etcd://… or postgres://… as `sr meta --store` takes them, or the directory of a metadata server whose
metadata is in it. Stop the metadata servers first: nobody can use the cloud meanwhile, and those that run over FROM end by
themselves. All of it is copied, read again from both, and compared, before servers can begin over TO. What is in FROM
stays there, and no server begins over it any more. Ended early, the same command goes on where it was.

Examples:
  sr meta migrate ./meta 'etcd://127.0.0.1:2379/steradian'
  sr meta migrate 'etcd://e1,e2,e3/steradian?ca=ca.pem&cert=me.pem&key=me.key' 'postgres://steradian@db1,db2/clouds'
  sr meta migrate ./meta 'etcd://127.0.0.1:2379/steradian' --abandon    before it is finished: FROM is used again")]
pub(crate) struct Migrate {
    /// Where the metadata is
    from: String,
    /// Where it is to be: an empty place
    to: String,
    /// Take a migration back that was not finished: FROM can be used again, and TO is emptied
    #[arg(long)]
    abandon: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Where metadata is.
enum Place {
    Shared { place: String, name: String },
    Local { directory: Directory, name: String },
}

/// A store that is open, and what keeps others from its directory.
struct Opened {
    store: AnyStore,
    _lock: Option<std::fs::File>,
}

impl Place {
    fn parse(place: &str) -> Result<Place, String> {
        if place.contains("://") {
            return Ok(Place::Shared { place: place.to_owned(), name: kv::any::name_of(place)? });
        }
        let directory = Directory::existing(Path::new(place))?;
        let name = directory.path("").display().to_string();
        Ok(Place::Local { directory, name: name.trim_end_matches('/').to_owned() })
    }

    fn name(&self) -> &str {
        match self {
            Place::Shared { name, .. } | Place::Local { name, .. } => name,
        }
    }

    /// Opens what is there. `None`: nothing is, in this directory.
    async fn open(&self) -> Result<Option<Opened>, String> {
        match self {
            Place::Shared { place, .. } => {
                Ok(Some(Opened { store: AnyStore::open(place).await?, _lock: None }))
            }
            Place::Local { directory, .. } => {
                let lock = directory.lock()?;
                if !directory.path("meta").exists() {
                    return Ok(None);
                }
                let store = parts::open_metadata(&Machine::new()?, directory).await?;
                Ok(Some(Opened { store: store.into(), _lock: Some(lock) }))
            }
        }
    }

    /// Has a target that is empty begin above the revision that the source ended with.
    async fn begin(&self, opened: Option<Opened>, revision: Revision) -> Result<Opened, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", self.name());
        if let Some(opened) = opened {
            if !migration::is_empty(&opened.store).await.map_err(|error| failed(&error))? {
                return Ok(opened);
            }
            if let Place::Shared { place, .. } = self {
                let store = opened.store.begin_after(place, revision).await?;
                return Ok(Opened { store, _lock: None });
            }
        }
        let Place::Local { directory, .. } = self else { return Err(failed(&"not opened")) };
        let fresh = directory.clone();
        let making = tokio::task::spawn_blocking(move || {
            // What is left of one that was taken back has nothing in it.
            match std::fs::remove_dir_all(fresh.path("meta")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.to_string()),
                Ok(()) | Err(_) => {}
            }
            into_fresh(&fresh, |_| Ok(Revision(revision.0 + 1)))
        });
        making.await.map_err(|error| failed(&error))??;
        self.open().await?.ok_or_else(|| failed(&"the new store is gone"))
    }
}

/// Migrates.
pub(crate) async fn run(arguments: Migrate) -> Result<(), String> {
    let (from, to) = (Place::parse(&arguments.from)?, Place::parse(&arguments.to)?);
    if from.name() == to.name() {
        return Err(format!("{} is both where the metadata is and where it is to be", from.name()));
    }
    let places = Places { from: from.name().to_owned(), to: to.name().to_owned() };
    let source = from.open().await?;
    let source = source.ok_or_else(|| format!("there is no metadata in {}", places.from))?;
    let target = to.open().await?;
    if arguments.abandon {
        return abandon(&source, target, &places, arguments.json).await;
    }
    let of_target = |error: MigrationError| of_target(&error, &places);
    if let Some(target) = &target {
        migration::check_target(&source.store, &target.store).await.map_err(of_target)?;
    }
    let began = Instant::now();
    let closed = migration::close(&source.store, &places, now()).await;
    let closed = closed.map_err(|error| format!("{}: {error}", places.from))?;
    if closed.is_left && target.is_none() {
        return Err(format!("{}: {}", places.from, MigrationError::Left(places.to.clone())));
    }
    if !arguments.json {
        say(&format!("{} takes no changes any more; servers that run over it end", places.from))?;
    }
    let copied = async {
        let target = to.begin(target, closed.revision).await?;
        let claimed = migration::claim(&target.store, &closed).await.map_err(of_target)?;
        if matches!(claimed, Claimed::Whole) {
            finish(&source, &target, &closed).await?;
            return Ok(None);
        }
        let compared = fill(&source, &target, (&closed, claimed), &places).await?;
        tokio::time::sleep(PROMISES.saturating_sub(began.elapsed())).await;
        finish(&source, &target, &closed).await?;
        Ok(Some(compared))
    };
    let compared = copied.await.map_err(|why: String| {
        format!(
            "{why}; {} stays closed: give the same command again to go on, or --abandon to use it as it was",
            places.from
        )
    })?;
    tell(compared, (&arguments, &places), began.elapsed())
}

async fn finish(source: &Opened, target: &Opened, closed: &Closed) -> Result<(), String> {
    migration::finish(&source.store, &target.store, closed).await.map_err(|error| error.to_string())
}

/// What is wrong with the target, and what to do.
fn of_target(error: &MigrationError, places: &Places) -> String {
    let then = match error {
        MigrationError::NotEmpty => "; choose another place, or empty that one if nobody needs it",
        MigrationError::Arriving(_) => "; take that back with --abandon, or choose another place",
        _ => "",
    };
    // Of that one the source tells.
    let of = if matches!(error, MigrationError::Left(_)) { &places.from } else { &places.to };
    format!("{of}: {error}{then}")
}

async fn fill(
    source: &Opened,
    target: &Opened,
    (closed, claimed): (&Closed, Claimed),
    places: &Places,
) -> Result<Compared, String> {
    let failed = |error: MigrationError| error.to_string();
    let copied = Arc::new(Progress::default());
    watched(
        "copying",
        copied.clone(),
        migration::copy(&source.store, &target.store, (closed, claimed), &copied),
    )
    .await
    .map_err(failed)?;
    let compared = Arc::new(Progress::default());
    let comparing = migration::compare(&source.store, &target.store, &compared);
    watched("comparing", compared.clone(), comparing).await.map_err(|error| match error {
        MigrationError::Differs(_) => {
            format!("{}: {error}; empty it with --abandon, and begin anew", places.to)
        }
        error => error.to_string(),
    })
}

/// Does something while its progress is drawn.
async fn watched<T>(what: &'static str, progress: Arc<Progress>, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    let drawing = async {
        loop {
            let (rows, bytes) = (progress.rows.load(Relaxed), progress.bytes.load(Relaxed));
            bar.set_message(format!("{what}: {rows} records, {}", size::human(bytes)));
            bar.tick();
            tokio::time::sleep(DRAWN).await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = drawing => unreachable!("it draws for ever"),
    };
    bar.finish_and_clear();
    done
}

async fn abandon(source: &Opened, target: Option<Opened>, places: &Places, json: bool) -> Result<(), String> {
    let abandoned = match &target {
        Some(target) => migration::abandon(&source.store, &target.store, places).await,
        // There is nothing that could be emptied.
        None => migration::abandon(&source.store, &source.store, places).await,
    };
    abandoned.map_err(|error| match error {
        MigrationError::Nothing => {
            format!("no migration from {} to {} is under way", places.from, places.to)
        }
        MigrationError::Left(to) => format!(
            "the metadata in {} was moved to {to} already, and may have changed there: to go back, migrate it back",
            places.from
        ),
        error => error.to_string(),
    })?;
    if json {
        return print(|out| out.json(&serde_json::json!({ "abandoned": true })));
    }
    say(&format!("{} is the cluster's metadata again; {} has nothing of it", places.from, places.to))
}

fn tell(
    compared: Option<Compared>,
    (arguments, places): (&Migrate, &Places),
    took: Duration,
) -> Result<(), String> {
    if arguments.json {
        return print(|out| {
            out.json(&serde_json::json!({
                "from": places.from, "to": places.to, "rows": compared.map(|compared| compared.rows),
                "bytes": compared.map(|compared| compared.bytes),
                "hash": compared.map(|compared| compared.hash.to_hex().to_string()),
                "seconds": took.as_secs_f64(),
            }))
        });
    }
    match compared {
        Some(Compared { rows, bytes, hash }) => {
            say(&format!("{rows} records ({}) are in both: {}", size::human(bytes), hash.to_hex()))?;
        }
        None => say("it was finished before")?,
    }
    say(&format!("the metadata is in {}", places.to))?;
    match arguments.to.contains("://") {
        true => say(&format!("next: start the metadata servers with --store '{}'", arguments.to)),
        false => say(&format!("next: start the metadata server with --dir {}, and no --store", arguments.to)),
    }
}

fn say(line: &str) -> Result<(), String> {
    print(|out| out.line(line))
}

fn print(what: impl FnOnce(&mut Output) -> Result<(), crate::outcome::Stop>) -> Result<(), String> {
    let mut out = Output::new();
    what(&mut out).and_then(|()| out.flush()).map_err(|stop| stop.to_string())
}

fn now() -> Time {
    Time(env::Clock::wall(&env::SystemClock::new()))
}
