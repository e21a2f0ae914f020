//! Storage classes: those that every cluster has, and those that are made later.

use super::ManagerOptions;
use super::record::ClassRecord;
use super::state::State;
use cluster::Room;
use types::class::{COPIES_MAX, Shortfall, StorageClass};
use types::layout::{CHUNK_SIZE_MAX, CHUNK_SIZE_MIN};
use types::{ClassId, TableId};

/// The longest name of a class, in bytes.
pub const NAME_MAX: usize = 64;
/// The most slots of a table: all tables together go to every client.
pub const SLOTS_MAX: u16 = 4096;
/// The most classes.
pub const CLASSES_MAX: usize = 256;

/// Why a class was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassError {
    /// There is another one of this name.
    Exists,
    /// Copies, chunk size, slots or name are out of bounds, or there are too many classes.
    Invalid,
    /// The class asks for more copies than can be kept as it asks.
    TooFewTargets(Room),
    /// This server is not the manager now.
    NotManager,
    /// The store of the metadata did not answer; the class may or may not have been made.
    Unavailable,
    /// The store of the metadata is full: it was not made.
    StoreFull,
}

/// The classes of a new cluster: `default`, and `single` for what can be made again.
pub(super) fn built_in(options: &ManagerOptions) -> Vec<ClassRecord> {
    let class = |id: u16, name: &str, copies: u8| StorageClass {
        id: ClassId(id),
        name: name.to_owned(),
        copies: copies.clamp(1, COPIES_MAX),
        chunk_size: options.chunk_size,
        domain: options.domain,
        sites: Vec::new(),
        table: TableId(id),
        slots: options.slots.clamp(1, SLOTS_MAX),
    };
    [class(1, "default", options.copies), class(2, "single", 1)]
        .map(|class| ClassRecord { class, placement: None })
        .into()
}

/// Gives a wanted class its ids, and `slots` when it names none. `Ok(Err(class))` when it is there already, the same.
pub(super) fn admit(
    state: &State,
    mut wanted: StorageClass,
    shortfall: Shortfall,
    slots: u16,
) -> Result<Result<ClassRecord, StorageClass>, ClassError> {
    if wanted.slots == 0 {
        wanted.slots = slots;
    }
    let sound = (1..=COPIES_MAX).contains(&wanted.copies)
        && (CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&wanted.chunk_size)
        && wanted.chunk_size.is_power_of_two()
        && (1..=SLOTS_MAX).contains(&wanted.slots)
        && (1..=NAME_MAX).contains(&wanted.name.len())
        && !wanted.name.chars().any(char::is_control);
    if !sound {
        return Err(ClassError::Invalid);
    }
    if let Some(there) = state.classes.values().find(|record| record.class.name == wanted.name) {
        (wanted.id, wanted.table) = (there.class.id, there.class.table);
        return if there.class == wanted { Ok(Err(wanted)) } else { Err(ClassError::Exists) };
    }
    let last = state.classes.keys().next_back().map_or(0, |id| id.0);
    let id = last.checked_add(1).ok_or(ClassError::Invalid)?;
    if state.classes.len() >= CLASSES_MAX {
        return Err(ClassError::Invalid);
    }
    let room = state.room(&wanted);
    match shortfall {
        Shortfall::Refused if room.apart < usize::from(wanted.copies) => {
            return Err(ClassError::TooFewTargets(room));
        }
        Shortfall::Refused | Shortfall::Allowed => {}
    }
    (wanted.id, wanted.table) = (ClassId(id), TableId(id));
    Ok(Ok(ClassRecord { class: wanted, placement: None }))
}
