//! `sr node`: the servers of the cluster.

use clap::Subcommand;
use client::{Client, Options};
use std::path::PathBuf;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the storage servers: number, address, site, rack, host, whether the manager hears from them, targets
    #[command(after_help = "Examples:\n  sr node ls\n  sr node ls --json")]
    Ls {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
}

/// Carries a command out.
pub(crate) async fn run(command: Command, context: Option<PathBuf>) -> Result<(), String> {
    let Command::Ls { json } = command;
    let context = crate::context::load(context).map_err(|stop| stop.to_string())?;
    let client = Client::connect(&context, Options::default()).await.map_err(|error| error.to_string())?;
    let routing = client.routing();
    for (id, node) in &routing.nodes {
        let targets: Vec<u32> = routing
            .targets
            .iter()
            .filter(|(_, target)| target.node == *id)
            .map(|(target, _)| target.0)
            .collect();
        if json {
            let line = serde_json::json!({
                "node": id.0, "address": node.address, "alive": node.alive, "site": node.site, "rack": node.rack,
                "host": node.host, "targets": targets,
            });
            println!("{line}");
        } else {
            let state = if node.alive { "alive" } else { "gone" };
            let targets: Vec<String> = targets.iter().map(u32::to_string).collect();
            println!(
                "{id:>5}  {:<5}  {:<24}  {}/{}/{}  targets {}",
                state,
                node.address,
                node.site,
                node.rack,
                node.host,
                targets.join(",")
            );
        }
    }
    Ok(())
}
