//! The shape of a type as serde sees it, which is all that postcard encodes: the fields of structs in their order, and the variants of
//! enums by their numbers. Found by making values of the type until each of its variants was made.

use serde::de::value::{Error, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use std::collections::{BTreeMap, BTreeSet};

/// A struct's or an enum's name, with its fields or variants: two may have one name.
type Key = (String, Vec<String>);

/// The named types that were met.
#[derive(Default)]
pub(super) struct Shapes {
    /// Of a struct its fields; of an enum its variants, in order.
    types: BTreeMap<Key, Vec<String>>,
    /// Variants of which everything was seen.
    whole: BTreeSet<(Key, usize)>,
    /// The type that was met last.
    last: String,
    /// Something of what is being made is yet to be seen.
    is_open: bool,
}

impl Shapes {
    /// Adds all that `T` consists of.
    pub(super) fn add<T: DeserializeOwned>(&mut self) {
        loop {
            self.is_open = false;
            T::deserialize(&mut *self).unwrap();
            if !self.is_open {
                return;
            }
        }
    }

    /// Each type: its name, and its fields, or its variants with their numbers. Two may have one name.
    pub(super) fn types(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.types.iter().map(|((name, _), parts)| (name.as_str(), parts.as_slice()))
    }

    fn is(&mut self, name: impl Into<String>) {
        self.last = name.into();
    }

    /// Makes `count` values one after the other. What they are.
    fn several<'de, V: Visitor<'de>>(
        &mut self,
        count: usize,
        visitor: V,
    ) -> Result<(V::Value, Vec<String>), Error> {
        let mut of = Vec::new();
        let value = visitor.visit_seq(Several { shapes: self, left: count, of: &mut of })?;
        Ok((value, of))
    }

    /// The same for fields. What they are, with their names.
    fn fields<'de, V: Visitor<'de>>(
        &mut self,
        fields: &[&str],
        visitor: V,
    ) -> Result<(V::Value, Vec<String>), Error> {
        let (value, of) = self.several(fields.len(), visitor)?;
        Ok((value, fields.iter().zip(of).map(|(name, of)| format!("{name}: {of}")).collect()))
    }
}

fn key(name: &str, parts: &[&str]) -> Key {
    (name.to_owned(), parts.iter().map(|part| (*part).to_owned()).collect())
}

/// Values that are made one after the other.
struct Several<'a> {
    shapes: &'a mut Shapes,
    left: usize,
    of: &'a mut Vec<String>,
}

impl Several<'_> {
    fn make<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let value = seed.deserialize(&mut *self.shapes)?;
        self.of.push(self.shapes.last.clone());
        Ok(value)
    }
}

impl<'de> SeqAccess<'de> for Several<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.make(seed).map(Some)
    }
}

impl<'de> MapAccess<'de> for Several<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        self.make(seed)
    }
}

/// A variant that is being made; what it has beside its name.
struct Chosen<'a> {
    shapes: &'a mut Shapes,
    index: u32,
    has: &'a mut String,
}

impl<'de> EnumAccess<'de> for Chosen<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let index: U32Deserializer<Error> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Chosen<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        let value = seed.deserialize(&mut *self.shapes)?;
        *self.has = format!("({})", self.shapes.last);
        Ok(value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Error> {
        let (value, of) = self.shapes.several(count, visitor)?;
        *self.has = format!("({})", of.join(", "));
        Ok(value)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (value, of) = self.shapes.fields(fields, visitor)?;
        *self.has = format!(" {{ {} }}", of.join(", "));
        Ok(value)
    }
}

macro_rules! primitives {
    ($($method:ident $visit:ident $value:expr, $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.is($name);
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Shapes {
    type Error = Error;

    primitives! {
        deserialize_bool visit_bool false, "bool";
        deserialize_u8 visit_u8 0, "u8";
        deserialize_u16 visit_u16 0, "u16";
        deserialize_u32 visit_u32 0, "u32";
        deserialize_u64 visit_u64 0, "u64";
        deserialize_i32 visit_i32 0, "i32";
        deserialize_i64 visit_i64 0, "i64";
        deserialize_string visit_str "", "string";
    }

    // Nothing else is in a message: `shapes` says so.
    serde::forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 f64 char str bytes byte_buf unit unit_struct tuple_struct identifier ignored_any
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no message has this type"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = visitor.visit_some(&mut *self)?;
        self.is(format!("option of {}", self.last));
        Ok(value)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let (value, of) = self.several(1, visitor)?;
        self.is(format!("list of {}", of.join("")));
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Error> {
        let (value, of) = self.several(count, visitor)?;
        let is_array = count > 1 && of.iter().all(|one| *one == of[0]);
        self.is(if is_array { format!("{count} of {}", of[0]) } else { format!("({})", of.join(", ")) });
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut of = Vec::new();
        let value = visitor.visit_map(Several { shapes: &mut *self, left: 1, of: &mut of })?;
        self.is(format!("map of {}", of.join(" to ")));
        Ok(value)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let value = visitor.visit_newtype_struct(&mut *self)?;
        let inner = std::mem::replace(&mut self.last, name.to_owned());
        self.types.insert(key(name, &[]), vec![inner]);
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (value, of) = self.fields(fields, visitor)?;
        self.types.insert(key(name, fields), of);
        self.is(name);
        Ok(value)
    }

    /// The first variant of which not everything was seen.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let key = key(name, variants);
        let whole = |shapes: &Shapes, at: usize| shapes.whole.contains(&(key.clone(), at));
        let at = (0..variants.len()).find(|at| !whole(self, *at)).unwrap_or(0);
        let was_open = std::mem::replace(&mut self.is_open, false);
        let mut has = String::new();
        let index = u32::try_from(at).unwrap();
        let value = visitor.visit_enum(Chosen { shapes: &mut *self, index, has: &mut has })?;
        if !self.is_open {
            self.whole.insert((key.clone(), at));
        }
        self.is_open = was_open || !(0..variants.len()).all(|at| whole(self, at));
        let parts = self.types.entry(key).or_default();
        parts.resize(variants.len(), String::new());
        parts[at] = format!("{at} {}{has}", variants[at]);
        self.is(name);
        Ok(value)
    }
}
