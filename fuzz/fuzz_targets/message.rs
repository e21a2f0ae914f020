//! The messages in the bodies of frames: whatever is decoded can be encoded and decoded again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use types::manager::{ManagerError, ManagerReply, ManagerRequest};
use types::meta::{MetaError, MetaReply, MetaRequest};
use types::storage::{StorageError, StorageReply, StorageRequest};
use types::wire::{decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 6 {
        0 => check::<MetaRequest>(bytes),
        1 => check::<Result<MetaReply, MetaError>>(bytes),
        2 => check::<StorageRequest>(bytes),
        3 => check::<Result<StorageReply, StorageError>>(bytes),
        4 => check::<ManagerRequest>(bytes),
        _ => check::<Result<ManagerReply, ManagerError>>(bytes),
    }
});

fn check<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(message) = decode::<T>(bytes) {
        let encoded = encode(&message);
        let again: T = decode(&encoded).expect("what was encoded decodes");
        assert_eq!(encode(&again), encoded);
    }
}
