//! Listings: a directory's entries, page by page, the next page fetched while the caller works on this one.

use crate::tree::describe;
use crate::{Client, Error, Result};
use tokio::task::JoinHandle;
use types::InodeId;
use types::meta::{Detail, Entry, LIST_MAX, MetaReply, MetaRequest, Place};

/// How a directory is listed.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// Only names that match this wildcard (`*`, `?`, `[..]`, `{a,b}`, `\` takes the next letter as it is).
    pub pattern: Option<String>,
    /// Only names after this one.
    pub after: Option<String>,
    pub detail: Detail,
    /// Entries per page.
    pub page: u32,
}

/// Entries per page: about 1 MiB of them.
const PAGE: u32 = 4096;

impl Default for ListOptions {
    fn default() -> ListOptions {
        ListOptions { pattern: None, after: None, detail: Detail::Attributes, page: PAGE }
    }
}

/// A directory's entries in order of name (bytewise).
#[derive(Debug)]
pub struct Listing {
    client: Client,
    place: Place,
    /// How errors name it.
    subject: String,
    options: ListOptions,
    directory: Option<InodeId>,
    /// The last name given out.
    after: Option<String>,
    next: Next,
}

#[derive(Debug)]
enum Next {
    /// On its way already.
    Fetching(Fetch),
    /// To be fetched when asked for: it is the first, or the last attempt failed.
    Unfetched,
    End,
}

/// A page on its way; given up when dropped.
#[derive(Debug)]
pub(crate) struct Fetch(JoinHandle<Result<Page>>);

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) directory: InodeId,
    pub(crate) entries: Vec<Entry>,
    pub(crate) more: bool,
}

impl Client {
    /// Lists a directory. Nothing is sent before the first page is asked for.
    pub fn list(&self, place: impl Into<Place>, options: ListOptions) -> Listing {
        let (place, after) = (place.into(), options.after.clone());
        let subject = describe(&place);
        let (client, next) = (self.clone(), Next::Unfetched);
        Listing { client, place, subject, options, directory: None, after, next }
    }

    async fn page(&self, place: Place, after: Option<String>, options: &ListOptions) -> Result<Page> {
        let subject = describe(&place);
        let request = MetaRequest::List {
            place,
            after,
            limit: options.page.clamp(1, LIST_MAX),
            pattern: options.pattern.clone(),
            detail: options.detail,
        };
        match self.meta("list", &subject, &request).await? {
            MetaReply::Entries { directory, entries, more } => Ok(Page { directory, entries, more }),
            _ => Err(Error::unexpected("list", &subject)),
        }
    }

    pub(crate) fn fetch_page(&self, place: Place, after: Option<String>, options: &ListOptions) -> Fetch {
        let (client, options) = (self.clone(), options.clone());
        Fetch(tokio::spawn(async move { client.page(place, after, &options).await }))
    }
}

impl Fetch {
    pub(crate) async fn join(mut self) -> Result<Page> {
        match (&mut self.0).await {
            Ok(page) => page,
            Err(stopped) => Err(Error::new(crate::ErrorKind::Broken, "list", "", stopped.to_string())),
        }
    }
}

impl Listing {
    /// A listing whose first page may be on its way already; errors name the directory `subject`.
    pub(crate) fn started(
        client: Client,
        place: Place,
        subject: String,
        options: ListOptions,
        first: Option<Fetch>,
    ) -> Listing {
        let next = first.map_or(Next::Unfetched, Next::Fetching);
        Listing { client, place, subject, options, directory: None, after: None, next }
    }

    /// The last page was given out.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.next, Next::End)
    }

    /// The next entries, at least one; `None` at the end. After an error the same page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Entry>>> {
        self.fetch_next().await.map_err(|error| error.about("list", &self.subject))
    }

    async fn fetch_next(&mut self) -> Result<Option<Vec<Entry>>> {
        loop {
            // Until the page is there, a failure or a dropped future leaves it to be fetched again.
            let page = match std::mem::replace(&mut self.next, Next::Unfetched) {
                Next::Fetching(fetch) => fetch.join().await?,
                Next::Unfetched => {
                    self.client.page(self.place.clone(), self.after.clone(), &self.options).await?
                }
                Next::End => {
                    self.next = Next::End;
                    return Ok(None);
                }
            };
            self.next = Next::End;
            self.directory = Some(page.directory);
            if let (true, Some(last)) = (page.more, page.entries.last()) {
                // By the inode from now on: a rename of the directory meanwhile does no harm.
                self.place = Place::inode(page.directory);
                self.after = Some(last.name.clone());
                self.next = Next::Fetching(self.client.fetch_page(
                    self.place.clone(),
                    self.after.clone(),
                    &self.options,
                ));
            }
            if !page.entries.is_empty() {
                return Ok(Some(page.entries));
            }
        }
    }

    /// All entries that are left, at once.
    pub async fn collect(mut self) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        while let Some(mut page) = self.next_page().await? {
            all.append(&mut page);
        }
        Ok(all)
    }

    /// The directory's inode, once the first page is there.
    pub fn directory(&self) -> Option<InodeId> {
        self.directory
    }
}
