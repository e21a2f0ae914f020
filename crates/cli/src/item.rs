//! What is shown of a file or directory: one JSON object, or one line.

use crate::text::{date, mode, size};
use serde::Serialize;
use types::{Attributes, FileKind, Mode, Time};

/// An inode under a path, for `--json`.
#[derive(Serialize)]
pub(crate) struct Item<'a> {
    path: &'a str,
    kind: &'static str,
    /// Octal.
    mode: String,
    links: u32,
    uid: u32,
    gid: u32,
    size: u64,
    inode: u64,
    modified: String,
    accessed: String,
    changed: String,
    born: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
}

impl<'a> Item<'a> {
    pub(crate) fn new(path: &'a str, attributes: &'a Attributes) -> Item<'a> {
        Item {
            path,
            kind: mode::kind_word(attributes.kind),
            mode: format!("{:04o}", attributes.mode.0 & Mode::MASK),
            links: attributes.links,
            uid: attributes.uid.0,
            gid: attributes.gid.0,
            size: attributes.length,
            inode: attributes.inode.0,
            modified: date::rfc3339(attributes.modified),
            accessed: date::rfc3339(attributes.accessed),
            changed: date::rfc3339(attributes.changed),
            born: date::rfc3339(attributes.born),
            target: attributes.target.as_deref(),
            chunk_size: attributes.layout.map(|layout| layout.chunk_size),
            class: None,
        }
    }

    /// The same with the name of the file's storage class.
    pub(crate) fn of_class(mut self, class: Option<&'a str>) -> Item<'a> {
        self.class = class;
        self
    }
}

/// How sizes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    Bytes,
    Human,
}

impl Sizes {
    /// From the flag `-h`.
    pub(crate) fn from_flag(human: bool) -> Sizes {
        if human { Sizes::Human } else { Sizes::Bytes }
    }

    /// A size as it is shown.
    pub(crate) fn show(self, bytes: u64) -> String {
        match self {
            Sizes::Bytes => bytes.to_string(),
            Sizes::Human => size::human(bytes),
        }
    }
}

/// The columns of a long listing but for the name.
pub(crate) struct Row {
    mode: String,
    links: String,
    owner: String,
    group: String,
    size: String,
    modified: String,
}

impl Row {
    pub(crate) fn new(attributes: &Attributes, sizes: Sizes) -> Row {
        let device = matches!(attributes.kind, FileKind::CharacterDevice | FileKind::BlockDevice);
        let size = if device { device_numbers(attributes.device) } else { sizes.show(attributes.length) };
        Row {
            mode: mode::string(attributes.kind, attributes.mode),
            links: attributes.links.to_string(),
            owner: attributes.uid.to_string(),
            group: attributes.gid.to_string(),
            size,
            modified: shown_time(attributes.modified),
        }
    }
}

fn shown_time(time: Time) -> String {
    date::minute(time)
}

/// `8, 1`: Linux's major and minor number.
fn device_numbers(device: u64) -> String {
    let major = ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff);
    let minor = (device & 0xff) | ((device >> 12) & !0xff);
    format!("{major}, {minor}")
}

/// The widths of some rows' columns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Widths {
    mode: usize,
    links: usize,
    owner: usize,
    group: usize,
    size: usize,
}

impl Widths {
    /// Wide enough for all of `rows`.
    pub(crate) fn of<'r>(rows: impl IntoIterator<Item = &'r Row>) -> Widths {
        rows.into_iter().fold(Widths::default(), |widths, row| Widths {
            mode: widths.mode.max(row.mode.len()),
            links: widths.links.max(row.links.len()),
            owner: widths.owner.max(row.owner.len()),
            group: widths.group.max(row.group.len()),
            size: widths.size.max(row.size.len()),
        })
    }

    /// A row's line, up to where the name starts.
    pub(crate) fn line(&self, row: &Row) -> String {
        let Widths { mode, links, owner, group, size } = *self;
        format!(
            "{:<mode$} {:>links$} {:>owner$} {:>group$} {:>size$} {} ",
            row.mode, row.links, row.owner, row.group, row.size, row.modified
        )
    }
}

#[cfg(test)]
pub(crate) mod tests;
