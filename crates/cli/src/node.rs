//! `node` and `target`: the servers of the cluster and their disks, and taking them out of use.

use crate::movement::{self, Patience};
use crate::outcome::Stop;
use crate::session::Session;
use crate::text::size;
use clap::{Args, Subcommand};
use serde::Serialize;
use types::movement::Direction;
use types::{NodeId, Routing, TargetId};

/// The storage servers of the cluster.
#[derive(Args, Debug)]
#[command(
    after_help = "A server joins by being started (`sr storage --help`). Examples:\n  sr node ls\n  sr node drain 3 --wait\n  sr node remove 3"
)]
pub(crate) struct Node {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Subcommand, Debug)]
enum NodeCommand {
    /// List the storage servers: number, address, site, rack, host, whether the manager hears from them, targets.
    #[command(after_help = "Examples:\n  sr node ls\n  sr node ls --json")]
    Ls {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Move everything off the targets of servers, and give them nothing new (administrator only).
    ///
    /// Reads and writes go on. When it is done the servers can be stopped and removed.
    #[command(after_help = "Examples:\n  sr node drain 3 --wait\n  sr node undrain 3")]
    Drain(Drain),
    /// Let the targets of drained servers be used again (administrator only).
    #[command(after_help = "Examples:\n  sr node undrain 3")]
    Undrain(Ids),
    /// Forget servers that are stopped and drained, or lost and repaired, with their targets (administrator only).
    #[command(after_help = "Examples:\n  sr node remove 3")]
    Remove(Ids),
}

/// Targets: the disks of storage servers.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  sr target ls\n  sr target drain 12 --wait\n  sr target remove 12")]
pub(crate) struct TargetCommand {
    #[command(subcommand)]
    command: TargetSubcommand,
}

#[derive(Subcommand, Debug)]
enum TargetSubcommand {
    /// List the targets: number, server, space, chains.
    #[command(after_help = "Examples:\n  sr target ls --json")]
    Ls {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Move everything off targets, and give them nothing new (administrator only). Reads and writes go on.
    #[command(after_help = "Examples:\n  sr target drain 12 --wait\n  sr target undrain 12")]
    Drain(Drain),
    /// Let drained targets be used again (administrator only).
    #[command(after_help = "Examples:\n  sr target undrain 12")]
    Undrain(Ids),
    /// Forget targets that no chain uses and no running server has (administrator only).
    #[command(after_help = "Examples:\n  sr target remove 12")]
    Remove(Ids),
}

#[derive(Args, Debug)]
struct Drain {
    #[command(flatten)]
    which: Ids,
    /// Wait until they are empty.
    #[arg(long)]
    wait: bool,
}

#[derive(Args, Debug)]
struct Ids {
    /// Numbers, as `sr node ls` and `sr target ls` show them.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<u32>,
}

#[derive(Serialize)]
struct NodeLine<'a> {
    node: u32,
    address: &'a str,
    alive: bool,
    site: &'a str,
    rack: &'a str,
    host: &'a str,
    targets: Vec<u32>,
}

#[derive(Serialize)]
struct TargetLine {
    target: u32,
    node: u32,
    alive: bool,
    capacity: u64,
    used: u64,
    full: bool,
    draining: bool,
    chains: usize,
}

impl Node {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        match self.command {
            NodeCommand::Ls { json } => list_nodes(session, json),
            NodeCommand::Drain(Drain { which, wait }) => {
                let targets = targets_of(session, &which.ids)?;
                drain(session, targets, true, Patience::from(wait)).await
            }
            NodeCommand::Undrain(Ids { ids }) => {
                let targets = targets_of(session, &ids)?;
                drain(session, targets, false, Patience::None).await
            }
            NodeCommand::Remove(Ids { ids }) => {
                for id in ids {
                    for target in targets_of(session, &[id])? {
                        remove_target(session, target).await?;
                    }
                    let removed = Direction::RemoveNode(NodeId(id));
                    let done = session.client.direct("remove", &format!("server {id}"), removed).await;
                    session.report.item(done)?;
                }
                Ok(())
            }
        }
    }
}

