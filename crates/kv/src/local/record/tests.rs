use super::*;
use proptest::prelude::*;

fn a_record() -> (Vec<u8>, Vec<(Key, Option<Value>)>) {
    let writes = vec![
        (b"key".to_vec(), Some(b"value".to_vec())),
        (b"gone".to_vec(), None),
        (b"e".to_vec(), Some(vec![])),
    ];
    let mut bytes = Vec::new();
    encode(&mut bytes, Revision(7), Revision(6), Crc(0x0102_0304), &writes);
    (bytes, writes)
}

#[test]
fn the_format_stays() {
    let (bytes, _) = a_record();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN_RECORD);
    let hex: String = encode_segment(Revision(7)).0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN_SEGMENT);
}

const GOLDEN_RECORD: &str = "73724b4c29daafcc2900000004030201070000000000000006000000000000000300000003000000050000006b657976616c756504000000ffffffff676f6e65010000000000000065";
const GOLDEN_SEGMENT: &str = "73724b566c67303107000000000000000954ee4c";

#[test]
fn reads_what_it_wrote() {
    let (mut bytes, writes) = a_record();
    let length = bytes.len();
    bytes.extend(b"what follows");
    let (record, _, end) = decode(&bytes).unwrap();
    assert_eq!(end, length);
    assert_eq!(
        record,
        Record { sequence: Revision(7), durable: Revision(6), previous: Crc(0x0102_0304), writes }
    );
    assert_eq!(decode_segment(&encode_segment(Revision(9)).0).unwrap().0, Revision(9));
}

#[test]
fn refuses_every_flipped_bit_and_every_cut() {
    let (bytes, _) = a_record();
    for at in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        assert!(decode(&damaged).is_none(), "bit {at}");
    }
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_none(), "cut to {length}");
    }
}

proptest! {
    #[test]
    fn garbage_is_refused_calmly(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), sound: bool) {
        if sound && bytes.len() > HEADER {
            // A sound envelope around garbage: the payload's own lengths are lies.
            bytes[..4].copy_from_slice(&MAGIC);
            let length = u32::try_from(bytes.len() - HEADER).unwrap();
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            let crc = Crc::of(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.0.to_le_bytes());
        }
        drop(decode(&bytes));
        assert!(decode_segment(&bytes).is_none());
        drop(find(&bytes, 0));
    }

    #[test]
    fn finds_a_record_in_garbage(front in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (bytes, _) = a_record();
        let whole = [front.as_slice(), &bytes].concat();
        let (at, record) = find(&whole, 0).unwrap();
        prop_assert_eq!(at, front.len());
        prop_assert_eq!(record.sequence, Revision(7));
    }
}
