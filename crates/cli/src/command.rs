//! The command line: all commands, and how one is run.

use crate::outcome::{Report, Stop, code};
use crate::output::Output;
use crate::session::Session;
use crate::{
    bench, change, checksum, class, content, context, find, fsck, list, locate, mount_helper, movement, node,
    permissions, quota, roles, scrub, snapshot, status, transfer, trash, usage, wire, xattr,
};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use types::Mode;

/// Threads that run tasks. Data moves through few large pieces: two threads fill any network we were shown.
const WORKERS: usize = 2;
/// How long local files under way may take to be put in order after a command ended early.
const TIDY_MAX: Duration = Duration::from_secs(10);

/// Steradian: a private storage cloud.
#[derive(Parser, Debug)]
#[command(
    name = "sr",
    version,
    max_term_width = 110,
    propagate_version = false,
    after_help = "Exit codes: 0 done, 1 some items failed (each named), 2 usage, 3 not reachable, 4 not permitted.\n\nExamples:\n  sr up                        start a whole cloud on this machine\n  sr put -r ~/photos /         store a directory\n  sr ls -lh /photos            list it\n  sr get -r /photos ./copy     get it back, every byte checked\n  sr COMMAND --help            more on a command"
)]
struct Cli {
    /// The context file: where the cluster is, and who you are [default: ~/.config/steradian/context.toml].
    #[arg(long, global = true, value_name = "FILE", env = "SR_CONTEXT", hide_env_values = true)]
    context: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    #[command(flatten)]
    Role(roles::Command),
    #[command(flatten)]
    Client(ClientCommand),
    Completion(Completion),
    /// Print the version.
    Version,
}

#[derive(Subcommand, Debug)]
enum ClientCommand {
    Ls(list::Ls),
    Stat(list::StatCommand),
    Tree(list::Tree),
    Du(usage::Du),
    Df(usage::Df),
    Find(find::Find),
    Put(transfer::put::Put),
    Get(transfer::get::Get),
    Cat(content::Cat),
    Pipe(content::Pipe),
    Cp(transfer::copy::Cp),
    Mv(change::Mv),
    Rm(change::Rm),
    Mkdir(change::Mkdir),
    Touch(change::Touch),
    Ln(change::Ln),
    Chmod(permissions::Chmod),
    Chown(permissions::Chown),
    Xattr(xattr::Xattr),
    Checksum(checksum::Checksum),
    Locate(locate::Locate),
    Class(class::Class),
    Trash(trash::Trash),
    Quota(quota::QuotaCommand),
    Snapshot(snapshot::SnapshotCommand),
    Status(status::StatusCommand),
    Node(node::Node),
    Target(node::TargetCommand),
    Repair(movement::Repair),
    Rebalance(movement::RebalanceCommand),
    Scrub(scrub::Scrub),
    Fsck(fsck::Fsck),
    Bench(bench::Bench),
}

