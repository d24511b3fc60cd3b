//! Email addresses and passwords as they come in.
use crate::http::{Problem, text::Text};
use serde::Deserialize;
use std::fmt;
use utoipa::ToSchema;

/// An address with one `@`, as given; compared without case.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(try_from = "Text<3, 254>")]
#[schema(value_type = String, format = Email, max_length = 254)]
pub struct Email(String);

impl TryFrom<Text<3, 254>> for Email {
    type Error = &'static str;

    fn try_from(text: Text<3, 254>) -> Result<Self, Self::Error> {
        // Whether an address exists only a mail can tell; this refuses what cannot be one.
        let sound = |(local, domain): (&str, &str)| {
            !local.is_empty()
                && !domain.is_empty()
                && !domain.contains('@')
                && !text.contains(char::is_whitespace)
        };
        if text.split_once('@').is_some_and(sound) {
            Ok(Self(text.into_inner()))
        } else {
            Err("must be an email address")
        }
    }
}

impl Email {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A password as typed. Its `Debug` form is a mask.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = Password, min_length = 8, max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
pub struct Password(Text<1, 128>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl Password {
    pub fn into_inner(self) -> String {
        self.0.into_inner()
    }

    /// A password somebody chooses now: long enough, and not one that is tried first.
    pub fn chosen(self, field: &str) -> Result<String, Problem> {
        let password = self.into_inner();
        if password.chars().count() < 8 {
            return Err(Problem::invalid(field, "must have 8 to 128 characters"));
        }
        let lower = password.to_lowercase();
        if include_str!("common_passwords.txt").lines().any(|common| common == lower) {
            return Err(Problem::invalid(field, "is among the most common passwords"));
        }
        Ok(password)
    }
}

/// An email address and a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    pub email: Email,
    pub password: Password,
}
