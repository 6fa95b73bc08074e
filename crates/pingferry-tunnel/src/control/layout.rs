//! Structures of a Cap'n Proto message by the places of their fields.
//!
//! A structure has a data section and a pointer section (<https://capnproto.org/encoding.html#structs>). A schema compiler gives
//! each field a place in one of them. Here the places are written by hand, as the few structures that are needed change no more.
//! These types do what generated code does: they call the layout functions of the `capnp` crate.

use capnp::Word;
use capnp::message::{self, ReaderOptions};
use capnp::private::layout::{ElementSize, PointerBuilder, PointerReader, StructBuilder, StructReader, StructSize};
use capnp::serialize::{BufferSegments, read_message_from_flat_slice, write_message_to_words};
use capnp::traits::{FromPointerBuilder, FromPointerReader};

use super::framing::MAX_MESSAGE;

/// How deep structures may be nested. The schema needs 7.
const MAX_DEPTH: i32 = 16;
/// How many words may be read from a message. Pointers that overlap cannot make a short message large.
const MAX_WORDS: usize = 2 * MAX_MESSAGE / 8;

/// A message whose structures can be read.
pub(super) struct Frame<'a>(message::Reader<BufferSegments<&'a [u8]>>);

impl<'a> Frame<'a> {
    /// The message of [`Frames`](super::Frames).
    pub(super) fn open(mut bytes: &'a [u8]) -> capnp::Result<Self> {
        let options = ReaderOptions { traversal_limit_in_words: Some(MAX_WORDS), nesting_limit: MAX_DEPTH };
        read_message_from_flat_slice(&mut bytes, options).map(Self)
    }

    pub(super) fn root(&self) -> capnp::Result<Fields<'_>> {
        self.0.get_root()
    }
}

/// A structure to read. A field beyond its end has its default value, as one of an older schema would.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(StructReader<'a>);

impl<'a> FromPointerReader<'a> for Fields<'a> {
    fn get_from_pointer(pointer: &PointerReader<'a>, default: Option<&'a [Word]>) -> capnp::Result<Self> {
        pointer.get_struct(default).map(Self)
    }
}

impl<'a> Fields<'a> {
    /// Bit `at` of the data section.
    pub(super) fn bit(&self, at: usize) -> bool {
        self.0.get_bool_field(at)
    }

    /// Byte `at` of the data section.
    pub(super) fn u8(&self, at: usize) -> u8 {
        self.0.get_data_field(at)
    }

    /// The number of 16 bits with this index in the data section.
    pub(super) fn u16(&self, index: usize) -> u16 {
        self.0.get_data_field(index)
    }

    /// The number of 32 bits with this index in the data section.
    pub(super) fn u32(&self, index: usize) -> u32 {
        self.0.get_data_field(index)
    }

    /// The word with this index in the data section.
    pub(super) fn u64(&self, index: usize) -> u64 {
        self.0.get_data_field(index)
    }

    /// The structure behind a pointer.
    pub(super) fn fields(&self, pointer: usize) -> capnp::Result<Fields<'a>> {
        self.0.get_pointer_field(pointer).get_struct(None).map(Fields)
    }

    /// The text behind a pointer.
    pub(super) fn text(&self, pointer: usize) -> capnp::Result<&'a str> {
        Ok(self.0.get_pointer_field(pointer).get_text(None)?.to_str()?)
    }

    /// The bytes behind a pointer.
    pub(super) fn data(&self, pointer: usize) -> capnp::Result<&'a [u8]> {
        self.0.get_pointer_field(pointer).get_data(None)
    }

    /// The list of texts behind a pointer.
    pub(super) fn texts(&self, pointer: usize) -> capnp::Result<capnp::text_list::Reader<'a>> {
        FromPointerReader::get_from_pointer(&self.0.get_pointer_field(pointer), None)
    }

    /// Whether the list of structures behind a pointer is empty.
    pub(super) fn is_empty_list(&self, pointer: usize) -> capnp::Result<bool> {
        let list = self.0.get_pointer_field(pointer).get_list(ElementSize::InlineComposite, None)?;
        Ok(list.is_empty())
    }
}

/// Writes a message: the framing, and a root structure that `write` fills.
pub(super) fn write_message(write: impl FnOnce(Slot<'_>)) -> Vec<u8> {
    let mut message = message::Builder::new_default();
    write(message.init_root());
    write_message_to_words(&message)
}

/// A pointer to write, which is null until then.
pub(super) struct Slot<'a>(PointerBuilder<'a>);

impl<'a> FromPointerBuilder<'a> for Slot<'a> {
    fn init_pointer(builder: PointerBuilder<'a>, _len: u32) -> Self {
        Self(builder)
    }

    fn get_from_pointer(builder: PointerBuilder<'a>, _default: Option<&'a [Word]>) -> capnp::Result<Self> {
        Ok(Self(builder))
    }
}

impl<'a> Slot<'a> {
    /// A structure with these numbers of data words and pointers.
    pub(super) fn fields(self, data: u16, pointers: u16) -> FieldsMut<'a> {
        let size = StructSize { data, pointers };
        FieldsMut { builder: self.0.init_struct(size), size }
    }

    /// A text.
    pub(super) fn text(mut self, text: &str) {
        self.0.set_text(text.into());
    }

    /// Bytes.
    pub(super) fn data(mut self, data: &[u8]) {
        self.0.set_data(data);
    }

    /// A list of texts.
    pub(super) fn texts<'t>(self, texts: impl ExactSizeIterator<Item = &'t str>) {
        let count = u32::try_from(texts.len()).unwrap_or(u32::MAX);
        let mut list = capnp::text_list::Builder::init_pointer(self.0, count);
        (0..count).zip(texts).for_each(|(index, text)| list.set(index, text));
    }
}

/// A structure to write. All fields have their default values until then.
pub(super) struct FieldsMut<'a> {
    builder: StructBuilder<'a>,
    size: StructSize,
}

impl FieldsMut<'_> {
    /// Bit `at` of the data section.
    pub(super) fn set_bit(&mut self, at: usize, value: bool) {
        self.check_data(at / 8, 1);
        self.builder.set_bool_field(at, value);
    }

    /// Byte `at` of the data section.
    pub(super) fn set_u8(&mut self, at: usize, value: u8) {
        self.check_data(at, 1);
        self.builder.set_data_field(at, value);
    }

    /// The number of 16 bits with this index in the data section.
    pub(super) fn set_u16(&mut self, index: usize, value: u16) {
        self.check_data(index, 2);
        self.builder.set_data_field(index, value);
    }

    /// The number of 32 bits with this index in the data section.
    pub(super) fn set_u32(&mut self, index: usize, value: u32) {
        self.check_data(index, 4);
        self.builder.set_data_field(index, value);
    }

    /// The word with this index in the data section.
    pub(super) fn set_u64(&mut self, index: usize, value: u64) {
        self.check_data(index, 8);
        self.builder.set_data_field(index, value);
    }

    /// A pointer of the structure.
    pub(super) fn slot(&mut self, pointer: usize) -> Slot<'_> {
        assert!(pointer < usize::from(self.size.pointers), "the structure has no such pointer");
        Slot(self.builder.reborrow().get_pointer_field(pointer))
    }

    /// The `capnp` crate does not check where it writes. All places are constants, so this fails in a test or never.
    fn check_data(&self, index: usize, len: usize) {
        assert!((index + 1) * len <= 8 * usize::from(self.size.data), "the structure has no such field");
    }
}
