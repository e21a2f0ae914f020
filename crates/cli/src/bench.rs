//! `bench`: measures the cluster through the client, as the figures in `docs/performance.md` are measured.

mod data;
mod local;
mod metadata;
mod random;
mod sample;
mod small;

use crate::outcome::Stop;
use crate::remote;
use crate::session::Session;
use crate::text::size;
use clap::{Args, Subcommand};
use client::{Client, Parents};
use sample::Figure;
use std::path::PathBuf;
use std::time::Duration;
use types::Mode;

/// Measure throughput, rates and latencies.
#[derive(Args, Debug)]
#[command(
    after_help = "What is measured works in a directory of its own below --in, which is removed afterwards.\n\nExamples:\n  sr bench put --size 1G\n  sr bench small --files 10000 --size 4K\n  sr bench metadata --files 100000 --in-flight 64\n  sr bench random --size 1G --in-flight 32 --seconds 10\n  sr bench local --dir /disk --json"
)]
pub(crate) struct Bench {
    #[command(subcommand)]
    workload: Workload,
    /// The directory in the cloud to work in.
    #[arg(long = "in", default_value = "/", global = true, value_name = "PATH")]
    place: String,
    /// The storage class to write to; as the directory says if none is given.
    #[arg(long, global = true)]
    class: Option<String>,
    /// One JSON object per figure.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Workload {
    /// Durable uploads of one large file.
    #[command(after_help = "Example:\n  sr bench put --size 1G --repeat 3")]
    Put {
        #[arg(long, default_value = "1G", value_parser = size::parse)]
        size: u64,
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        repeat: u32,
    },
    /// Downloads of one large file, checked and thrown away.
    #[command(after_help = "Example:\n  sr bench get --size 1G --repeat 3")]
    Get {
        #[arg(long, default_value = "1G", value_parser = size::parse)]
        size: u64,
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        repeat: u32,
    },
    /// Small files: durable puts, a listing, gets, and their removal.
    #[command(after_help = "Example:\n  sr bench small --files 10000 --size 4K --in-flight 32")]
    Small {
        #[arg(long, default_value_t = 10_000)]
        files: u64,
        #[arg(long, default_value = "4K", value_parser = size::parse)]
        size: u64,
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
        in_flight: u32,
    },
    /// Metadata: durable creates in one directory, stats, and removal.
    #[command(after_help = "Example:\n  sr bench metadata --files 100000 --in-flight 64 --every 10000")]
    Metadata {
        #[arg(long, default_value_t = 100_000)]
        files: u64,
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
        in_flight: u32,
        /// Give the figures of each so many operations: shows whether they stay flat.
        #[arg(long, default_value_t = 0)]
        every: u64,
    },
    /// Random overwrites of one file, each durable before it counts, and random reads.
    #[command(after_help = "Example:\n  sr bench random --size 1G --block 4K --in-flight 32 --seconds 10")]
    Random {
        #[arg(long, default_value = "1G", value_parser = size::parse)]
        size: u64,
        #[arg(long, default_value = "4K", value_parser = size::parse)]
        block: u64,
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
        in_flight: u32,
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
        /// The server's process on this machine: counts what it writes to the disk.
        #[arg(long)]
        pid: Option<u32>,
    },
    /// The same on a local directory, to compare with: writes with fsync, and random O_DSYNC writes one at a time.
    #[command(after_help = "Example:\n  sr bench local --dir /srv/cloud --size 1G")]
    Local {
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        #[arg(long, default_value = "1G", value_parser = size::parse)]
        size: u64,
        #[arg(long, default_value = "4K", value_parser = size::parse)]
        block: u64,
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
    },
}

/// What all workloads work with.
struct Place {
    client: Client,
    /// A directory of this run's own.
    directory: String,
    class: Option<String>,
}

impl Place {
    fn path(&self, name: &str) -> String {
        remote::join(&self.directory, name)
    }
}

impl Bench {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        if let Workload::Local { dir, size, block, seconds } = &self.workload {
            let time = Duration::from_secs(u64::from(*seconds));
            let (dir, size, block) = (dir.clone(), *size, *block);
            let figures = crate::jobs::blocking(move || local::run(&dir, size, block, time)).await?;
            let figures =
                figures.map_err(|error| Stop::message(format!("cannot measure the disk: {error}")))?;
            return figures.iter().try_for_each(|figure| self.show(session, figure));
        }
        let name = format!(".sr-bench-{:016x}", session.client.id().0);
        let directory = remote::join(&remote::normal(&self.place), &name);
        let client = session.client.clone();
        client.make_directory(directory.as_str(), Mode(0o700), Parents::Require).await?;
        let place = Place { client: client.clone(), directory: directory.clone(), class: self.class.clone() };
        let result = self.measure(session, &place).await;
        let removed = client.remove_tree(directory.as_str()).await;
        result?;
        removed?;
        session.report.done();
        Ok(())
    }

    async fn measure(&self, session: &mut Session, place: &Place) -> Result<(), Stop> {
        match self.workload {
            Workload::Put { size, repeat } => {
                let figure = data::put(place, size, repeat).await?;
                self.show(session, &figure)
            }
            Workload::Get { size, repeat } => {
                let figure = data::get(place, size, repeat).await?;
                self.show(session, &figure)
            }
            Workload::Small { files, size, in_flight } => {
                small::run(place, files, size, in_flight, &mut |figure| self.show(session, &figure)).await
            }
            Workload::Metadata { files, in_flight, every } => {
                let every = if every == 0 { files } else { every };
                metadata::run(place, files, in_flight, every, &mut |figure| self.show(session, &figure)).await
            }
            Workload::Random { size, block, in_flight, seconds, pid } => {
                let time = Duration::from_secs(u64::from(seconds));
                let settings = random::Settings { size, block, in_flight, time, pid };
                random::run(place, settings, &mut |figure| self.show(session, &figure)).await
            }
            Workload::Local { .. } => Ok(()), // Needs no cluster, and was dealt with.
        }
    }

    fn show(&self, session: &mut Session, figure: &Figure) -> Result<(), Stop> {
        if self.json {
            session.out.json(figure)?
        } else {
            session.out.line(&figure.to_string())?
        }
        // Each figure as soon as it is there: the next may take a while.
        session.out.flush()
    }
}
