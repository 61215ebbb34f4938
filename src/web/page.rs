//! The page, one document with its style and script, and the content security policy that allows exactly these.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The document: one script and one style, in the order in which their parts use each other.
pub const PAGE: &str = concat!(
    include_str!("page/head.html"),
    "<style>",
    include_str!("page/style.css"),
    "</style>\n",
    include_str!("page/body.html"),
    "<script>",
    include_str!("page/base.js"),
    include_str!("page/live.js"),
    include_str!("page/dialog.js"),
    include_str!("page/picture.js"),
    include_str!("page/panels.js"),
    include_str!("page/actions.js"),
    include_str!("page/main.js"),
    "</script>\n</body>\n</html>\n",
);

/// The headers of every answer, which name the hashes of the page's script and style.
pub fn security_headers() -> String {
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; img-src 'self' data:; connect-src 'self'; form-action 'none'; \
         base-uri 'none'; frame-ancestors 'none'",
        sources(PAGE, "script"),
        sources(PAGE, "style")
    );
    format!(
        "Content-Security-Policy: {policy}\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\
         Referrer-Policy: no-referrer\r\nCross-Origin-Opener-Policy: same-origin\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\n"
    )
}

/// The hash of each element of this name; `'none'` for none.
fn sources(page: &str, element: &str) -> String {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once(&format!("<{element}")) {
        let Some((_, text)) = after.split_once('>') else { break };
        let Some((content, after)) = text.split_once(&format!("</{element}>")) else { break };
        found.push(format!("'sha256-{}'", STANDARD.encode(Sha256::digest(content))));
        rest = after;
    }
    if found.is_empty() { "'none'".to_owned() } else { found.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_and_style_has_its_hash() {
        assert_eq!(sources("<p>", "script"), "'none'");
        // As `printf x | openssl dgst -sha256 -binary | base64` prints it.
        let hash = "'sha256-LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE='";
        assert_eq!(sources("<script>x</script><script type=module>x</script>", "script").matches("sha256-").count(), 2);
        assert_eq!(sources("<style>x</style>", "style"), hash);
        assert!(PAGE.len() <= 100 << 10, "the page has {} bytes", PAGE.len());
    }
}
