//! Messages in the wire format of protocol buffers (<https://protobuf.dev/programming-guides/encoding/>), to copy an ONNX file field by
//! field: fields that are not known here are kept.

/// The bytes are not a complete message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file is not a complete ONNX model")]
pub struct Damaged;

/// The wire type of a varint.
const VARINT: u64 = 0;

/// The wire types of fixed64 and fixed32.
const FIXED_64: u64 = 1;
const FIXED_32: u64 = 5;

/// The wire type of a length-delimited field.
const LENGTH: u64 = 2;

/// A field of a message.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    pub number: u64,
    /// With its tag.
    pub whole: &'a [u8],
    /// The bytes of a length-delimited field; else empty.
    pub content: &'a [u8],
    /// The value of a varint field.
    pub value: Option<u64>,
}

/// The bytes of the first field with that field number.
pub fn bytes_of<'a>(message: &[Field<'a>], number: u64) -> Option<&'a [u8]> {
    message.iter().find(|part| part.number == number).map(|part| part.content)
}

/// The value of the first field with that field number, a varint.
pub fn varint_of(message: &[Field<'_>], number: u64) -> Option<u64> {
    message.iter().find(|part| part.number == number).and_then(|part| part.value)
}

/// The fields of a message.
///
/// # Errors
/// The bytes are not a complete message.
pub fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, Damaged> {
    let mut found = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let key = read_varint(&mut rest)?;
        let (mut content, mut value): (&[u8], Option<u64>) = (&[], None);
        match key & 7 {
            VARINT => value = Some(read_varint(&mut rest)?),
            FIXED_64 => {
                take(&mut rest, 8)?;
            }
            LENGTH => {
                let length = usize::try_from(read_varint(&mut rest)?).map_err(|_| Damaged)?;
                content = take(&mut rest, length)?;
            }
            FIXED_32 => {
                take(&mut rest, 4)?;
            }
            _ => return Err(Damaged),
        }
        found.push(Field { number: key >> 3, whole: &start[..start.len() - rest.len()], content, value });
    }
    Ok(found)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Damaged> {
    let (taken, after) = rest.split_at_checked(length).ok_or(Damaged)?;
    *rest = after;
    Ok(taken)
}

/// A varint.
///
/// # Errors
/// It is cut off.
pub fn read_varint(rest: &mut &[u8]) -> Result<u64, Damaged> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(Damaged)?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Damaged)
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a length-delimited field.
pub fn put_bytes(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    put_varint(out, number << 3 | LENGTH);
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Appends a varint field.
pub fn put_value(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3 | VARINT);
    put_varint(out, value);
}
