//! `status`.

mod store;

use crate::following;
use crate::health::{self, Health, Reason};
use crate::locate::state_word;
use crate::movement;
use crate::outcome::Stop;
use crate::session::Session;
use crate::text::size;
use clap::Args;
use client::{NodeStatus, Status};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use types::Routing;
use types::routing::{ChainInfo, MemberState};
use types::scrub::{Difference, Holding};

/// Show how the cluster is, in a word, and why: servers, targets, chains, where the metadata is, space and rates.
#[derive(Args, Debug)]
#[command(
    after_help = "healthy: each chain has all its copies, nothing is known to be bad, all was verified in its time.\ndegraded: all can be read, but not all is as safe as it should be.\ndamaged: some bytes are known to be bad.\nunavailable: some data cannot be read or written now.\n\nExamples:\n  sr status\n  sr status --damage\n  watch -n 5 sr status"
)]
pub(crate) struct StatusCommand {
    /// Also list what is bad, and where members differ, by path.
    #[arg(long)]
    damage: bool,
    /// One JSON object per line: the cluster, the store of its metadata, its servers, their targets, damage.
    #[arg(long)]
    json: bool,
}

/// Rates are measured over this time.
const RATE_TIME: Duration = Duration::from_millis(500);

#[derive(Serialize)]
#[serde(tag = "record", rename_all = "lowercase")]
enum Record<'a> {
    Cluster(Cluster),
    Movement(movement::Line),
    Following(following::Line<'a>),
    Metadata(MetadataServer<'a>),
    Store(store::Store<'a>),
    Member(store::Member<'a>),
    Server(Server<'a>),
    Target(Target<'a>),
    Damage(Damaged<'a>),
    Difference(Different<'a>),
}

#[derive(Debug, Serialize)]
struct Cluster {
    health: Health,
    reasons: Vec<Reason>,
    routing: u64,
    chains: usize,
    /// With all their members serving; with fewer; with none.
    whole: usize,
    degraded: usize,
    unavailable: usize,
    files: u64,
    directories: u64,
    bytes: u64,
    garbage: u64,
}

/// One of several metadata servers.
#[derive(Serialize)]
struct MetadataServer<'a> {
    node: u32,
    address: &'a str,
    /// The newest version of the messages that it speaks; none, if it does not answer.
    wire_version: Option<u16>,
}

#[derive(Serialize)]
struct Server<'a> {
    node: u32,
    address: &'a str,
    alive: bool,
    site: &'a str,
    rack: &'a str,
    host: &'a str,
    version: Option<&'a str>,
    wire_version: Option<u16>,
    uptime_s: Option<u64>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Target<'a> {
    target: u32,
    node: u32,
    state: String,
    directory: Option<&'a str>,
    capacity: u64,
    used: u64,
    full: bool,
    chunks: Option<u64>,
    live: Option<u64>,
    stored: Option<u64>,
    read_rate: Option<u64>,
    write_rate: Option<u64>,
    damaged: Option<u64>,
    failed: Option<&'a str>,
}

#[derive(Serialize)]
struct Damaged<'a> {
    node: u32,
    target: u32,
    path: Option<&'a str>,
    inode: u64,
    chunk: u32,
    offset: Option<u64>,
}

#[derive(Serialize)]
struct Different<'a> {
    path: Option<&'a str>,
    inode: u64,
    chunk: u32,
    chain: String,
    target: u32,
    here: String,
    other: u32,
    there: String,
}

/// Bytes read and written by a target.
type Rates = BTreeMap<u32, (u64, u64)>;

impl StatusCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let before = session.client.status().await?;
        tokio::time::sleep(RATE_TIME).await;
        let status = session.client.status().await?;
        let rates = rates(&before, &status);
        let cluster = cluster(&status);
        session.report.done();
        if self.json {
            session.out.json(&Record::Cluster(cluster))?;
            session.out.json(&Record::Movement(movement::line(&status.movement)))?;
            for one in &status.followings {
                session.out.json(&Record::Following(following::line(one)))?;
            }
            for server in &status.servers {
                let (node, address) = (server.node.0, server.address.as_str());
                let wire_version = status.speaks.get(address).map(|version| version.0);
                session.out.json(&Record::Metadata(MetadataServer { node, address, wire_version }))?;
            }
        } else {
            overview(session, &status, &cluster)?;
        }
        if let Some(store) = &status.store {
            store::show(session, store, self.json)?;
        }
        for node in &status.nodes {
            self.server(session, &status, node, &rates)?;
        }
        if self.damage {
            self.damage(session).await?;
        }
        Ok(())
    }

    fn server(
        &self,
        session: &mut Session,
        status: &Status,
        node: &NodeStatus,
        rates: &Rates,
    ) -> Result<(), Stop> {
        let wire_version = status.speaks.get(&node.info.address).map(|version| version.0);
        let server = Server { wire_version, ..server(node) };
        if self.json {
            session.out.json(&Record::Server(server))?;
        } else {
            let state = if server.alive { "alive" } else { "not alive" };
            let place = format!("{}/{}/{}", server.site, server.rack, server.host);
            let word = match (&server.error, server.version, server.uptime_s) {
                (Some(error), _, _) => format!("no answer: {error}"),
                (None, Some(version), Some(seconds)) => {
                    let wire = server.wire_version.map(|wire| format!(" (wire version {wire})"));
                    format!("version {version}{}, up {}", wire.unwrap_or_default(), duration(seconds))
                }
                _ => String::new(),
            };
            session.out.line("")?;
            session
                .out
                .line(&format!("server {} at {} ({place}): {state}, {word}", server.node, server.address))?;
        }
        for target in targets(&status.routing, node, rates) {
            if self.json {
                session.out.json(&Record::Target(target))?;
            } else {
                session.out.line(&target_line(&target))?;
            }
        }
        Ok(())
    }

    async fn damage(&self, session: &mut Session) -> Result<(), Stop> {
        let reports = session.client.damage().await?;
        let differences = session.client.differences().await?;
        if !self.json {
            session.out.line("")?;
        }
        if reports.is_empty() && differences.is_empty() && !self.json {
            return session.out.line("damage: none is known");
        }
        for report in &reports {
            let damaged = Damaged {
                node: report.node.0,
                target: report.damage.target.0,
                path: report.path.as_deref(),
                inode: report.damage.inode.0,
                chunk: report.damage.index.0,
                offset: report.offset,
            };
            if self.json {
                session.out.json(&Record::Damage(damaged))?;
                continue;
            }
            let file = match damaged.path {
                Some(path) => session.out.name(path).into_owned(),
                None => format!("inode {} (no longer named)", damaged.inode),
            };
            let at = damaged.offset.map(|offset| format!(" at byte {offset}")).unwrap_or_default();
            session.out.line(&format!(
                "damage: {file}{at}: chunk {} on target {} of server {}",
                damaged.chunk, damaged.target, damaged.node
            ))?;
        }
        for (difference, path) in &differences {
            self.difference(session, difference, path.as_deref())?;
        }
        Ok(())
    }

    fn difference(&self, session: &mut Session, found: &Difference, path: Option<&str>) -> Result<(), Stop> {
        let different = Different {
            path,
            inode: found.chunk.inode.0,
            chunk: found.chunk.index.0,
            chain: found.chain.to_string(),
            target: found.target.0,
            here: holding_words(found.here),
            other: found.other.0,
            there: holding_words(found.there),
        };
        if self.json {
            return session.out.json(&Record::Difference(different));
        }
        let file = match path {
            Some(path) => session.out.name(path).into_owned(),
            None => format!("inode {} (no longer named)", different.inode),
        };
        session.out.line(&format!(
            "difference: {file}: chunk {} on target {} is {}, on target {} it is {}",
            different.chunk, different.target, different.here, different.other, different.there
        ))
    }
}

fn holding_words(holding: Holding) -> String {
    match holding {
        Holding::Nothing => "missing".to_owned(),
        Holding::Removed { version } => format!("removed by update {version}"),
        Holding::There { version, length, content: None } => format!("{length} bytes of version {version}"),
        Holding::There { version, length, content: Some(crc) } => {
            format!("{length} bytes of version {version} (CRC-32C {:08x})", crc.0)
        }
    }
}

fn overview(session: &mut Session, status: &Status, cluster: &Cluster) -> Result<(), Stop> {
    let Cluster {
        health,
        reasons,
        chains,
        whole,
        degraded,
        unavailable,
        files,
        directories,
        bytes,
        garbage,
        ..
    } = cluster;
    let capacity: u64 = status.routing.targets.values().map(|target| target.capacity).sum();
    let used: u64 = status.routing.targets.values().map(|target| target.used).sum();
    session.out.line(health.word())?;
    for reason in reasons {
        session.out.line(&format!("  {}", reason.text))?;
    }
    session
        .out
        .line(&format!("chains: {chains}: {whole} whole, {degraded} degraded, {unavailable} unavailable"))?;
    session.out.line(&format!(
        "data:   {files} files of {} in {directories} directories, {garbage} removed and not yet cleared away",
        size::words(*bytes)
    ))?;
    session.out.line(&format!("space:  {} used of {}", size::words(used), size::words(capacity)))?;
    if !status.servers.is_empty() {
        let named = status.servers.iter().map(|server| {
            let wire = match status.speaks.get(&server.address) {
                Some(version) => format!("wire version {version}"),
                None => "no answer".to_owned(),
            };
            format!("{} at {} ({wire})", server.node, server.address)
        });
        let servers: Vec<String> = named.collect();
        session.out.line(&format!("metadata: servers {}", servers.join(", ")))?;
    }
    movement::sentence(&status.movement).map_or(Ok(()), |text| session.out.line(&text))?;
    for one in &status.followings {
        session.out.line(&following::sentence(one, &session.out.name(&one.path)))?;
    }
    Ok(())
}

fn cluster(status: &Status) -> Cluster {
    let reasons = health::reasons(status);
    let mut cluster = Cluster {
        health: health::worst(&reasons),
        reasons,
        routing: status.routing.version,
        chains: 0,
        whole: 0,
        degraded: 0,
        unavailable: 0,
        files: status.totals.files,
        directories: status.totals.directories,
        bytes: status.totals.bytes,
        garbage: status.totals.garbage,
    };
    for class in &status.routing.classes {
        let Some(table) = status.routing.tables.get(&class.table) else { continue };
        for chain in &table.chains {
            cluster.chains += 1;
            match serving(chain) {
                0 => cluster.unavailable += 1,
                few if few < usize::from(class.copies) => cluster.degraded += 1,
                _ => cluster.whole += 1,
            }
        }
    }
    cluster
}

fn serving(chain: &ChainInfo) -> usize {
    chain.members.iter().filter(|member| member.state == MemberState::Serving).count()
}

fn server(node: &NodeStatus) -> Server<'_> {
    let word = node.status.as_ref().ok();
    Server {
        node: node.node.0,
        address: &node.info.address,
        alive: node.info.alive,
        site: &node.info.site,
        rack: &node.info.rack,
        host: &node.info.host,
        version: word.map(|status| status.version.as_str()),
        wire_version: None,
        uptime_s: word.map(|status| status.uptime_s),
        error: node.status.as_ref().err().map(|error| error.cause().to_owned()),
    }
}

