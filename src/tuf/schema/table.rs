//! Objects of metadata with very many members: `meta` of snapshot (§4.4) and `targets` (§4.5), left as the text that was
//! signed and read where they are asked.
//!
//! A repository of the form of PEP 458 lists 16,384 roles in its snapshot, of which one look-up needs one. All members
//! are checked when the document is read; none is built before somebody asks for it.

use std::{borrow::Cow, cmp::Ordering, fmt, marker::PhantomData, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap as _};
use serde_json::value::RawValue;

use crate::tuf::canonical::{Place, unescaped};

/// A member of a table: what can be checked without building it, and then built from the same text.
pub trait Entry: Serialize + de::DeserializeOwned {
    /// Whether `name` may stand before `text`, and `text` is one of these.
    #[doc(hidden)]
    fn check(name: &str, text: &[u8]) -> Result<(), String>;
}

/// An object from names to `V`, as the text that was signed.
///
/// Cheap to clone; it holds on to the text of the whole document.
pub struct Table<V> {
    text: Bytes,
    /// In the order of the names.
    members: Arc<[Span]>,
    built: PhantomData<fn() -> V>,
}

/// Where a member stands in the text: its name with the quotes, and its value.
#[derive(Clone, Copy, Debug)]
struct Span {
    name: u32,
    name_end: u32,
    value: u32,
    value_end: u32,
}

impl Span {
    fn of(place: &Place) -> Option<Self> {
        let at = |offset| u32::try_from(offset).ok();
        Some(Self {
            name: at(place.name.start)?,
            name_end: at(place.name.end)?,
            value: at(place.value.start)?,
            value_end: at(place.value.end)?,
        })
    }
}

/// An object that was found in a document, none of whose members was looked at yet.
#[derive(Debug)]
pub struct TableText {
    text: Bytes,
    members: Arc<[Span]>,
}

impl TableText {
    /// The object of the document `text` whose members stand at these places, in the order of their names.
    pub(in crate::tuf) fn new(text: Bytes, places: &[Place]) -> Result<Self, String> {
        let spans = places.iter().map(Span::of).collect::<Option<Arc<[Span]>>>();
        Ok(Self { text, members: spans.ok_or("the document is too large to be indexed")? })
    }
}

impl<V: Entry> Table<V> {
    /// The object, all of whose members are checked.
    pub(super) fn read(TableText { text, members }: TableText) -> Result<Self, String> {
        let table = Self { text, members, built: PhantomData };
        for member in table.members.iter() {
            V::check(&table.name(member), table.value(member))?;
        }
        Ok(table)
    }

    /// What stands under that name.
    ///
    /// # Errors
    /// Says what is wrong with the member; one that [`Entry::check`] let pass has nothing wrong with it.
    pub fn get(&self, name: &str) -> Result<Option<V>, String> {
        self.text_of(name).map(build).transpose()
    }

    /// All names and what stands under them, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, Result<V, String>)> {
        self.members.iter().map(|member| (self.name(member), build(self.value(member))))
    }
}

impl<V> Table<V> {
    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether something stands under that name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.text_of(name).is_some()
    }

    /// All names, in their order.
    pub fn keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.members.iter().map(|member| self.name(member))
    }

    /// What stands under that name, as it was signed.
    pub(in crate::tuf) fn text_of(&self, name: &str) -> Option<&[u8]> {
        let at = self.members.binary_search_by(|member| self.name_bytes(member).as_ref().cmp(name.as_bytes()));
        Some(self.value(self.members.get(at.ok()?)?))
    }

    /// Each member of this table beside that of the same name in `other`, both as they were signed.
    pub(in crate::tuf) fn beside<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (Cow<'a, str>, &'a [u8], Option<&'a [u8]>)> {
        let mut others = other.members.iter().peekable();
        self.members.iter().map(move |member| {
            let name = self.name_bytes(member);
            let against = |candidate: &Span| other.name_bytes(candidate).as_ref().cmp(name.as_ref());
            while others.next_if(|candidate| against(candidate) == Ordering::Less).is_some() {}
            let same = others.next_if(|candidate| against(candidate) == Ordering::Equal);
            (self.name(member), self.value(member), same.map(|same| other.value(same)))
        })
    }

    fn name_bytes(&self, member: &Span) -> Cow<'_, [u8]> {
        unescaped(self.part(member.name, member.name_end))
    }

    fn name(&self, member: &Span) -> Cow<'_, str> {
        match self.name_bytes(member) {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    fn value(&self, member: &Span) -> &[u8] {
        self.part(member.value, member.value_end)
    }

    fn part(&self, start: u32, end: u32) -> &[u8] {
        // On the narrowest platform that is supported a `usize` holds a `u32`.
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }
}

fn build<V: Entry>(text: &[u8]) -> Result<V, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { text: Bytes::new(), members: Arc::new([]), built: PhantomData }
    }
}

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), members: Arc::clone(&self.members), built: PhantomData }
    }
}

impl<V> fmt::Debug for Table<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

/// As it was signed.
impl<V> Serialize for Table<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for member in self.members.iter() {
            let value: &RawValue = serde_json::from_slice(self.value(member)).map_err(serde::ser::Error::custom)?;
            map.serialize_entry(&self.name(member), value)?;
        }
        map.end()
    }
}

/// Reads an empty object, which stands where the table was taken out.
impl<'de, V> Deserialize<'de> for Table<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<V>(PhantomData<V>);
        impl<'de, V> de::Visitor<'de> for Visitor<V> {
            type Value = Table<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Table<V>, A::Error> {
                match map.next_key::<de::IgnoredAny>()? {
                    None => Ok(Table::default()),
                    Some(_) => Err(de::Error::custom("the members of a table are looked up, not read")),
                }
            }
        }
        deserializer.deserialize_map(Visitor(PhantomData))
    }
}