/// Print completions for a shell.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  sr completion bash > ~/.local/share/bash-completion/completions/sr\n  sr completion zsh > ~/.zfunc/_sr"
)]
struct Completion {
    shell: Shell,
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let report = Arc::new(Report::default());
    let cli = match mount_helper::command_line(std::env::args_os().collect()) {
        Ok(Some(arguments)) => parse(arguments.into_iter()),
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => return report.exit(Err(Stop::message(why))),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return report.exit(Err(Stop::message(format!("cannot start: {error}")))),
    };
    if let (Command::Role(_) | Command::Client(_), Err(why)) = (&cli.command, wire::newest()) {
        return report.exit(Err(Stop::message(why)));
    }
    match cli.command {
        Command::Role(command) => {
            start_log("info");
            let result = runtime.block_on(roles::run(command, cli.context));
            report.exit(result.map_err(Stop::Message))
        }
        Command::Client(command) => {
            // A client tells its user what matters itself.
            start_log("off");
            client(runtime, command, cli.context, &report)
        }
        Command::Completion(Completion { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sr", &mut script);
            report.exit(print(&script))
        }
        Command::Version => report.exit(print(format!("sr {}\n", env!("CARGO_PKG_VERSION")).as_bytes())),
    }
}

fn print(bytes: &[u8]) -> Result<(), Stop> {
    let mut out = Output::new();
    out.bytes(bytes)?;
    out.flush()
}

/// Reads the command line. Ends the process when it makes no sense, or asks for help.
fn parse(arguments: impl Iterator<Item = OsString>) -> Cli {
    let arguments: Vec<OsString> = arguments.collect();
    let result = Cli::command()
        .try_get_matches_from(single_dashes(arguments))
        .and_then(|matches| Cli::from_arg_matches(&matches));
    result.unwrap_or_else(|error| error.exit())
}

/// Where the command is `find`, its options may have one dash.
fn single_dashes(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut position = 1;
    while let Some(argument) = arguments.get(position) {
        if argument == "--context" {
            position += 2;
        } else if argument.to_string_lossy().starts_with("--context=") {
            position += 1;
        } else {
            break;
        }
    }
    if arguments.get(position).is_none_or(|command| command != "find") {
        return arguments;
    }
    let mut arguments = arguments;
    let rest = arguments.split_off(position + 1);
    arguments.extend(find::double_dashes(rest));
    arguments
}

/// Logs go to the standard error output; `SR_LOG` says which (as in `info`, or `client=debug`).
fn start_log(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}

/// Runs a client's command to its end, or to Ctrl-C.
fn client(
    runtime: Runtime,
    command: ClientCommand,
    context: Option<PathBuf>,
    report: &Arc<Report>,
) -> ExitCode {
    let is_resumable = matches!(command, ClientCommand::Put(_) | ClientCommand::Get(_));
    let ended = runtime.block_on(async {
        let mut command = pin!(run(command, context, report.clone()));
        tokio::select! {
            result = &mut command => Ok(result),
            code = told_to_stop() => {
                report.ending.tell();
                tokio::select! {
                    _ = &mut command => {}
                    () = report.ending.in_order() => {}
                    () = tokio::time::sleep(TIDY_MAX) => {}
                }
                Err(code)
            }
        }
    });
    // Unfinished local files are put in order by the threads that write them.
    runtime.shutdown_timeout(if ended.is_ok() { Duration::ZERO } else { TIDY_MAX });
    match ended {
        Ok(result) => report.exit(result),
        Err(code) => {
            report.beside(None);
            let next = if is_resumable { "; the same command with --resume goes on" } else { "" };
            report.say(&format!("interrupted: no file is half done{next}"));
            ExitCode::from(code)
        }
    }
}

/// Waits for Ctrl-C or a polite kill; gives the exit code.
async fn told_to_stop() -> u8 {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => code::INTERRUPTED,
        _ = terminate.recv() => code::TERMINATED,
    }
}

async fn run(command: ClientCommand, context: Option<PathBuf>, report: Arc<Report>) -> Result<(), Stop> {
    let client = context::connect(context).await?;
    let umask = umask();
    let client = client.with_umask(Mode(umask));
    let mut session = Session { client, out: Output::new(), report, umask };
    let result = dispatch(command, &mut session).await;
    let flushed = session.out.flush();
    result.and(flushed)
}

async fn dispatch(command: ClientCommand, session: &mut Session) -> Result<(), Stop> {
    match command {
        ClientCommand::Ls(command) => command.run(session).await,
        ClientCommand::Stat(command) => command.run(session).await,
        ClientCommand::Tree(command) => command.run(session).await,
        ClientCommand::Du(command) => command.run(session).await,
        ClientCommand::Df(command) => command.run(session).await,
        ClientCommand::Find(command) => command.run(session).await,
        ClientCommand::Put(command) => command.run(session).await,
        ClientCommand::Get(command) => command.run(session).await,
        ClientCommand::Cat(command) => command.run(session).await,
        ClientCommand::Pipe(command) => command.run(session).await,
        ClientCommand::Cp(command) => command.run(session).await,
        ClientCommand::Mv(command) => command.run(session).await,
        ClientCommand::Rm(command) => command.run(session).await,
        ClientCommand::Mkdir(command) => command.run(session).await,
        ClientCommand::Touch(command) => command.run(session).await,
        ClientCommand::Ln(command) => command.run(session).await,
        ClientCommand::Chmod(command) => command.run(session).await,
        ClientCommand::Chown(command) => command.run(session).await,
        ClientCommand::Xattr(command) => command.run(session).await,
        ClientCommand::Checksum(command) => command.run(session).await,
        ClientCommand::Locate(command) => command.run(session).await,
        ClientCommand::Class(command) => command.run(session).await,
        ClientCommand::Trash(command) => command.run(session).await,
        ClientCommand::Quota(command) => command.run(session).await,
        ClientCommand::Snapshot(command) => command.run(session).await,
        ClientCommand::Status(command) => command.run(session).await,
        ClientCommand::Node(command) => command.run(session).await,
        ClientCommand::Target(command) => command.run(session).await,
        ClientCommand::Repair(command) => command.run(session).await,
        ClientCommand::Rebalance(command) => command.run(session).await,
        ClientCommand::Scrub(command) => command.run(session).await,
        ClientCommand::Fsck(command) => command.run(session).await,
        ClientCommand::Bench(command) => command.run(session).await,
    }
}

/// The process's mask for new files. Reading it means setting it; nothing else makes files at this time.
fn umask() -> u16 {
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::umask(mask);
    u16::try_from(mask.bits() & 0o777).unwrap_or(0o022)
}

#[cfg(test)]
mod tests;
