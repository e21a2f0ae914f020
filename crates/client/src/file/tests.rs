use super::*;

#[test]
fn pieces_join() {
    let parts = ["", "ab", "", "c"].map(|text| Bytes::from_static(text.as_bytes()));
    let pieces = Pieces(parts.to_vec());
    assert_eq!((pieces.len(), pieces.is_empty()), (3, false));
    assert_eq!(pieces.into_bytes(), "abc");
    assert!(Pieces(vec![Bytes::new()]).is_empty());
    let one = Bytes::from_static(b"x");
    // A single piece is given out as it is.
    assert_eq!(Pieces(vec![one.clone()]).into_bytes().as_ptr(), one.as_ptr());
}
