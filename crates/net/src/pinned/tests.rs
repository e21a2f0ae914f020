use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn meet(fingerprint: impl FnOnce(Fingerprint) -> Fingerprint) -> Result<Vec<u8>, PinnedError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = PinnedServer::create().unwrap();
    let wanted = fingerprint(server.fingerprint());
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = server.accept(stream).await?;
        stream.write_all(b"here").await?;
        stream.shutdown().await
    });
    let met = connect(TcpStream::connect(address).await.unwrap(), wanted).await;
    let mut met = match met {
        Ok(met) => met,
        Err(error) => {
            assert!(serving.await.unwrap().is_err(), "the server goes on with a client that left");
            return Err(error);
        }
    };
    let mut said = Vec::new();
    met.read_to_end(&mut said).await.unwrap();
    Ok(said)
}

#[tokio::test]
async fn who_has_the_fingerprint_meets_the_server() {
    assert_eq!(meet(|fingerprint| fingerprint).await.unwrap(), b"here");
}

#[tokio::test]
async fn a_server_with_another_certificate_is_told_nothing() {
    let other = |mut fingerprint: Fingerprint| {
        fingerprint.0[31] ^= 1;
        fingerprint
    };
    assert!(matches!(meet(other).await, Err(PinnedError::Other)));
}

#[tokio::test]
async fn who_does_not_speak_tls_is_no_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-of-another-kind\r\n").await.unwrap();
    });
    let met = connect(TcpStream::connect(address).await.unwrap(), Fingerprint([0; 32])).await;
    assert!(matches!(met, Err(PinnedError::Failed(_))));
    serving.await.unwrap();
}
