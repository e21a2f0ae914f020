use super::*;
use crate::frame::MAGIC;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn bytes_that_came_with_the_handshake_come_first() {
    let (mut client, server) = sockets().await;
    let (read, _write) = server.into_split();
    let mut inbound = Inbound::new(read, None, b"one ", b"two ", Arc::default());
    client.write_all(b"three").await.unwrap();
    let mut out = [0; 13];
    inbound.read_exact(&mut out, 13).await.unwrap();
    assert_eq!(&out, b"one two three");
    drop(client);
    assert_eq!(inbound.read(&mut out).await.unwrap(), 0);
    assert!(is_end(&inbound.read_exact(&mut out, 1).await.unwrap_err()));
}

#[tokio::test]
async fn what_is_skipped_does_not_show() {
    let (mut client, server) = sockets().await;
    let (read, _write) = server.into_split();
    let mut inbound = Inbound::new(read, None, &[], &[], Arc::default());
    let sent = tokio::spawn(async move {
        client.write_all(&vec![1; 3 * BUFFER]).await.unwrap();
        client.write_all(&MAGIC).await.unwrap();
        client
    });
    inbound.skip(3 * BUFFER).await.unwrap();
    let mut out = [0; 4];
    inbound.read_exact(&mut out, 4).await.unwrap();
    assert_eq!(out, MAGIC);
    drop(sent.await.unwrap());
}

#[tokio::test]
async fn plain_bytes_leave_in_order_whatever_their_length() {
    let (client, mut server) = sockets().await;
    let (_read, write) = client.into_split();
    let mut outbound = Outbound::new(write, None, Arc::default());
    let mut expected = Vec::new();
    let reader = tokio::spawn(async move {
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        received
    });
    for (round, length) in
        [1, 10, BUFFER / 2 - 1, BUFFER / 2, 3, BUFFER, BUFFER + 1, 0, 5 * BUFFER, 7].iter().enumerate()
    {
        let piece = vec![u8::try_from(round).unwrap(); *length];
        expected.extend_from_slice(&piece);
        outbound.put_payload(&piece).await.unwrap();
    }
    outbound.finish().await.unwrap();
    assert!(reader.await.unwrap() == expected);
}
