//! Files that follow the class of their path, as users see them.

use crate::movement::Patience;
use crate::outcome::Stop;
use crate::session::Session;
use crate::text::{date, size};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::time::Duration;
use types::following::{Amount, Following, Stage};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// One directory.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    path: &'a str,
    class: &'a str,
    since: String,
    /// Until all is counted, the sums rise.
    counted: bool,
    files: u64,
    bytes: u64,
    files_done: u64,
    bytes_done: u64,
    files_skipped: u64,
    bytes_skipped: u64,
    trouble: Option<&'a str>,
}

pub(crate) fn line(one: &Following) -> Line<'_> {
    let all = one.done.plus(one.left);
    Line {
        path: &one.path,
        class: &one.class,
        since: date::full(one.since),
        counted: one.stage == Stage::Moving,
        files: all.files,
        bytes: all.bytes,
        files_done: one.done.files,
        bytes_done: one.done.bytes,
        files_skipped: one.skipped.files,
        bytes_skipped: one.skipped.bytes,
        trouble: one.trouble.as_deref(),
    }
}

/// `follow: /iso to archive: 3 of 40 files, 1.2 GiB of 9 GiB (`sr class status` has more)`.
pub(crate) fn sentence(one: &Following, path: &str) -> String {
    format!("follow: {path} to {}: {} (`sr class status` has more)", one.class, progress(one))
}

fn progress(one: &Following) -> String {
    let all = one.done.plus(one.left);
    let so_far = if one.stage == Stage::Counting { " so far" } else { "" };
    format!(
        "{} of {} files, {} of {}{so_far}",
        one.done.files,
        all.files,
        size::words(one.done.bytes),
        size::words(all.bytes)
    )
}

/// Shows all.
pub(crate) async fn status(session: &mut Session, json: bool) -> Result<(), Stop> {
    for one in &session.client.followings().await? {
        if json {
            session.out.json(&line(one))?;
            continue;
        }
        let path = session.out.name(&one.path).into_owned();
        let text =
            format!("{path}: to {}, since {}: {} done", one.class, date::full(one.since), progress(one));
        session.out.line(&text)?;
        if one.skipped != Amount::default() {
            let Amount { files, bytes } = one.skipped;
            let text = format!("  {files} files of {} skipped for now, and tried again", size::words(bytes));
            session.out.line(&text)?;
        }
        if let Some(trouble) = &one.trouble {
            session.out.line(&format!("  {}", session.out.name(trouble)))?;
        }
    }
    session.report.done();
    Ok(())
}

/// Waits until all files below these directories have followed, with a bar.
pub(crate) async fn wait(session: &mut Session, patience: Patience, paths: &[String]) -> Result<(), Stop> {
    if patience == Patience::None {
        return Ok(());
    }
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(0));
    let style = ProgressStyle::with_template(
        "{bar:40} {bytes}/{total_bytes} moved, {elapsed} gone, {eta} to go {msg}",
    );
    if let (Some(bar), Ok(style)) = (&bar, style) {
        bar.set_style(style);
    }
    // By inode: a directory may be renamed meanwhile.
    let mut directories = Vec::new();
    for path in paths {
        directories.push(session.client.stat(path.as_str(), types::meta::Follow::Yes).await?.inode);
    }
    loop {
        let mut all = session.client.followings().await?;
        all.retain(|one| directories.contains(&one.directory));
        if all.is_empty() {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            return Ok(());
        }
        if let Some(bar) = &bar {
            let sum = |amounts: fn(&Following) -> Amount| {
                all.iter().fold(Amount::default(), |sum, one| sum.plus(amounts(one)))
            };
            let (done, left) = (sum(|one| one.done), sum(|one| one.left));
            bar.set_length(done.bytes.saturating_add(left.bytes));
            bar.set_position(done.bytes);
            bar.set_message(all.iter().find_map(|one| one.trouble.clone()).unwrap_or_default());
        }
        tokio::time::sleep(LOOK).await;
    }
}
