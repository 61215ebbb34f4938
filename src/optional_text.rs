//! An optional text in JSON: an empty text stands for none, as versions before this module send and expect it. For
//! `#[serde(with = "crate::optional_text")]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text, or an empty one.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    text.as_deref().unwrap_or_default().serialize(to)
}

/// The text; `None` if it is empty or null.
///
/// # Errors
/// It is no text.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Holder(#[serde(with = "super")] Option<String>);

    #[test]
    fn an_empty_text_is_none() {
        for (held, text) in [(None, "\"\""), (Some("so".to_owned()), "\"so\"")] {
            assert_eq!(serde_json::to_string(&Holder(held.clone())).unwrap(), text);
            assert_eq!(serde_json::from_str::<Holder>(text).unwrap(), Holder(held));
        }
        assert_eq!(serde_json::from_str::<Holder>("null").unwrap(), Holder(None));
        assert!(serde_json::from_str::<Holder>("7").is_err());
    }
}
