//! As much of HTTP/1.1 as the health endpoint needs: the head of a request in, the bytes of an answer out (RFC 9110, 9112).
//!
//! Pure; called by `health.rs`, which bounds what comes in here.

/// Header lines of a request.
const MAX_HEADERS: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Get,
    Head,
    Options,
    Other,
}

/// The head of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub method: Method,
    /// Without the query, and without scheme and host where it came with them.
    pub path: String,
}

/// Reads the head of a request; `None` where it is not all there yet.
///
/// # Errors
/// It is not one; why, for its sender.
pub fn parse(head: &[u8]) -> Option<Result<Request, String>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Err(cause) => return Some(Err(format!("bad request: {cause}"))),
        Ok(httparse::Status::Complete(_)) => (),
    }
    let names_host = request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("host"));
    if request.version == Some(1) && !names_host {
        return Some(Err("bad request: HTTP/1.1 requires a Host header".to_owned()));
    }
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("OPTIONS") => Method::Options,
        _ => Method::Other,
    };
    let target = request.path.unwrap_or_default();
    let path = match target.split_once("://") {
        Some(("http" | "https", rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    Some(Ok(Request { method, path: path.to_owned() }))
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

impl Response {
    /// A line of text for people.
    pub fn text(status: u16, line: impl Into<String>) -> Response {
        Response { status, content_type: "text/plain; charset=utf-8", body: line.into() + "\n" }
    }

    /// As it goes out, with the close of the connection announced; `head`: without its body.
    pub fn bytes(&self, head: bool) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Service Unavailable",
        };
        let Response { status, content_type, body } = self;
        let allow = if *status == 405 { "Allow: GET, HEAD, OPTIONS\r\n" } else { "" };
        let length = body.len();
        let mut out = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{allow}\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        );
        if !head {
            out += body;
        }
        out.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(head: &str, expected: Option<Result<(Method, &str), &str>>) {
        match (parse(head.as_bytes()), expected) {
            (None, None) => (),
            (Some(Ok(request)), Some(Ok((method, path)))) => {
                assert_eq!((request.method, request.path.as_str()), (method, path), "{head:?}");
            }
            (Some(Err(why)), Some(Err(part))) => assert!(why.contains(part), "{head:?}: {why}"),
            (got, expected) => panic!("{head:?}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn heads() {
        let yes = |method, path| Some(Ok((method, path)));
        check("GET /primary HTTP/1.0\r\n\r\n", yes(Method::Get, "/primary"));
        check("GET /primary HTTP/1.1\r\nhOST: x\r\n\r\n", yes(Method::Get, "/primary"));
        check("HEAD /standby?x=1#y HTTP/1.0\n\n", yes(Method::Head, "/standby"));
        check("OPTIONS / HTTP/1.0\r\n\r\n", yes(Method::Options, "/"));
        check("OPTIONS * HTTP/1.0\r\n\r\n", yes(Method::Options, "*"));
        check("GET http://db:8008/healthy HTTP/1.1\r\nHost: db:8008\r\n\r\n", yes(Method::Get, "/healthy"));
        check("GET http://db HTTP/1.1\r\nHost: db\r\n\r\n", yes(Method::Get, "/"));
        check("get /primary HTTP/1.0\r\n\r\n", yes(Method::Other, "/primary"));
        check("POST /primary HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", yes(Method::Other, "/primary"));
        check("GET /primary HTTP/1.1\r\nHost: x\r\n", None);
        check("GET /prim", None);
        check("GET /primary HTTP/1.1\r\n\r\n", Some(Err("Host")));
        check("GET /primary\r\n\r\n", Some(Err("bad request")));
        check("PRI * HTTP/2.0\r\n\r\n", Some(Err("bad request")));
        check("\x16\x03\x01\x02", Some(Err("bad request")));
        let many = format!("GET / HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        check(&many, Some(Err("too many headers")));
    }

    #[test]
    fn answers() {
        let bytes = |status, head| String::from_utf8(Response::text(status, "so").bytes(head)).unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
                    Cache-Control: no-store\r\nConnection: close\r\n\r\n";
        assert_eq!(bytes(200, false), format!("{head}so\n"));
        assert_eq!(bytes(200, true), head);
        assert!(bytes(405, true).contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"));
        assert!(bytes(503, true).starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    }

    proptest! {
        #[test]
        fn junk_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&junk);
        }

        #[test]
        fn near_misses_never_panic(text in "(GET|HEAD|X)? ?(/|http://|\\*)[a-z?/#:]{0,9} HTTP/1\\.[01]\r?\n([a-z]{0,4}:? [a-z]{0,4}\r?\n){0,3}\r?\n?") {
            let _ = parse(text.as_bytes());
        }
    }
}