/// The targets of a server: what the routing knows, and the server's own word where there is one.
fn targets<'a>(routing: &Routing, node: &'a NodeStatus, rates: &Rates) -> Vec<Target<'a>> {
    let mut targets = Vec::new();
    for (id, info) in routing.targets.iter().filter(|(_, info)| info.node == node.node) {
        let own =
            node.status.as_ref().ok().and_then(|status| status.targets.iter().find(|t| t.target == *id));
        let rate = rates.get(&id.0);
        targets.push(Target {
            target: id.0,
            node: node.node.0,
            state: member_states(routing, *id),
            directory: own.map(|own| own.directory.as_str()),
            capacity: info.capacity,
            used: info.used,
            full: info.full,
            chunks: own.map(|own| own.chunks),
            live: own.map(|own| own.live),
            stored: own.map(|own| own.stored),
            read_rate: rate.map(|rate| rate.0),
            write_rate: rate.map(|rate| rate.1),
            damaged: own.map(|own| own.damaged),
            failed: own.and_then(|own| own.failed.as_deref()),
        });
    }
    targets
}

/// `serving 80, syncing 3`: in how many chains a target is in which state.
fn member_states(routing: &Routing, target: types::TargetId) -> String {
    let mut counts: BTreeMap<MemberState, usize> = BTreeMap::new();
    for (_, chain) in routing.chains() {
        for member in chain.members.iter().filter(|member| member.target == target) {
            *counts.entry(member.state).or_default() += 1;
        }
    }
    if counts.is_empty() {
        return "in no chain".to_owned();
    }
    let words: Vec<String> =
        counts.iter().map(|(state, count)| format!("{} {count}", state_word(*state))).collect();
    words.join(", ")
}

