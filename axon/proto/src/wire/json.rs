//! JSON that has been read over once and is passed on as it came.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// One JSON value, as text that is known to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json<'a>(Cow<'a, str>);

impl<'a> Json<'a> {
    /// `{}`.
    pub const EMPTY: Json<'static> = Json(Cow::Borrowed("{}"));

    /// What was found to be one value.
    pub(super) const fn known(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Its text.
    pub fn get(&self) -> &str {
        &self.0
    }

    /// The same, lent.
    pub fn lent(&self) -> Json<'_> {
        Json(Cow::Borrowed(&self.0))
    }

    /// The same, on its own.
    pub fn into_owned(self) -> Json<'static> {
        Json(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a> From<&'a RawValue> for Json<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Self(Cow::Borrowed(raw.get()))
    }
}

impl<'a> From<&'a Box<RawValue>> for Json<'a> {
    fn from(raw: &'a Box<RawValue>) -> Self {
        Self::from(&**raw)
    }
}

impl From<Box<RawValue>> for Json<'static> {
    fn from(raw: Box<RawValue>) -> Self {
        Self(Cow::Owned(Box::<str>::from(raw).into()))
    }
}
