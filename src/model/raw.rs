//! Raw JSON values, borrowed from the received bytes: the fields of an object, texts that may be null.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A string that may be absent or null, which both read as empty.
///
/// (`Option<Cow<str>>` would always copy: serde borrows only a bare `Cow`.)
#[derive(Default)]
pub(super) struct NullableText<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for NullableText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = NullableText<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string or null")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<NullableText<'de>, E> {
                Ok(NullableText(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<NullableText<'de>, E> {
                Ok(NullableText(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E: Error>(self) -> Result<NullableText<'de>, E> {
                Ok(NullableText::default())
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// The fields of an object, with their values as they were written.
pub(super) type RawFields<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// Returns the fields of an object; of any other value none.
pub(super) fn fields(raw: &RawValue) -> RawFields<'_> {
    serde_json::from_str::<RawObject<'_>>(raw.get()).map(|object| object.0).unwrap_or_default()
}

pub(super) fn list(raw: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

/// Returns whether a value is empty.
pub(super) fn is_empty(raw: &RawValue) -> bool {
    matches!(raw.get(), "null" | "\"\"" | "[]" | "{}" | "false")
}

pub(super) fn has(fields: &RawFields<'_>, name: &str) -> bool {
    get(fields, name).is_some()
}

pub(super) fn get<'a>(fields: &RawFields<'a>, name: &str) -> Option<&'a RawValue> {
    fields.iter().rfind(|(known, _)| known == name).map(|(_, value)| *value).filter(|value| value.get() != "null")
}

/// Removes a field and returns its value; of a repeated name the last value counts. `null` is absent.
pub(super) fn take<'a>(fields: &mut RawFields<'a>, name: &str) -> Option<&'a RawValue> {
    let value = get(fields, name);
    fields.retain(|(known, _)| known != name);
    value
}

/// An object's fields in their order.
pub(super) struct RawObject<'a>(pub RawFields<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = RawObject<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<NullableText<'de>>()? {
                    fields.push((name.0, map.next_value()?));
                }
                Ok(RawObject(fields))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}
