//! Messages in the wire format of protocol buffers (<https://protobuf.dev/programming-guides/encoding/>), to copy an ONNX file field by
//! field: fields that are not known here are kept.

/// The bytes are not a complete message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file is not a complete ONNX model")]
pub struct Damaged;

/// The type of a number of variable length.
const NUMBER: u64 = 0;

/// The type of a field with a length.
const LENGTH: u64 = 2;

/// A field of a message.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    pub number: u64,
    /// With its key.
    pub whole: &'a [u8],
    /// The bytes of a field with a length; else empty.
    pub content: &'a [u8],
    /// The value of a field with a number.
    pub value: Option<u64>,
}

/// The content of the first field of that number.
pub fn named<'a>(message: &[Field<'a>], number: u64) -> Option<&'a [u8]> {
    message.iter().find(|part| part.number == number).map(|part| part.content)
}

/// The first number of a field with a number.
pub fn number(message: &[Field<'_>], number: u64) -> Option<u64> {
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
        let key = read_number(&mut rest)?;
        let (mut content, mut value): (&[u8], Option<u64>) = (&[], None);
        match key & 7 {
            NUMBER => value = Some(read_number(&mut rest)?),
            1 => {
                take(&mut rest, 8)?;
            }
            LENGTH => {
                let length = usize::try_from(read_number(&mut rest)?).map_err(|_| Damaged)?;
                content = take(&mut rest, length)?;
            }
            5 => {
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

/// A number of variable length.
///
/// # Errors
/// It is cut off.
pub fn read_number(rest: &mut &[u8]) -> Result<u64, Damaged> {
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

/// Appends a number of variable length.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a field with a length.
pub fn put(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    put_number(out, number << 3 | LENGTH);
    put_number(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Appends a field with a number.
pub fn put_value(out: &mut Vec<u8>, number: u64, value: u64) {
    put_number(out, number << 3 | NUMBER);
    put_number(out, value);
}