fn target_line(target: &Target<'_>) -> String {
    let mut line = format!("  target {:>3}: {}", target.target, target.state);
    if let (Some(chunks), Some(live), Some(stored)) = (target.chunks, target.live, target.stored) {
        line.push_str(&format!(
            "; {chunks} chunks of {} in {} on disk",
            size::words(live),
            size::words(stored)
        ));
    }
    if let (Some(read), Some(write)) = (target.read_rate, target.write_rate) {
        line.push_str(&format!("; reads {}/s, writes {}/s", size::words(read), size::words(write)));
    }
    line.push_str(&format!("; disk {} used of {}", size::words(target.used), size::words(target.capacity)));
    if target.full {
        line.push_str("; full");
    }
    if let Some(damaged) = target.damaged.filter(|count| *count > 0) {
        line.push_str(&format!("; {damaged} damaged"));
    }
    if let Some(why) = target.failed {
        line.push_str(&format!("; failed: {why}"));
    }
    line
}

/// Bytes per second of each target between two moments [`RATE_TIME`] apart.
fn rates(before: &Status, after: &Status) -> Rates {
    let totals = |status: &Status| -> Rates {
        let known = status.nodes.iter().filter_map(|node| node.status.as_ref().ok());
        known.flat_map(|s| &s.targets).map(|t| (t.target.0, (t.bytes_read, t.bytes_written))).collect()
    };
    let before = totals(before);
    let per_second = |from: u64, to: u64| {
        let bytes = u128::from(to.saturating_sub(from)) * 1000 / RATE_TIME.as_millis();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    };
    let rate = |(target, (read, written)): (u32, (u64, u64))| {
        let (read_before, written_before) = before.get(&target).copied().unwrap_or((read, written));
        (target, (per_second(read_before, read), per_second(written_before, written)))
    };
    totals(after).into_iter().map(rate).collect()
}

/// `3 d 4 h`, `5 min`.
fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests;
