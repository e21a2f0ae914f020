//! As much HTTP/1.1 as a browser and a metrics collector need to read a page: one `GET` per connection.

use crate::server::Pages;
use crate::stream::{Inbound, Outbound, StreamError};

/// Longest request line with its headers.
const HEAD_MAX: usize = 8 * 1024;

/// Reads a request, of which `start` was read already, and answers it. The caller bounds the time.
pub(crate) async fn answer(
    inbound: &mut Inbound,
    outbound: &mut Outbound,
    start: &[u8],
    pages: Option<&Pages>,
) {
    let Ok(head) = read_head(inbound, start).await else { return };
    let response = match head.as_deref().map(path) {
        None => response("431 Request Header Fields Too Large", "text/plain", "the request is too long\n"),
        Some(Err(status)) => response(status, "text/plain", "only GET over HTTP/1.1 is answered here\n"),
        Some(Ok(path)) => match pages.and_then(|pages| pages(path)) {
            Some((kind, text)) => response("200 OK", kind, &text),
            None => response("404 Not Found", "text/plain", "there is no such page\n"),
        },
    };
    if outbound.put_payload(response.as_bytes()).await.is_ok() && outbound.finish().await.is_ok() {
        // Until the peer has read it all and closes: an earlier close could take the end away from it.
        let mut rest = [0; 1024];
        while inbound.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    }
}

/// Reads up to the empty line. `None` when it is too far away.
async fn read_head(inbound: &mut Inbound, start: &[u8]) -> Result<Option<Vec<u8>>, StreamError> {
    let mut head = start.to_vec();
    let mut piece = [0; 1024];
    loop {
        let count = inbound.read(&mut piece).await?;
        head.extend_from_slice(&piece[..count]);
        if head.windows(4).any(|window| window == b"\r\n\r\n") {
            return Ok(Some(head));
        }
        if count == 0 || head.len() > HEAD_MAX {
            return Ok(None);
        }
    }
}

/// The path that is asked for, or the status that says what is wrong.
fn path(head: &[u8]) -> Result<&str, &'static str> {
    const BAD: &str = "400 Bad Request";
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| BAD)?;
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("GET"), Some(path), Some("HTTP/1.1" | "HTTP/1.0"), None) if path.starts_with('/') => Ok(path),
        (Some(_), Some(_), Some("HTTP/1.1" | "HTTP/1.0"), None) => Err("405 Method Not Allowed"),
        _ => Err(BAD),
    }
}

fn response(status: &str, kind: &str, text: &str) -> String {
    let length = text.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
    )
}

#[cfg(test)]
mod tests;
