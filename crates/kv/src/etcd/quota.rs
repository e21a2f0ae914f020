//! The quota of a member: the size of its file from which on it takes no writes. Its API tells of that from version 3.6 on only; its metrics,
//! which it shows at the port that clients use, do in all versions.

use super::EtcdTls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A member that has not shown it after this is not going to.
const WAIT: Duration = Duration::from_millis(1500);
/// The page has some hundred kilobytes.
const PAGE_MAX: u64 = 8 << 20;
/// What it is called there.
const NAME: &str = "etcd_server_quota_backend_bytes ";

/// Reads the pages.
pub(super) struct Quotas(Option<TlsConnector>);

impl Quotas {
    pub(super) fn new(tls: Option<&EtcdTls>) -> Result<Quotas, String> {
        Ok(Quotas(tls.map(connector).transpose()?))
    }

    /// The quota of the member at an address. `None`: it has none, or does not say.
    ///
    /// # Errors
    /// Why the page cannot be read.
    pub(super) async fn of(&self, address: &str) -> Result<Option<u64>, String> {
        let page = timeout(WAIT, self.page(address)).await;
        let page = page.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        Ok(quota_in(&page))
    }

    async fn page(&self, address: &str) -> io::Result<String> {
        let stream = TcpStream::connect(address).await?;
        let Some(tls) = &self.0 else { return read(stream, address).await };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        read(tls.connect(name, stream).await?, address).await
    }
}

async fn read(mut stream: impl AsyncRead + AsyncWrite + Unpin, address: &str) -> io::Result<String> {
    // In this version the answer ends with the connection.
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut page = Vec::new();
    match stream.take(PAGE_MAX).read_to_end(&mut page).await {
        // It need not say good-bye.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        read => drop(read?),
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn quota_in(page: &str) -> Option<u64> {
    let line = page.lines().find_map(|line| line.strip_prefix(NAME))?;
    let number: f64 = line.trim().parse().ok()?;
    // Without a fraction it is a whole number, or below zero and none.
    format!("{number:.0}").parse().ok().filter(|quota| *quota > 0)
}

fn connector(tls: &EtcdTls) -> Result<TlsConnector, String> {
    let failed = |error: &dyn std::error::Error| format!("etcd: ca, cert or key: {error}");
    let certificates = |pem: &[u8]| {
        CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(&tls.authority)? {
        roots.add(authority).map_err(|error| failed(&error))?;
    }
    let key = PrivateKeyDer::from_pem_slice(&tls.key).map_err(|error| failed(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&tls.certificate)?, key)
        .map_err(|error| failed(&error))?;
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::quota_in;

    #[test]
    fn a_quota_is_read_as_etcd_writes_it() {
        let page = |text: &str| {
            format!("HTTP/1.0 200 OK\r\n\r\n# HELP x\netcd_server_quota_backend_bytes {text}\nother 5\n")
        };
        assert_eq!(quota_in(&page("8.589934592e+09")), Some(8 << 30));
        assert_eq!(quota_in(&page("1.6777216e+07")), Some(16 << 20));
        // Without one, and where it is not shown.
        assert_eq!(quota_in(&page("0")), None);
        assert_eq!(quota_in(&page("-1")), None);
        assert_eq!(quota_in("HTTP/1.0 404 Not Found\r\n\r\n"), None);
    }
}
