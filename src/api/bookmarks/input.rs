//! What comes in, parsed once and valid from then on.
use crate::http::text::Text;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// An `http` or `https` address of at most 2,048 characters.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Text<1, 2048>")]
#[schema(value_type = String, format = "uri", max_length = 2048)]
pub struct WebAddress(pub String);

impl TryFrom<Text<1, 2048>> for WebAddress {
    type Error = &'static str;

    fn try_from(text: Text<1, 2048>) -> Result<Self, Self::Error> {
        let sound = url::Url::parse(&text)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if sound { Ok(Self(text.into_inner())) } else { Err("must be an http or https URL") }
    }
}

/// At most 20 tags of at most 50 characters.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Vec<Text<1, 50>>")]
#[schema(value_type = Vec<Text<1, 50>>, max_items = 20)]
pub struct Tags(pub Vec<String>);

impl TryFrom<Vec<Text<1, 50>>> for Tags {
    type Error = &'static str;

    fn try_from(tags: Vec<Text<1, 50>>) -> Result<Self, Self::Error> {
        if tags.len() > 20 {
            Err("must have at most 20 tags")
        } else {
            Ok(Self(tags.into_iter().map(Text::into_inner).collect()))
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"url": "https://example.com/", "title": "An example", "tags": ["to read"]}))]
pub struct NewBookmark {
    pub url: WebAddress,
    #[serde(default)]
    pub title: Text<0, 200>,
    #[serde(default)]
    pub tags: Tags,
}

/// Which bookmarks, and how many.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// 1 to 100.
    #[serde(default)]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100, default = 20)]
    limit: Limit,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<Uuid>)]
    pub cursor: Option<Uuid>,
    /// Only bookmarks with this tag.
    #[param(value_type = Option<Text<1, 50>>)]
    pub tag: Option<Text<1, 50>>,
}

impl Page {
    pub fn limit(&self) -> usize {
        self.limit.0.into()
    }
}

#[derive(Deserialize)]
#[serde(try_from = "u16")]
struct Limit(u16);

impl Default for Limit {
    fn default() -> Self {
        Self(20)
    }
}

impl TryFrom<u16> for Limit {
    type Error = &'static str;

    fn try_from(limit: u16) -> Result<Self, Self::Error> {
        if (1..=100).contains(&limit) { Ok(Self(limit)) } else { Err("must be 1 to 100") }
    }
}
