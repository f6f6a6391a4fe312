//! The part of HDF5 that Keras' files use: groups as symbol tables, and float datasets in one piece, as the HDF5 library
//! writes them unless it is told otherwise (HDF5 File Format Specification, version 3.0: sections II, III and IV).

use std::collections::BTreeMap;

/// A dataset of little-endian 32-bit floats.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    pub shape: Vec<usize>,
    /// Four for each number, in row-major order.
    pub bytes: Vec<u8>,
}

/// Groups in groups; more would be a loop in a damaged file.
const MAX_DEPTH: usize = 32;

/// Messages of one object, and nodes of one tree; likewise.
const MAX_PARTS: usize = 100_000;

/// The float datasets of a file, by their path: `block1/conv/kernel`. Others are left out.
///
/// # Errors
/// What is wrong with the file.
pub fn datasets(file: &[u8]) -> Result<BTreeMap<String, Dataset>, String> {
    let file = File(file);
    if file.slice(0, 8)? != b"\x89HDF\r\n\x1a\n" {
        return Err("no HDF5 signature at its start".into());
    }
    let version = file.slice(8, 1)?[0];
    if version > 1 {
        return Err(format!("HDF5 superblock version {version}; only those of h5py's defaults (0 and 1) can be read"));
    }
    if file.slice(13, 2)? != [8, 8] {
        return Err("HDF5 addresses that are not of 64 bits".into());
    }
    // Two fields more stand before the addresses in version 1.
    let root_entry = if version == 0 { 56 } else { 60 };
    let mut found = BTreeMap::new();
    file.visit(file.u64(root_entry + 8)?, "", 0, &mut found)?;
    Ok(found)
}

/// A file in memory; every access is checked against its length.
struct File<'a>(&'a [u8]);

/// A message of an object header.
struct Message<'a> {
    kind: u16,
    data: &'a [u8],
}

mod kind {
    pub const DATASPACE: u16 = 0x01;
    pub const DATATYPE: u16 = 0x03;
    pub const LAYOUT: u16 = 0x08;
    pub const CONTINUATION: u16 = 0x10;
    pub const SYMBOL_TABLE: u16 = 0x11;
}

impl<'a> File<'a> {
    fn slice(&self, at: u64, length: u64) -> Result<&'a [u8], String> {
        let end = at.checked_add(length).filter(|&end| end <= self.0.len() as u64);
        let end = end.ok_or_else(|| format!("it ends at byte {}, within what begins at {at}", self.0.len()))?;
        Ok(&self.0[at as usize..end as usize])
    }

    fn u64(&self, at: u64) -> Result<u64, String> {
        number(self.slice(at, 8)?, 0, 8)
    }

    fn expect(&self, at: u64, signature: &[u8; 4]) -> Result<(), String> {
        if self.slice(at, 4)? == signature {
            Ok(())
        } else {
            Err(format!("no {} at byte {at}", String::from_utf8_lossy(signature)))
        }
    }

    /// The object whose header is at `address`, and what is below it.
    fn visit(
        &self,
        address: u64,
        path: &str,
        depth: usize,
        found: &mut BTreeMap<String, Dataset>,
    ) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err("groups within groups without end".into());
        }
        let messages = self.messages(address)?;
        let message = |kind| messages.iter().find(|message| message.kind == kind).map(|message| message.data);
        if let Some(table) = message(kind::SYMBOL_TABLE) {
            let mut entries = Vec::new();
            self.tree(number(table, 0, 8)?, 0, &mut entries)?;
            let heap = number(table, 8, 8)?;
            self.expect(heap, b"HEAP")?;
            let names = self.u64(heap + 24)?;
            for (name, object) in entries {
                let name = self.text(names.saturating_add(name))?;
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                self.visit(object, &path, depth + 1, found)?;
            }
        } else if let (Some(space), Some(datatype), Some(layout)) =
            (message(kind::DATASPACE), message(kind::DATATYPE), message(kind::LAYOUT))
            && is_f32(datatype)?
        {
            let dataset = self.dataset(space, layout).map_err(|problem| format!("{path}: {problem}"))?;
            found.insert(path.to_string(), dataset);
        }
        Ok(())
    }

    /// The messages of an object header of version 1, with those that are continued elsewhere.
    fn messages(&self, address: u64) -> Result<Vec<Message<'a>>, String> {
        let head = self.slice(address, 16)?;
        if head[0] != 1 {
            return Err(format!("an object header at byte {address} that is not of version 1"));
        }
        let count = number(head, 2, 2)? as usize;
        let mut blocks = vec![self.slice(address + 16, number(head, 8, 4)?)?];
        let mut messages = Vec::new();
        let mut next = 0;
        while let Some(&block) = blocks.get(next) {
            next += 1;
            let mut rest = block;
            while rest.len() >= 8 && messages.len() < count.min(MAX_PARTS) {
                let (kind, size) = (number(rest, 0, 2)? as u16, number(rest, 2, 2)? as usize);
                let data = rest.get(8..8 + size).ok_or("a message longer than its object header")?;
                rest = &rest[8 + size..];
                if kind == kind::CONTINUATION {
                    blocks.push(self.slice(number(data, 0, 8)?, number(data, 8, 8)?)?);
                }
                messages.push(Message { kind, data });
            }
        }
        Ok(messages)
    }

    /// Name offsets and object addresses of a group's B-tree, in order.
    fn tree(&self, address: u64, depth: usize, entries: &mut Vec<(u64, u64)>) -> Result<(), String> {
        if depth > MAX_DEPTH || entries.len() > MAX_PARTS {
            return Err("a group's tree without end".into());
        }
        self.expect(address, b"TREE")?;
        let head = self.slice(address, 24)?;
        let (level, used) = (head[5], number(head, 6, 2)?);
        for child in 0..used {
            // Keys and children take turns, a key first.
            let child = self.u64(address + 24 + 16 * child + 8)?;
            if level > 0 {
                self.tree(child, depth + 1, entries)?;
                continue;
            }
            self.expect(child, b"SNOD")?;
            let symbols = number(self.slice(child, 8)?, 6, 2)?;
            for symbol in 0..symbols {
                let entry = self.slice(child + 8 + 40 * symbol, 16)?;
                entries.push((number(entry, 0, 8)?, number(entry, 8, 8)?));
            }
        }
        Ok(())
    }

    /// Text up to a zero.
    fn text(&self, at: u64) -> Result<String, String> {
        let rest = self.0.get(at as usize..).ok_or("a name beyond the end")?;
        let end = rest.iter().position(|&byte| byte == 0).ok_or("a name without end")?;
        String::from_utf8(rest[..end].to_vec()).map_err(|_| "a name that is not UTF-8".to_string())
    }

    fn dataset(&self, space: &[u8], layout: &[u8]) -> Result<Dataset, String> {
        let (version, rank) = (number(space, 0, 1)?, number(space, 1, 1)?);
        let first = match version {
            1 => 8,
            2 => 4,
            other => return Err(format!("a dataspace of version {other}")),
        };
        let dims = (0..rank).map(|dim| number(space, first + 8 * dim as usize, 8)).collect::<Result<Vec<_>, _>>()?;
        let size = dims.iter().try_fold(4u64, |size, &dim| size.checked_mul(dim)).ok_or("a shape without bounds")?;
        let bytes = match (number(layout, 0, 1)?, number(layout, 1, 1)?) {
            (3 | 4, 0) => layout.get(4..4 + size as usize).ok_or("less data than its shape says")?,
            (3 | 4, 1) => self.slice(number(layout, 2, 8)?, size)?,
            (3 | 4, 2) => return Err("it is stored in chunks, which Keras does not do".into()),
            (version, class) => return Err(format!("a layout of version {version}, class {class}")),
        };
        Ok(Dataset { shape: dims.into_iter().map(|dim| dim as usize).collect(), bytes: bytes.to_vec() })
    }
}

