//! `locate`.

use crate::outcome::Stop;
use crate::remote::{self, Missing};
use crate::session::Session;
use clap::Args;
use client::glob::Match;
use client::{ChunkLocation, CopyLocation, Error, ErrorKind};
use serde::Serialize;
use types::meta::Follow;
use types::routing::MemberState;
use types::{ChunkIndex, FileKind};

/// Show where the bytes of files are: chunks, their chains, and the members of these.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  sr locate /data/a.csv\n  sr locate --verify /data/a.csv\n  sr locate --json /data/big.img | jq .copies"
)]
pub(crate) struct Locate {
    /// Ask each member for its copy: version and length.
    #[arg(long)]
    verify: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

/// Chunks asked for at once.
const PAGE: u32 = 1024;

#[derive(Serialize)]
struct ChunkLine<'a> {
    path: &'a str,
    chunk: u32,
    offset: u64,
    length: u64,
    chain: String,
    epoch: u64,
    copies: Vec<CopyLine>,
}

#[derive(Serialize)]
struct CopyLine {
    target: u32,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rack: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// With --verify: what the member says of its copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<String>,
}

/// A member's state in a word.
pub(crate) fn state_word(state: MemberState) -> &'static str {
    match state {
        MemberState::Serving => "serving",
        MemberState::Syncing => "syncing",
        MemberState::Waiting => "waiting",
        MemberState::Offline => "offline",
        MemberState::LastServing => "last-serving",
    }
}

impl Locate {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let found = remote::expand(
            &session.client,
            &session.report,
            "locate",
            &self.paths,
            Follow::Yes,
            Missing::Fails,
        )
        .await?;
        for Match { path, attributes } in found {
            if attributes.kind != FileKind::File {
                let cause = "only files have chunks";
                session.report.failed(Error::new(ErrorKind::Invalid, "locate", path, cause))?;
                continue;
            }
            let chunks = attributes.layout.and_then(|layout| layout.chunks(attributes.length)).unwrap_or(0);
            if !self.json {
                let line =
                    format!("{}: {} bytes in {chunks} chunks", session.out.name(&path), attributes.length);
                session.out.line(&line)?;
            }
            let mut first = 0;
            while first < chunks {
                let page = session.client.locate(path.as_str(), ChunkIndex(first), PAGE).await;
                let Some(page) = session.report.item(page)? else { break };
                if page.is_empty() {
                    break;
                }
                first = first.saturating_add(u32::try_from(page.len()).unwrap_or(u32::MAX));
                for chunk in &page {
                    self.chunk(session, &path, chunk).await?;
                }
            }
        }
        Ok(())
    }

    async fn chunk(&self, session: &mut Session, path: &str, chunk: &ChunkLocation) -> Result<(), Stop> {
        let mut copies: Vec<CopyLine> = chunk.copies.iter().map(copy_line).collect();
        if self.verify {
            let answers = session.client.copies(path, chunk.index).await;
            let answers = match answers {
                Ok(answers) => answers,
                Err(error) => {
                    session.report.failed(error)?;
                    Vec::new()
                }
            };
            for (target, answer) in answers {
                let said = match answer {
                    Ok(Some(state)) => format!("version {}, {} bytes", state.version, state.length),
                    Ok(None) => "has no such chunk".to_owned(),
                    Err(error) => error.cause().to_owned(),
                };
                copies
                    .iter_mut()
                    .filter(|copy| copy.target == target.0)
                    .for_each(|copy| copy.copy = Some(said.clone()));
            }
        }
        let ChunkLocation { index, offset, length, chain, epoch, .. } = chunk;
        if self.json {
            return session.out.json(&ChunkLine {
                path,
                chunk: index.0,
                offset: *offset,
                length: *length,
                chain: chain.to_string(),
                epoch: epoch.0,
                copies,
            });
        }
        session.out.line(&format!(
            "  chunk {index}: bytes {offset}..{}, chain {chain}, epoch {epoch}",
            offset + length
        ))?;
        for copy in copies {
            let place = match (&copy.node, &copy.address) {
                (Some(node), Some(address)) => format!(
                    "node {node} at {address} ({}/{}/{})",
                    copy.site.as_deref().unwrap_or("?"),
                    copy.rack.as_deref().unwrap_or("?"),
                    copy.host.as_deref().unwrap_or("?")
                ),
                _ => "an unknown node".to_owned(),
            };
            let said = copy.copy.map(|said| format!(": {said}")).unwrap_or_default();
            session.out.line(&format!("    {:<12} target {} on {place}{said}", copy.state, copy.target))?;
        }
        Ok(())
    }
}

fn copy_line(copy: &CopyLocation) -> CopyLine {
    let node = copy.node.as_ref();
    CopyLine {
        target: copy.target.0,
        state: state_word(copy.state),
        node: node.map(|(id, _)| id.0),
        address: node.map(|(_, info)| info.address.clone()),
        site: node.map(|(_, info)| info.site.clone()),
        rack: node.map(|(_, info)| info.rack.clone()),
        host: node.map(|(_, info)| info.host.clone()),
        copy: None,
    }
}
