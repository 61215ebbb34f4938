//! Results that are kept in a file, so that a change of them is seen in review.

/// The file of this name beside the tests says the same; `UPDATE_GOLDEN=1` writes it anew.
pub fn check(file: &str, actual: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).expect("the golden file is written");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is there");
    for (number, (was, is)) in golden.lines().zip(actual.lines()).enumerate() {
        assert_eq!(was, is, "{file}:{}", number + 1);
    }
    assert_eq!(golden.lines().count(), actual.lines().count(), "{file}: number of lines");
}
