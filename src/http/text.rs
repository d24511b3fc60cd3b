//! Text from outside: its length is checked when it is parsed, and it holds no control characters.
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, ops::Deref};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Type, schema::Schema},
};

/// In the schema of such texts.
const NO_CONTROL_CHARACTERS: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// Text of `MIN` to `MAX` characters (not bytes). Postgres cannot store NUL, so no control character passes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Text<const MIN: usize, const MAX: usize>(String);

impl<const MIN: usize, const MAX: usize> TryFrom<String> for Text<MIN, MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // At most four bytes a character: a long text is refused without being walked.
        let length = if text.len() > MAX * 4 { MAX + 1 } else { text.chars().count() };
        if !(MIN..=MAX).contains(&length) {
            return Err(format!("must have {MIN} to {MAX} characters"));
        }
        if text.chars().any(char::is_control) {
            return Err("must not hold control characters".to_owned());
        }
        Ok(Self(text))
    }
}

impl<const MIN: usize, const MAX: usize> Text<MIN, MAX> {
    pub fn into_inner(self) -> String {
        self.0
    }
}

impl<const MIN: usize, const MAX: usize> Deref for Text<MIN, MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MIN: usize, const MAX: usize> PartialSchema for Text<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(NO_CONTROL_CHARACTERS));
        text.min_length((MIN > 0).then_some(MIN)).max_length(Some(MAX)).into()
    }
}

impl<const MIN: usize, const MAX: usize> ToSchema for Text<MIN, MAX> {
    /// One for each range: the document has one schema for each name.
    fn name() -> Cow<'static, str> {
        format!("Text{MIN}To{MAX}").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_counts_characters_and_control_characters_are_refused() {
        let parse = |text: &str| Text::<1, 3>::try_from(text.to_owned());
        assert!(parse("äöü").is_ok());
        for bad in ["", "abcd", "a\0", "\n", &"x".repeat(1000)] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn texts_of_different_lengths_have_schemas_of_their_own() {
        assert_ne!(Text::<0, 200>::name(), Text::<1, 200>::name());
        assert_ne!(Text::<1, 50>::name(), Text::<1, 200>::name());
    }
}
