//! Creates and stats.

use super::Place;
use super::sample::{self, Figure, Until, mix};
use crate::outcome::Stop;
use client::{CreateOptions, Parents};
use types::Mode;
use types::meta::{Exclusive, Follow};

/// Creates `files` files in one directory, then stats as many at random; a figure for each `every` of them.
pub(crate) async fn run(
    place: &Place,
    files: u64,
    in_flight: u32,
    every: u64,
    show: &mut dyn FnMut(Figure) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let base = place.path("metadata");
    place.client.make_directory(base.as_str(), Mode(0o700), Parents::Require).await?;
    let mut from = 0;
    while from < files {
        let to = (from + every).min(files);
        let (client, base) = (place.client.clone(), base.clone());
        let create = sample::run(in_flight, Until::Numbers { from, to }, move |number| {
            let (client, path) = (client.clone(), format!("{base}/file-{number:09}"));
            async move {
                let options = CreateOptions { exclusive: Exclusive::Yes, ..CreateOptions::default() };
                client.create(path.as_str(), options).await.map(drop)
            }
        });
        let mut figure = create.await?.figure("create, durable", in_flight, 0);
        figure.note = (every < files).then(|| format!("{to} files"));
        show(figure)?;
        from = to;
    }
    let (client, of_stat) = (place.client.clone(), base.clone());
    let stat = sample::run(in_flight, Until::Numbers { from: 0, to: files }, move |number| {
        let (client, path) = (client.clone(), format!("{of_stat}/file-{:09}", mix(number) % files));
        async move { client.stat(path.as_str(), Follow::No).await.map(drop) }
    });
    show(stat.await?.figure("stat", in_flight, 0))?;
    let (client, of_unlink) = (place.client.clone(), base);
    let unlink = sample::run(in_flight, Until::Numbers { from: 0, to: files.min(every) }, move |number| {
        let (client, path) = (client.clone(), format!("{of_unlink}/file-{number:09}"));
        async move { client.unlink(path.as_str()).await }
    });
    show(unlink.await?.figure("unlink, durable", in_flight, 0))
}
