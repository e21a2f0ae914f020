use super::*;

fn check(head: &str, expected: Result<&str, &str>) {
    assert_eq!(path(head.as_bytes()), expected);
}

#[test]
fn only_get_of_a_path_is_taken() {
    check("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", Ok("/metrics"));
    check("GET /a?b=c HTTP/1.0\r\n\r\n", Ok("/a?b=c"));
    check("POST /metrics HTTP/1.1\r\n\r\n", Err("405 Method Not Allowed"));
    check("GET metrics HTTP/1.1\r\n\r\n", Err("405 Method Not Allowed"));
    check("GET /metrics HTTP/2\r\n\r\n", Err("400 Bad Request"));
    check("GET  /metrics HTTP/1.1\r\n\r\n", Err("400 Bad Request"));
    check("GET /metrics\r\n\r\n", Err("400 Bad Request"));
    check("\r\n\r\n", Err("400 Bad Request"));
    check("", Err("400 Bad Request"));
    assert_eq!(path(b"GET /\xff HTTP/1.1\r\n\r\n"), Err("400 Bad Request"));
}
