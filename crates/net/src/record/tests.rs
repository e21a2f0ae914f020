use super::*;
use crate::handshake::{self, Established};
use crate::security::{Dialler, Listener};
use crate::testing::{node, user};
use crate::{Authority, Security};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};

/// Both ends of a new session: the client's, then the server's.
async fn session(dialler: &Dialler, listener: &Listener) -> (Established, Established) {
    let (Dialler::Tls(client, _), Listener::Tls(server, _)) = (dialler, listener) else {
        panic!("not encrypted")
    };
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let name = ServerName::try_from("server.sr").unwrap();
    let connect = async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        handshake::connect(&mut socket, client.clone(), name).await.unwrap()
    };
    let accept = async {
        let mut socket = socket.accept().await.unwrap().0;
        handshake::accept(&mut socket, server.clone()).await.unwrap()
    };
    tokio::join!(connect, accept)
}

fn configs() -> (Dialler, Listener) {
    let authority = Authority::create("test").unwrap();
    let ends: [Security; 2] = [user(&authority), node(&authority, 7)];
    (Dialler::new(&ends[0]).unwrap(), Listener::new(&ends[1]).unwrap())
}

async fn ends() -> (Established, Established) {
    let (dialler, listener) = configs();
    session(&dialler, &listener).await
}

/// Seals some content and opens what came of it, record by record.
fn carry(sealer: &mut Sealer, opener: &mut Opener, content: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut out = vec![0; Sealer::ROOM];
    let length = sealer.seal(content, &mut out)?;
    open_all(opener, &mut out[..length])
}

fn open_all(opener: &mut Opener, mut records: &mut [u8]) -> Result<Vec<u8>, RecordError> {
    let mut data = Vec::new();
    while let Some(size) = record_size(records)? {
        let (record, rest) = records.split_at_mut(size);
        // Both ways to open give the same.
        if record.len() % 2 == 0 {
            let count = opener.open_in_place(record)?;
            data.extend_from_slice(&record[RECORD_HEADER..][..count]);
        } else {
            let mut out = vec![0xee; record.len() - RECORD_OVERHEAD + 1];
            let count = opener.open_into(record, &mut out)?;
            data.extend_from_slice(&out[..count]);
        }
        records = rest;
    }
    Ok(data)
}

#[tokio::test]
async fn records_arrive_as_they_were() {
    let (mut client, mut server) = ends().await;
    for length in [1, 2, 16, 17, 100, 4096, CONTENT_MAX - 1, CONTENT_MAX] {
        let content: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
        assert_eq!(carry(&mut client.sealer, &mut server.opener, &content), Ok(content));
    }
    // Zeros at the end are data here, though padding is zeros too.
    assert_eq!(carry(&mut client.sealer, &mut server.opener, &[0; 40]), Ok(vec![0; 40]));
}

#[tokio::test]
async fn keys_change_after_their_records_and_when_asked() {
    let (mut client, mut server) = ends().await;
    // The server's session tickets may not have been read yet.
    client.opener.key.sequence = server.sealer.key.sequence;
    client.sealer.records_per_key = 3;
    for round in 0..20u8 {
        assert_eq!(carry(&mut client.sealer, &mut server.opener, &[round; 9]), Ok(vec![round; 9]));
    }
    assert!(client.sealer.key.sequence <= 3);
    // The server asks: its next record is the request itself, and the client's next goes out under a new key.
    let mut out = vec![0; Sealer::ROOM];
    let length = server.sealer.record(TYPE_HANDSHAKE, &[24, 0, 0, 1, 1], &mut out).unwrap();
    server.sealer.key = Key::new(0, &server.sealer.session.next_secrets(true).unwrap()).unwrap();
    assert_eq!(open_all(&mut client.opener, &mut out[..length]), Ok(Vec::new()));
    assert_eq!(carry(&mut client.sealer, &mut server.opener, b"new key"), Ok(b"new key".to_vec()));
    assert_eq!(client.sealer.key.sequence, 1);
    assert_eq!(carry(&mut server.sealer, &mut client.opener, b"new key"), Ok(b"new key".to_vec()));
}

