//! `sr ca`: the certificate authority. Everyone who speaks to the cluster has a certificate from it.

use super::directory::Directory;
use clap::Subcommand;
use client::{Context, ContextSecurity};
use net::User;
use std::path::PathBuf;
use std::time::Duration;
use types::{Gid, NodeId, Uid};

const DAY: Duration = Duration::from_secs(86_400);

/// The authority's commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new authority in a directory
    #[command(after_help = "Example:\n  sr ca init ./authority")]
    Init {
        /// Where to keep it; guard `authority.key` as you guard the data
        directory: PathBuf,
        /// Its name, as certificates show it
        #[arg(long, default_value = "Steradian")]
        name: String,
    },
    /// Issue a server's certificate into a server's directory
    #[command(
        after_help = "Example:\n  sr ca node ./authority ./server-2 --id 2 --host 192.0.2.7 --host storage2.example.org"
    )]
    Node {
        /// The authority's directory
        authority: PathBuf,
        /// The server's directory: gets node.pem, node.key and authority.pem
        directory: PathBuf,
        /// The server's number: unique in the cluster, from 1
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        id: u32,
        /// Names and addresses it is reached by (repeat for more)
        #[arg(long = "host", default_value = "127.0.0.1")]
        hosts: Vec<String>,
    },
    /// Issue a user's certificate, with a context file to use it
    #[command(
        after_help = "Example:\n  sr ca user ./authority ./alice --name alice --uid 1000 --gid 1000 --server 127.0.0.1:7400\n  sr --context ./alice/context.toml ls /"
    )]
    User {
        /// The authority's directory
        authority: PathBuf,
        /// Where to write context.toml, user.pem, user.key and authority.pem
        directory: PathBuf,
        /// The user's name
        #[arg(long)]
        name: String,
        /// The user's number; 0 is the administrator, whom no permission stops
        #[arg(long)]
        uid: u32,
        /// Groups, the primary one first (repeat for more)
        #[arg(long = "gid", required = true)]
        gids: Vec<u32>,
        /// A metadata server, `host:port` (repeat for more)
        #[arg(long = "server", default_value = super::LISTEN)]
        servers: Vec<String>,
        /// Days the certificate is good for
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
}

/// Carries a command out.
pub(crate) fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Init { directory, name } => {
            let place = Directory::open(&directory)?;
            place.make_authority(&name)?;
            println!("made an authority in {}", directory.display());
            println!("next: sr ca node {} SERVER-DIRECTORY --id 1 --host ADDRESS", directory.display());
        }
        Command::Node { authority, directory, id, hosts } => {
            let credentials = Directory::existing(&authority)?
                .authority()?
                .issue_node(NodeId(id), &hosts)
                .map_err(|error| format!("cannot issue the certificate: {error}"))?;
            Directory::open(&directory)?.keep("node", &credentials)?;
            println!("wrote the certificate of server {id} to {}", directory.display());
        }
        Command::User { authority, directory, name, uid, gids, servers, days } => {
            let user = User { name, uid: Uid(uid), groups: gids.into_iter().map(Gid).collect() };
            if !user.is_valid() {
                return Err(format!(
                    "{:?} is no name for a user: no control characters, 255 bytes at most",
                    user.name
                ));
            }
            let credentials = Directory::existing(&authority)?
                .authority()?
                .issue_user(&user, DAY * days)
                .map_err(|error| format!("cannot issue the certificate: {error}"))?;
            let place = Directory::open(&directory)?;
            place.keep("user", &credentials)?;
            let context = place.path("context.toml");
            context_for("user", servers, &place).save(&context).map_err(|error| error.to_string())?;
            println!("wrote the certificate of {} to {}", user.name, directory.display());
            println!("next: sr --context {} ls /", context.display());
        }
    }
    Ok(())
}

/// A context that uses the certificate kept under `name` beside it: the directory may be carried elsewhere.
pub(crate) fn context_for(name: &str, servers: Vec<String>, directory: &Directory) -> Context {
    Context {
        servers,
        security: ContextSecurity::Tls {
            authority: "authority.pem".to_owned(),
            certificate: format!("{name}.pem"),
            key: format!("{name}.key"),
        },
        directory: directory.path(""),
    }
}
