//! Finding the paths that match.

use super::pattern::{Level, Pattern, levels};
use crate::{Client, Error, ErrorKind, ListOptions, Result, WalkOptions};
use std::sync::Arc;
use tokio::task::JoinSet;
use types::meta::{Entry, Follow};
use types::{Attributes, FileKind};

/// A path that matches.
#[derive(Clone, Debug)]
pub struct Match {
    /// From the root, with a leading `/`.
    pub path: String,
    /// Of the name itself: a symbolic link at the end is not followed.
    pub attributes: Attributes,
}

/// The most matches of one pattern: what a command line can sensibly work on, and some 500 MB of memory.
const MATCHES_MAX: usize = 1_000_000;
/// Directories listed at the same time.
const PARALLEL: usize = 32;

/// A path on the way, with what is known of it. No attributes: not looked at yet, it may not be there.
#[derive(Clone, Debug)]
struct Candidate {
    path: String,
    attributes: Option<Attributes>,
}

impl Client {
    /// The paths that match, in order (bytewise). The servers match each level, so only what matches is sent. A pattern
    /// without wildcards gives the one path, if it is there. Directories that may not be read are an error.
    pub async fn glob(&self, pattern: &str) -> Result<Vec<Match>> {
        let invalid = |cause: &str| Error::new(ErrorKind::Invalid, "expand", pattern, cause);
        let choices = levels(pattern).map_err(|refused| invalid(refused.0))?;
        let mut found = Vec::new();
        for choice in choices {
            found.append(&mut self.expand(&choice).await?);
            if found.len() > MATCHES_MAX {
                return Err(invalid("more than a million paths match").advise("name the directory instead"));
            }
        }
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        found.dedup_by(|a, b| a.path == b.path);
        Ok(found)
    }

    async fn expand(&self, levels: &[Level]) -> Result<Vec<Match>> {
        let mut frontier = vec![Candidate { path: String::new(), attributes: None }];
        for (position, level) in levels.iter().enumerate() {
            let last = position + 1 == levels.len();
            frontier = match level {
                Level::Name(name) => frontier
                    .into_iter()
                    .map(|c| Candidate { path: format!("{}/{name}", c.path), attributes: None })
                    .collect(),
                Level::Names(pattern, text) => {
                    let (pattern, text) = (Arc::new(pattern.clone()), Arc::new(text.clone()));
                    let list = |client: Client, candidate: Candidate| {
                        list_level(client, candidate, pattern.clone(), text.clone(), last)
                    };
                    self.in_parallel(frontier, list).await?
                }
                Level::Deep => {
                    let walk = |client: Client, candidate: Candidate| walk_level(client, candidate, last);
                    self.in_parallel(frontier, walk).await?
                }
            };
            // Two ways may lead to one path: `**/**`.
            frontier.sort_unstable_by(|a, b| a.path.cmp(&b.path));
            frontier.dedup_by(|a, b| a.path == b.path);
        }
        let found = self.in_parallel(frontier, look).await?;
        Ok(found
            .into_iter()
            .filter_map(|c| {
                let path = if c.path.is_empty() { "/".to_string() } else { c.path };
                Some(Match { path, attributes: c.attributes? })
            })
            .collect())
    }

    /// Runs `step` on all candidates, a few at a time, and gives what they found together.
    async fn in_parallel<F>(
        &self,
        candidates: Vec<Candidate>,
        step: impl Fn(Client, Candidate) -> F,
    ) -> Result<Vec<Candidate>>
    where
        F: Future<Output = Result<Vec<Candidate>>> + Send + 'static,
    {
        let mut found = Vec::new();
        let mut running = JoinSet::new();
        let mut waiting = candidates.into_iter();
        loop {
            while running.len() < PARALLEL
                && let Some(candidate) = waiting.next()
            {
                running.spawn(step(self.clone(), candidate));
            }
            match running.join_next().await {
                None => return Ok(found),
                Some(Ok(more)) => found.append(&mut more?),
                Some(Err(stopped)) => {
                    return Err(Error::new(ErrorKind::Broken, "expand", "", stopped.to_string()));
                }
            }
            if found.len() > MATCHES_MAX {
                return Err(Error::new(ErrorKind::Invalid, "expand", "", "more than a million paths match")
                    .advise("name the directory instead"));
            }
        }
    }
}

/// What is not there, or is no directory, matches nothing.
fn forgive<T: Default>(result: Result<T>) -> Result<T> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotDirectory) => {
            Ok(T::default())
        }
        other => other,
    }
}

async fn look(client: Client, candidate: Candidate) -> Result<Vec<Candidate>> {
    if candidate.attributes.is_some() {
        return Ok(vec![candidate]);
    }
    let attributes = match client.stat(candidate.path.as_str(), Follow::No).await {
        Ok(attributes) => Some(attributes),
        Err(error) => forgive(Err(error))?,
    };
    Ok(attributes.map(|a| Candidate { path: candidate.path, attributes: Some(a) }).into_iter().collect())
}

async fn list_level(
    client: Client,
    candidate: Candidate,
    pattern: Arc<Pattern>,
    text: Arc<String>,
    last: bool,
) -> Result<Vec<Candidate>> {
    let options = ListOptions { pattern: Some(text.to_string()), ..ListOptions::default() };
    let mut listing = client.list(candidate.path.as_str(), options);
    let mut found = Vec::new();
    while let Some(entries) = forgive(listing.next_page().await)? {
        // The server's word is checked: another version of it may read patterns differently.
        let hidden = |name: &str| name.starts_with('.') && !text.starts_with(['.', '\\']);
        let matching = entries.into_iter().filter(|e| !hidden(&e.name) && pattern.matches(&e.name));
        let kept = matching.filter(|e| last || may_lead_on(e.attributes.kind));
        found.extend(kept.map(|entry| candidate_of(&candidate.path, entry)));
        if found.len() > MATCHES_MAX {
            break;
        }
    }
    Ok(found)
}

/// All directories below the candidate and itself; with `last` everything below it.
async fn walk_level(client: Client, candidate: Candidate, last: bool) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    let mut walk = client.walk(candidate.path.as_str(), WalkOptions::default());
    if !last {
        found.push(candidate);
    }
    while let Some(page) = walk.next().await {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                forgive::<()>(Err(error))?;
                continue;
            }
        };
        let directory = if page.directory == "/" { String::new() } else { page.directory.clone() };
        for entry in page.entries {
            let is_directory = entry.attributes.kind == FileKind::Directory;
            if entry.name.starts_with('.') {
                if is_directory {
                    walk.skip(&entry.name);
                }
            } else if last || is_directory {
                found.push(candidate_of(&directory, entry));
            }
        }
        if found.len() > MATCHES_MAX {
            break;
        }
    }
    Ok(found)
}

fn may_lead_on(kind: FileKind) -> bool {
    matches!(kind, FileKind::Directory | FileKind::SymbolicLink)
}

fn candidate_of(directory: &str, entry: Entry) -> Candidate {
    Candidate { path: format!("{directory}/{}", entry.name), attributes: Some(entry.attributes) }
}
