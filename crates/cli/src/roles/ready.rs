//! When a server may say "ready", and when it must stop.

use crate::text::size;
use client::{Context, ContextSecurity};
use server::storage::Storage;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use types::storage::TargetStatus;

/// How long a start may take: a large cluster's log is replayed in less.
const READY_MAX: Duration = Duration::from_secs(120);

/// A target that says for so long that it is full is not one that just begins.
const FULL_FOR: Duration = Duration::from_secs(5);

/// Waits until every chain has a member that serves, and this server does its part.
pub(crate) async fn wait(storage: &Storage) -> Result<(), String> {
    let begin = Instant::now();
    while !storage.is_ready() {
        let waited = begin.elapsed();
        if waited > FULL_FOR && storage.routing().chains().next().is_none() && storage.is_full() {
            return Err(no_room(storage));
        }
        if waited > READY_MAX {
            return Err("not ready after two minutes: the log above says why".to_owned());
        }
        // Readiness is many small facts; asking for them costs less than telling each.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A new cluster is placed on targets that take data, of which there is none.
fn no_room(storage: &Storage) -> String {
    let target = |target: TargetStatus| format!("{} has {} free", target.directory, size::words(target.free));
    let targets: Vec<String> = storage.status().targets.into_iter().map(target).collect();
    format!(
        "no target has room for data: {}; a part of each disk is kept free, so make room there or use a larger one",
        targets.join(", ")
    )
}

/// Waits until the manager knows this server and has given it a lease. A new cluster waits for more servers than one.
pub(crate) async fn registered(storage: &Storage) {
    while !storage.has_lease() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for Ctrl-C or a polite kill.
pub(crate) async fn told_to_stop() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}

/// Makes `context` the one that `sr` uses when none is named, unless the user has another. Whether it is now.
pub(crate) fn publish_context(context: &Context) -> bool {
    let Some(default) = crate::context::default_path() else { return false };
    if default.symlink_metadata().is_ok() && !is_ours(&default, context) {
        return false;
    }
    let Some(parent) = default.parent() else { return false };
    let ContextSecurity::Tls { authority, certificate, key } = &context.security else { return false };
    let absolute = |name: &String| context.directory.join(name).display().to_string();
    let elsewhere = Context {
        servers: context.servers.clone(),
        security: ContextSecurity::Tls {
            authority: absolute(authority),
            certificate: absolute(certificate),
            key: absolute(key),
        },
        directory: parent.to_path_buf(),
    };
    std::fs::create_dir_all(parent).is_ok() && elsewhere.save(&default).is_ok()
}

/// Whether a context file belongs to this cluster's directory, or to one that is gone.
fn is_ours(file: &Path, context: &Context) -> bool {
    let authority_of = |context: &Context| match &context.security {
        ContextSecurity::Tls { authority, .. } => Some(context.directory.join(authority)),
        ContextSecurity::Plain { .. } => None,
    };
    let Ok(found) = Context::load(file) else { return false };
    match (authority_of(&found), authority_of(context)) {
        (Some(found), Some(ours)) => found == ours || !found.exists(),
        (None, _) | (_, None) => false,
    }
}
