//! `sr`: Steradian's one binary. It starts roles ([`roles`]) or runs a command of a client.
//!
//! What holds for every client command: what fails is named on the standard error output, with what to do next; the exit
//! code says how it ended ([`outcome::code`]); `--json` prints one object per line; nothing but progress and messages
//! goes to the standard error output; a reader that goes away ends it quietly; Ctrl-C leaves nothing broken.
//!
//! Reading order: [`command`] (all commands), [`session`], [`outcome`], [`output`], [`remote`], [`destination`]; then one
//! file per group of commands.

mod accounts;
mod bench;
mod change;
mod checksum;
mod class;
mod command;
mod content;
mod context;
mod destination;
mod ending;
mod find;
mod following;
mod fsck;
mod health;
mod item;
mod jobs;
mod list;
mod locate;
mod memory;
mod mount_helper;
mod movement;
mod node;
mod outcome;
mod output;
mod permissions;
mod quota;
mod remote;
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "roles talk to who starts them")]
mod roles;
mod scrub;
mod session;
mod snapshot;
mod status;
mod text;
mod transfer;
mod trash;
mod usage;
mod wire;
mod xattr;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::main()
}