impl TargetCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let targets = |ids: Vec<u32>| ids.into_iter().map(TargetId).collect();
        match self.command {
            TargetSubcommand::Ls { json } => list_targets(session, json).await,
            TargetSubcommand::Drain(Drain { which, wait }) => {
                drain(session, targets(which.ids), true, Patience::from(wait)).await
            }
            TargetSubcommand::Undrain(Ids { ids }) => {
                drain(session, targets(ids), false, Patience::None).await
            }
            TargetSubcommand::Remove(Ids { ids }) => {
                for id in ids {
                    remove_target(session, TargetId(id)).await?;
                }
                Ok(())
            }
        }
    }
}

/// The targets of servers that must be there.
fn targets_of(session: &Session, nodes: &[u32]) -> Result<Vec<TargetId>, Stop> {
    let routing = session.client.routing();
    for node in nodes {
        if !routing.nodes.contains_key(&NodeId(*node)) {
            return Err(Stop::message(format!("there is no server {node} (see `sr node ls`)")));
        }
    }
    let own = |(target, info): (&TargetId, &types::routing::TargetInfo)| {
        nodes.contains(&info.node.0).then_some(*target)
    };
    Ok(routing.targets.iter().filter_map(own).collect())
}

async fn drain(
    session: &mut Session,
    targets: Vec<TargetId>,
    drain: bool,
    patience: Patience,
) -> Result<(), Stop> {
    let subject = targets.iter().map(|target| format!("target {target}")).collect::<Vec<_>>().join(", ");
    let action = if drain { "drain" } else { "undrain" };
    session.client.direct(action, &subject, Direction::Drain { targets: targets.clone(), drain }).await?;
    session.report.done();
    if drain {
        movement::wait(session, patience, |movement| {
            let left = movement.draining.iter().filter(|(target, _)| targets.contains(target));
            left.map(|(_, chains)| u64::from(*chains)).sum()
        })
        .await?;
    }
    Ok(())
}

async fn remove_target(session: &mut Session, target: TargetId) -> Result<(), Stop> {
    let removed = Direction::RemoveTarget(target);
    let done = session.client.direct("remove", &format!("target {target}"), removed).await;
    session.report.item(done)?;
    Ok(())
}

fn list_nodes(session: &mut Session, json: bool) -> Result<(), Stop> {
    let routing = session.client.routing();
    for (id, node) in &routing.nodes {
        let targets: Vec<u32> = routing
            .targets
            .iter()
            .filter(|(_, target)| target.node == *id)
            .map(|(target, _)| target.0)
            .collect();
        if json {
            session.out.json(&NodeLine {
                node: id.0,
                address: &node.address,
                alive: node.alive,
                site: &node.site,
                rack: &node.rack,
                host: &node.host,
                targets,
            })?;
        } else {
            let state = if node.alive { "alive" } else { "gone" };
            let targets: Vec<String> = targets.iter().map(u32::to_string).collect();
            session.out.line(&format!(
                "{id:>5}  {state:<5}  {:<24}  {}/{}/{}  targets {}",
                node.address,
                node.site,
                node.rack,
                node.host,
                targets.join(",")
            ))?;
        }
    }
    Ok(())
}

async fn list_targets(session: &mut Session, json: bool) -> Result<(), Stop> {
    let movement = session.client.movement().await?;
    let routing = session.client.routing();
    for (id, target) in &routing.targets {
        let draining = movement.draining.iter().any(|(other, _)| other == id);
        let line = TargetLine {
            target: id.0,
            node: target.node.0,
            alive: routing.node_of(*id).is_some_and(|node| node.alive),
            capacity: target.capacity,
            used: target.used,
            full: target.full,
            draining,
            chains: chains_of(&routing, *id),
        };
        if json {
            session.out.json(&line)?;
            continue;
        }
        let states = [(!line.alive, "gone"), (line.full, "full"), (line.draining, "draining")];
        let states: Vec<&str> = states.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
        let state = if states.is_empty() { "well".to_owned() } else { states.join(", ") };
        session.out.line(&format!(
            "{id:>5}  server {:>3}  {:>10} of {:>10}  {:>5} chains  {state}",
            target.node,
            size::words(target.used),
            size::words(target.capacity),
            line.chains
        ))?;
    }
    Ok(())
}

fn chains_of(routing: &Routing, target: TargetId) -> usize {
    let uses = |chain: &types::ChainInfo| chain.members.iter().any(|member| member.target == target);
    routing.chains().filter(|(_, chain)| uses(chain)).count()
}
