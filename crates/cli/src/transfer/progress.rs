//! A progress bar on a terminal; nothing elsewhere.

use crate::outcome::Report;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Files and bytes of a transfer under way. Shared by its jobs.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    report: Arc<Report>,
    files: AtomicU64,
    files_found: AtomicU64,
}

/// Times a second that the bar is drawn.
const REFRESH: u8 = 8;

impl Progress {
    /// A bar on the terminal of the standard error output; messages of `report` are written around it.
    pub(crate) fn new(report: &Arc<Report>) -> Arc<Progress> {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(REFRESH));
            let template = "{bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}  {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        report.beside(bar.clone());
        Arc::new(Progress {
            bar,
            report: report.clone(),
            files: AtomicU64::new(0),
            files_found: AtomicU64::new(0),
        })
    }

    /// A file of so many bytes is to be transferred.
    pub(crate) fn expect(&self, bytes: u64) {
        self.files_found.fetch_add(1, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc_length(bytes);
        }
    }

    /// So many bytes are done.
    pub(crate) fn bytes(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// A file is done, or failed; the last one was called `name`.
    pub(crate) fn file(&self, name: &str) {
        let done = self.files.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(bar) = &self.bar {
            let found = self.files_found.load(Ordering::Relaxed);
            bar.set_message(format!("{done}/{found} {}", crate::text::escape::inline(name)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.report.beside(None);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
