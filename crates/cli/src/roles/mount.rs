//! `sr mount` and `sr umount`: the cloud as a directory of this host.

use crate::context;
use crate::text::size;
use clap::Args;
use client::Client;
use fuse::{Device, MountOptions};
use mount::{DiskCache, Mount, Owner, Settings};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::signal::unix::{SignalKind, signal};
use types::FileKind;
use types::meta::Follow;

/// What a mount in the background says when it is there.
const READY: &str = "mounted";

#[derive(Args, Debug)]
#[command(
    after_help = "Of an administrator's mount the kernel checks permissions, and what is made belongs to who makes it; with any other context all is done as that context's user.\n\nExamples:\n  sr mount /mnt/cloud\n  sr mount --subtree /projects --read-only ~/projects\n  sr mount --allow-other --cache 2G /mnt/cloud\n  sr mount --disk-cache 200G --disk-cache-dir /ssd/cache /mnt/cloud\n  sr umount /mnt/cloud"
)]
pub(crate) struct MountCommand {
    /// Refuse all changes.
    #[arg(long)]
    read_only: bool,
    /// Mount this directory of the cloud instead of the whole.
    #[arg(long, value_name = "PATH", default_value = "/")]
    subtree: String,
    /// Memory for what was read, and for what will be.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size::parse)]
    cache: u64,
    /// Space on a disk of this host for what was read and memory has no room for: worth it where the servers are far. It is not encrypted
    /// there, only this user can read it, and it is gone with the mount.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    disk_cache: Option<u64>,
    /// Where [default: /var/cache/steradian for root, else ~/.cache/steradian].
    #[arg(long, value_name = "DIR", requires = "disk_cache")]
    disk_cache_dir: Option<PathBuf>,
    /// Let other users of this host use it. Needs the administrator's context.
    #[arg(long)]
    allow_other: bool,
    /// Stay in the foreground; Ctrl-C unmounts.
    #[arg(long)]
    foreground: bool,
    /// Says nothing more once it is mounted.
    #[arg(long = "unheard", hide = true)]
    is_unheard: bool,
    /// Where a mount in the background writes its log [default: none is kept].
    #[arg(long, value_name = "FILE", conflicts_with = "foreground")]
    log: Option<PathBuf>,
    /// The directory of this host.
    #[arg(value_name = "DIR")]
    at: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  sr umount /mnt/cloud\n  sr umount --lazy /mnt/cloud")]
pub(crate) struct UmountCommand {
    /// At once, although it is used: what is open stays so until it is closed.
    #[arg(long)]
    lazy: bool,
    /// Waits for the end of the standard input, and then unmounts only what nobody serves any more.
    #[arg(long, hide = true)]
    when_dead: bool,
    /// The directory of this host.
    #[arg(value_name = "DIR")]
    at: PathBuf,
}

pub(super) async fn run(command: MountCommand, named: Option<PathBuf>) -> Result<(), String> {
    let at = command.at.display();
    let is_directory =
        std::fs::metadata(&command.at).map_err(|error| format!("cannot mount on {at}: {error}"))?.is_dir();
    if !is_directory {
        return Err(format!("cannot mount on {at}: it is no directory"));
    }
    if !command.foreground {
        return background(&command, named);
    }
    let client = context::connect(named).await.map_err(|stop| stop.to_string())?;
    let root = client.stat(command.subtree.as_str(), Follow::Yes).await.map_err(|error| error.to_string())?;
    if root.kind != FileKind::Directory {
        return Err(format!("cannot mount {}: it is no directory", command.subtree));
    }
    let is_administrator = client.is_administrator().await.map_err(|error| error.to_string())?;
    if command.allow_other && !is_administrator {
        return Err(
            "others can use an administrator's mount only: of this one all would act as one user".to_owned()
        );
    }
    let settings = Settings {
        root: root.inode,
        owner: if is_administrator { Owner::Asker } else { Owner::Mounter },
        cache: command.cache,
        disk: disk_cache(&command)?,
    };
    serve(client, settings, &command, is_administrator).await
}

fn disk_cache(command: &MountCommand) -> Result<Option<DiskCache>, String> {
    let Some(bytes) = command.disk_cache else { return Ok(None) };
    let directory = match &command.disk_cache_dir {
        Some(directory) => directory.clone(),
        None if rustix::process::geteuid().is_root() => PathBuf::from("/var/cache/steradian"),
        None => {
            let of_home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(of_home);
            base.ok_or("cannot keep a cache on the disk: there is no HOME; say where with --disk-cache-dir")?
                .join("steradian")
        }
    };
    let cache = DiskCache::new(&directory, bytes);
    cache.map(Some).map_err(|error| {
        let directory = directory.display();
        format!("cannot keep a cache in {directory}: {error}; say where with --disk-cache-dir")
    })
}

async fn serve(
    client: Client,
    settings: Settings,
    command: &MountCommand,
    is_administrator: bool,
) -> Result<(), String> {
    // Looked up now: once it is mounted, and before it is served, nobody can look anything up there.
    let at = std::fs::canonicalize(&command.at)
        .map_err(|error| format!("cannot mount on {}: {error}", command.at.display()))?;
    let failed = |error: std::io::Error| format!("cannot mount on {}: {error}", at.display());
    let options = MountOptions {
        source: format!("steradian:{}", command.subtree),
        read_only: command.read_only,
        allow_other: command.allow_other,
        check_modes: is_administrator,
        privileged: false,
    };
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?);
    let system = rustix::system::uname();
    let session = client.begin_session(&system.nodename().to_string_lossy()).await;
    let session = session.map_err(|error| error.to_string())?;
    // Should this process be killed, the guard unmounts what nobody serves any more.
    let mut guard = guard(&at).map_err(failed)?;
    let device = Device::mount(&at, &options).map_err(failed)?;
    let mount = match Mount::start(session, settings, device).await {
        Ok(mount) => mount,
        Err(error) => {
            // The guard finds it dead, and unmounts it.
            return Err(failed(error));
        }
    };
    println!("{READY} {} on {}", command.subtree, at.display());
    std::io::stdout().flush().map_err(failed)?;
    if command.is_unheard {
        // Who started this listened until now.
        let nowhere = OpenOptions::new().write(true).open("/dev/null").map_err(failed)?;
        rustix::stdio::dup2_stderr(&nowhere).map_err(|error| failed(error.into()))?;
    }
    let mut serving = tokio::spawn(mount.run());
    let mut is_unmounted = false;
    let result = loop {
        tokio::select! {
            served = &mut serving => break served.map_err(std::io::Error::other).flatten(),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if is_unmounted {
            eprintln!("sr: {} is unmounted; what it held is being given back to the servers", at.display());
            continue;
        }
        // What is written and not at the servers goes there first; the kernel sees to that.
        let place = at.clone();
        let unmounted = tokio::task::spawn_blocking(move || fuse::unmount(&place, false)).await;
        match unmounted.map_err(std::io::Error::other).flatten() {
            Ok(()) => is_unmounted = true,
            Err(error) => eprintln!(
                "sr: cannot unmount {}: {error}; end who uses it, or use `sr umount --lazy`",
                at.display()
            ),
        }
    };
    // Its input ends, and it finds nothing to do.
    drop(guard.stdin.take());
    drop(guard.wait());
    result.map_err(|error| format!("the mount on {} ended: {error}", at.display()))
}

/// A process that outlives this one.
fn guard(at: &Path) -> std::io::Result<Child> {
    let mut guard = Command::new(std::env::current_exe()?);
    guard.args(["umount", "--when-dead"]).arg("--").arg(at);
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Not of the terminal's: Ctrl-C is for the mount.
    guard.process_group(0);
    guard.spawn()
}

/// Starts the same command in the background, and waits until it is there.
fn background(command: &MountCommand, named: Option<PathBuf>) -> Result<(), String> {
    let failed = |what: &str, error: std::io::Error| format!("cannot {what}: {error}");
    let mut child = Command::new(std::env::current_exe().map_err(|error| failed("find sr", error))?);
    if let Some(file) = named {
        child.arg("--context").arg(file);
    }
    child.args([
        "mount",
        "--foreground",
        "--subtree",
        &command.subtree,
        "--cache",
        &command.cache.to_string(),
    ]);
    if let Some(bytes) = command.disk_cache {
        child.args(["--disk-cache", &bytes.to_string()]);
    }
    if let Some(directory) = &command.disk_cache_dir {
        child.arg("--disk-cache-dir").arg(directory);
    }
    for (wanted, option) in [(command.read_only, "--read-only"), (command.allow_other, "--allow-other")] {
        if wanted {
            child.arg(option);
        }
    }
    child.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
    match &command.log {
        Some(file) => {
            let log = OpenOptions::new().create(true).append(true).open(file);
            child.stderr(log.map_err(|error| failed(&format!("write {}", file.display()), error))?)
        }
        None => child.arg("--unheard").stderr(Stdio::piped()),
    };
    child.arg("--").arg(&command.at);
    let mut child = child.spawn().map_err(|error| failed("start a mount in the background", error))?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).map_err(|error| failed("hear of the mount", error))?;
    }
    if line.starts_with(READY) {
        return Ok(());
    }
    let mut why = String::new();
    if let Some(mut errors) = child.stderr.take() {
        // What it has said is all that can be told; why it did not say it is of no use.
        drop(errors.read_to_string(&mut why));
    }
    drop(child.wait());
    let why = why.trim().trim_start_matches("sr: ").to_owned();
    let log = command.log.as_deref().map_or_else(|| "its log".into(), Path::to_string_lossy);
    Err(if why.is_empty() { format!("cannot mount on {}: see {log}", command.at.display()) } else { why })
}

