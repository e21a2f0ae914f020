//! An administrator who sets the class of all files, again and again, and the mover that has their data follow, as the one
//! beside the metadata server does: it may be gone at any moment, and its sessions with it.

use crate::workload::Stage;
use client::{Client, Error, Pace, Recoded};
use env::Random;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use types::Shortfall;
use types::following::{Amount, Following};

/// The class that files follow to, beside the one that is there.
const OTHER: &str = "other";
/// Files looked for at once.
const PAGE: u32 = 8;

/// The administrator and the mover.
pub struct Mover {
    pub client: Client,
    pub stage: Stage,
    pub random: Random,
}

/// As fast as can be.
struct Unpaced;

impl Pace for Unpaced {
    fn admit(&self, _bytes: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

impl Mover {
    /// Works until all is mended.
    pub async fn work(mut self) {
        while let Err(error) = self.make_class().await {
            tracing::debug!(%error, "the other class is not there yet");
        }
        while !self.stage.is_mended() {
            let done = match self.random.below(4) {
                0 => self.set_class().await,
                _ => self.move_some().await,
            };
            if let Err(error) = done {
                tracing::debug!(%error, "files do not follow now");
            }
            let pause = 1 + self.random.below(400);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Half the copies' number of chains, and chunks of twice the size: nothing lies where it lay.
    async fn make_class(&self) -> Result<(), Error> {
        let classes = self.client.classes().await?;
        if classes.iter().any(|class| class.name == OTHER) {
            return Ok(());
        }
        let Some(mut class) = classes.into_iter().next() else { return Ok(()) };
        class.name = OTHER.to_owned();
        class.chunk_size *= 2;
        self.client.make_class(class, Shortfall::Allowed).await.map(drop)
    }

    async fn set_class(&mut self) -> Result<(), Error> {
        let class = self.random.one_in(2).then(|| OTHER.to_owned());
        self.client.follow_class("/", class).await
    }

    async fn move_some(&mut self) -> Result<(), Error> {
        for following in self.client.followings().await? {
            self.move_page(&following).await?;
        }
        Ok(())
    }

    async fn move_page(&mut self, following: &Following) -> Result<(), Error> {
        let name = (following.directory, following.number);
        let (files, next) = self.client.to_follow(following.directory, following.after.clone(), PAGE).await?;
        let mut met = Amount::default();
        for file in files {
            // Now and then it is gone in the midst of one: the session ends by itself.
            let work = self.client.recode(file.inode, name, Arc::new(Unpaced));
            let patience = if self.random.one_in(4) { self.random.below(40) } else { 20_000 };
            match tokio::time::timeout(Duration::from_millis(patience), work).await {
                Ok(Ok(Recoded::Moved | Recoded::Nothing)) => {}
                Ok(Ok(Recoded::NotNow(_)) | Err(_)) | Err(_) => met = met.plus(Amount::file(file.length)),
            }
        }
        self.client.note_following(name, next, met, None).await.map(drop)
    }
}
