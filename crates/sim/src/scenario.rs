//! Scenarios: which cluster, which work, and which faults run beside it. Files in `scenarios/`.

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What a run is made of. The seed decides everything else.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is for, in a sentence.
    pub about: String,
    pub cluster: Cluster,
    pub work: Work,
    #[serde(default)]
    pub faults: Faults,
}

/// The machines.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Storage servers, of one target each.
    pub storage: u8,
    pub copies: u8,
    /// Chains.
    pub slots: u16,
    pub clients: u8,
}

/// What the clients do.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// How long, in seconds, while faults happen.
    pub seconds: u64,
    /// Tasks of each client that write and read pieces of shared files.
    pub registers: u8,
    /// Tasks of each client that make, rename and remove names.
    pub names: u8,
    /// Tasks of each client that write to files without a name.
    #[serde(default)]
    pub orphans: u8,
    /// Beside them an administrator has data moved.
    #[serde(default)]
    pub moves: bool,
    /// Beside them files follow the class of their directory, to and fro.
    #[serde(default)]
    pub follows: bool,
    /// The longest pause between two operations of a task, in milliseconds.
    pub pause_ms: u64,
    /// When all is mended, how long in seconds until every client has had all its answers.
    pub mended_seconds: u64,
    /// Then the cluster rests for so many seconds before it is looked at.
    pub rest_seconds: u64,
    /// After that rest every chunk belongs to a file.
    #[serde(default)]
    pub no_leaks: bool,
}

/// How often at most each fault happens in a run; and how far apart clocks are.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// A process is killed: between two turns, or between any two polls of its tasks.
    pub kill: u64,
    /// A machine loses power: so does what its disk had not synced, whole or in part.
    pub power: u64,
    /// The same at some write, sync or change of names of its disk.
    pub power_at_write: u64,
    /// All storage servers lose power at once.
    pub blackout: u64,
    /// The same for the metadata server.
    pub meta_kill: u64,
    pub meta_power: u64,
    pub meta_power_at_write: u64,
    /// A path between two machines is shut in both directions.
    pub partition: u64,
    /// In one direction.
    pub one_way: u64,
    /// A storage server is cut off from the manager, from all servers, or from everybody.
    pub isolate: u64,
    /// A storage server is cut off from the manager, and for longer all clients but one: they do not learn that its place
    /// was given away.
    pub mislead: u64,
    /// A connection breaks.
    pub reset: u64,
    /// A process stands still and wakes again.
    pub pause: u64,
    /// A path is slow.
    pub slow_path: u64,
    /// A disk is slow.
    pub slow_disk: u64,
    /// A disk fails one operation; its machine is started again later.
    pub disk_error: u64,
    /// A disk is full for a while.
    pub full_disk: u64,
    /// Disks that answer syncs without doing them before they lose power: what may be lost then is not checked.
    pub lying_disk: u64,
    /// The fastest clock of the run over the slowest, in percent above 100. The protocols promise 25.
    pub clocks_percent: u64,
}

impl Scenario {
    /// Reads a scenario by its name or its path.
    pub fn load(name: &str) -> Result<Scenario, String> {
        let path = if name.contains('/') || name.contains('.') {
            PathBuf::from(name)
        } else {
            directory().join(format!("{name}.toml"))
        };
        let refuse = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| refuse(&error))?;
        toml::from_str(&text).map_err(|error| refuse(&error))
    }

    /// The names of all scenarios, in order.
    pub fn names() -> Result<Vec<String>, String> {
        let listed = std::fs::read_dir(directory()).map_err(|error| error.to_string())?;
        let mut names: Vec<String> = listed
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        Ok(names)
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}