#[tokio::test]
async fn a_changed_a_repeated_and_a_cut_record_are_refused() {
    let (mut client, mut server) = ends().await;
    let mut out = vec![0; Sealer::ROOM];
    let length = client.sealer.seal(b"some data", &mut out).unwrap();
    for at in [RECORD_HEADER, length / 2, length - 1] {
        let mut changed = out[..length].to_vec();
        changed[at] ^= 1;
        let sequence = server.opener.key.sequence;
        assert!(matches!(open_all(&mut server.opener, &mut changed), Err(RecordError::Malformed(_))));
        server.opener.key.sequence = sequence;
    }
    let mut again = out[..length].to_vec();
    assert_eq!(open_all(&mut server.opener, &mut out[..length]), Ok(b"some data".to_vec()));
    assert!(matches!(open_all(&mut server.opener, &mut again), Err(RecordError::Malformed(_))));
}

#[tokio::test]
async fn the_end_and_alerts_are_told_apart() {
    let (mut client, mut server) = ends().await;
    let mut out = vec![0; Sealer::ROOM];
    let length = client.sealer.record(TYPE_ALERT, &[2, 48], &mut out).unwrap();
    assert_eq!(open_all(&mut server.opener, &mut out[..length]), Err(RecordError::Alert(48)));
    let length = client.sealer.seal_end(&mut out).unwrap();
    assert_eq!(open_all(&mut server.opener, &mut out[..length]), Err(RecordError::End));
}

#[tokio::test]
async fn what_does_not_belong_into_a_session_is_refused() {
    for (kind, content) in [
        (TYPE_HANDSHAKE, &[1, 0, 0, 0][..]),     // a second hello
        (TYPE_HANDSHAKE, &[24, 0, 0, 1, 2]),     // a key update that makes no sense
        (TYPE_HANDSHAKE, &[24, 0, 0, 1, 0, 24]), // something after a key update
        (TYPE_HANDSHAKE, &[24, 0, 0, 9, 0]),     // cut
        (TYPE_HANDSHAKE, &[4, 0, 0, 1, 0]),      // a ticket from a client
        (TYPE_ALERT, &[1]),                      // half an alert
        (20, &[1]),                              // from the days of TLS 1.2
        (0, &[]),                                // nothing but zeros
    ] {
        let (mut client, mut server) = ends().await;
        let mut out = vec![0; Sealer::ROOM];
        let length = client.sealer.record(kind, content, &mut out).unwrap();
        let result = open_all(&mut server.opener, &mut out[..length]);
        assert!(matches!(result, Err(RecordError::Malformed(_))), "{kind} {content:?}");
    }
}

#[tokio::test]
async fn endless_records_without_data_are_refused() {
    let (mut client, mut server) = ends().await;
    let mut out = vec![0; Sealer::ROOM];
    for _ in 0..CONTROLS_MAX {
        let length = client.sealer.seal(b"", &mut out).unwrap();
        assert_eq!(open_all(&mut server.opener, &mut out[..length]), Ok(Vec::new()));
    }
    let length = client.sealer.seal(b"", &mut out).unwrap();
    assert!(matches!(open_all(&mut server.opener, &mut out[..length]), Err(RecordError::Malformed(_))));
}

#[test]
fn the_size_of_a_record_is_checked_before_it_is_awaited() {
    assert_eq!(record_size(&[23, 3, 3, 0]), Ok(None));
    assert_eq!(record_size(&[23, 3, 3, 0, 17]), Ok(Some(22)));
    assert_eq!(record_size(&[23, 3, 3, 0x41, 0]), Ok(Some(RECORD_HEADER + FRAGMENT_MAX)));
    for wrong in [[23, 3, 3, 0x41, 1], [23, 3, 3, 0, 16], [22, 3, 3, 0, 17], [23, 2, 3, 0, 17], *b"GET /"] {
        assert!(record_size(&wrong).is_err(), "{wrong:?}");
    }
}
