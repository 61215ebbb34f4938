//! As much of HTTP/1.1 as the health endpoint and the web console need: the head of a request in, the bytes of an answer out
//! (RFC 9110, 9112).
//!
//! Pure; called by `health.rs` and `web`, which bound what comes in here.

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

/// The head of a request as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// As written: `GET`.
    pub method: String,
    /// Without the query, and without scheme and host where it came with them.
    pub path: String,
    /// After the first `?`; empty for none.
    pub query: String,
    /// Names in lower case. Bytes that are not UTF-8 come as U+FFFD.
    pub headers: Vec<(String, String)>,
    /// How long it is, in bytes.
    pub length: usize,
}

impl Head {
    /// The value of a header; `None` where it is missing.
    ///
    /// # Errors
    /// It is there more than once.
    pub fn header(&self, name: &str) -> Result<Option<&str>, String> {
        let mut values = self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(format!("bad request: more than one header {name}")),
        }
    }
}

/// Reads the head of a request; `None` where it is not all there yet.
///
/// # Errors
/// It is not one; why, for its sender.
pub fn head(bytes: &[u8]) -> Option<Result<Head, String>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return None,
        Err(cause) => return Some(Err(format!("bad request: {cause}"))),
        Ok(httparse::Status::Complete(length)) => length,
    };
    let names_host = request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("host"));
    if request.version == Some(1) && !names_host {
        return Some(Err("bad request: HTTP/1.1 requires a Host header".to_owned()));
    }
    let target = request.path.unwrap_or_default();
    let target = match target.split_once("://") {
        Some(("http" | "https", rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |header: &httparse::Header<'_>| {
        (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).trim().to_owned())
    };
    Some(Ok(Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: request.headers.iter().map(header).collect(),
        length,
    }))
}

/// As [`head`], for a server that needs only the method and the path.
///
/// # Errors
/// As [`head`].
pub fn parse(bytes: &[u8]) -> Option<Result<Request, String>> {
    let request = |head: Head| Request {
        method: match head.method.as_str() {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        },
        path: head.path,
    };
    head(bytes).map(|head| head.map(request))
}

/// The reason phrase of a status.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        504 => "Gateway Timeout",
        _ => "Service Unavailable",
    }
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
        let reason = reason(self.status);
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
            let _ = head(&junk);
        }

        #[test]
        fn near_misses_never_panic(text in "(GET|HEAD|X)? ?(/|http://|\\*)[a-z?/#:]{0,9} HTTP/1\\.[01]\r?\n([a-z]{0,4}:? [a-z]{0,4}\r?\n){0,3}\r?\n?") {
            let _ = parse(text.as_bytes());
        }
    }
}