/// Waits until the process at the other end of the standard input has ended, in whatever way, and unmounts what it left.
async fn unmount_dead(at: &Path) -> Result<(), String> {
    // What ends the mount politely is not for this.
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let place = at.to_owned();
    let is_dead = tokio::task::spawn_blocking(move || {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        // One that was asked just before the end is told of it in another way.
        let errors = [Some(libc::ENOTCONN), Some(libc::ECONNABORTED)];
        std::fs::metadata(place).is_err_and(|error| errors.contains(&error.raw_os_error()))
    });
    let is_dead = is_dead.await.map_err(|error| error.to_string())?;
    drop(signals);
    if is_dead { fuse::unmount(at, true).map_err(|error| error.to_string()) } else { Ok(()) }
}

pub(super) async fn umount(command: UmountCommand) -> Result<(), String> {
    let at = &command.at;
    if command.when_dead {
        return unmount_dead(at).await;
    }
    fuse::unmount(at, command.lazy).map_err(|error| {
        let advice = match error.raw_os_error() {
            Some(libc::EBUSY) => "; end who uses it (`fuser -m`), or use --lazy",
            Some(libc::EINVAL) => "; nothing is mounted there",
            _ => "",
        };
        format!("cannot unmount {}: {error}{advice}", at.display())
    })
}
