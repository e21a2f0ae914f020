use super::*;

#[test]
fn is_crc_32c() {
    assert_eq!(Crc::of(b"123456789"), Crc(0xE306_9283)); // The check value of the CRC catalogue.
}

#[test]
fn finds_the_bad_block() {
    let mut bytes = vec![7; BLOCK_SIZE * 2 + 5];
    let checksums = Crc::of_blocks(&bytes);
    assert_eq!(checksums.len(), 3);
    assert_eq!(first_mismatch(&bytes, &checksums), None);
    bytes[BLOCK_SIZE] ^= 1;
    assert_eq!(first_mismatch(&bytes, &checksums), Some(1));
    assert_eq!(first_mismatch(&bytes[..1], &checksums), Some(1));
}

#[test]
fn checksums_of_parts_make_that_of_the_whole() {
    let bytes: Vec<u8> = (0..50_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    for cut in [0, 1, 16_384, 49_999, 50_000] {
        let (first, rest) = bytes.split_at(cut);
        assert_eq!(Crc::of(first).followed_by(Crc::of(rest), rest.len() as u64), Crc::of(&bytes));
    }
}