/// Whether a datatype message means little-endian 32-bit floats.
fn is_f32(datatype: &[u8]) -> Result<bool, String> {
    const FLOAT: u64 = 1;
    let class = number(datatype, 0, 1)? & 0x0F;
    let big_endian = number(datatype, 1, 1)? & 1 == 1;
    Ok(class == FLOAT && !big_endian && number(datatype, 4, 4)? == 4)
}

/// A little-endian number of up to 8 bytes.
fn number(data: &[u8], at: usize, size: usize) -> Result<u64, String> {
    let bytes = data.get(at..at + size).ok_or("a field beyond its record")?;
    Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one group `g` that holds one dataset `d` of shape [2]: laid out by hand from the specification.
    fn tiny() -> Vec<u8> {
        let mut file = vec![0u8; 1024];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        let header = |messages: &[(u16, Vec<u8>)]| {
            let body: Vec<u8> = messages
                .iter()
                .flat_map(|(kind, data)| {
                    let mut message = [kind.to_le_bytes(), (data.len() as u16).to_le_bytes()].concat();
                    message.extend([0; 4]);
                    message.extend(data);
                    message
                })
                .collect();
            let mut head = vec![1, 0];
            head.extend((messages.len() as u16).to_le_bytes());
            head.extend(1u32.to_le_bytes());
            head.extend((body.len() as u32).to_le_bytes());
            head.extend([0; 4]);
            head.extend(body);
            head
        };
        let pair = |a: u64, b: u64| [a.to_le_bytes(), b.to_le_bytes()].concat();
        put(0, b"\x89HDF\r\n\x1a\n");
        put(13, &[8, 8]);
        put(64, &100u64.to_le_bytes());
        // Root group, then `g`: header, tree, node, and one heap for both names.
        for (at, name, object) in [(100, 0, 400u64), (400, 2, 700)] {
            put(at, &header(&[(0x11, pair(at as u64 + 50, at as u64 + 200))]));
            put(at + 50, b"TREE\0\0\x01\0");
            put(at + 50 + 32, &(at as u64 + 110).to_le_bytes());
            put(at + 110, b"SNOD\x01\0\x01\0");
            put(at + 118, &pair(name, object));
            put(at + 200, b"HEAP");
            put(at + 224, &(at as u64 + 240).to_le_bytes());
            put(at + 240, b"g\0d\0");
        }
        let space = [vec![1, 1, 0, 0, 0, 0, 0, 0], 2u64.to_le_bytes().to_vec()].concat();
        let datatype = [vec![0x11, 0, 0, 0], 4u32.to_le_bytes().to_vec()].concat();
        let layout = [vec![3, 1], pair(900, 8)].concat();
        put(700, &header(&[(0x01, space), (0x03, datatype), (0x08, layout)]));
        put(900, &[1.5f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat());
        file
    }

    #[test]
    fn a_dataset_is_found_by_its_path() {
        let bytes = [1.5f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat();
        assert_eq!(datasets(&tiny()).unwrap(), BTreeMap::from([("g/d".into(), Dataset { shape: vec![2], bytes })]));
    }

    #[test]
    fn no_cut_or_changed_file_does_harm() {
        let file = tiny();
        for length in 0..file.len().min(908) {
            assert!(datasets(&file[..length]).is_err(), "cut at {length}");
        }
        for at in 0..file.len() {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut changed = file.clone();
                changed[at] = value;
                // Anything but a panic or an endless loop.
                let _ = datasets(&changed);
            }
        }
    }
}
