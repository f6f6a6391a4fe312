//! Pixels of fewer than 8 bits.

/// Unpacks samples of 1, 2 or 4 bits into one byte each; a row is `line` bytes with `per_row` samples.
pub fn unpacked(data: &[u8], line: usize, per_row: usize, rows: usize, bits: u8) -> Vec<u8> {
    let bits = usize::from(bits);
    let mask = (1u8 << bits) - 1;
    let rows = data.chunks_exact(line.max(1)).take(rows);
    rows.flat_map(|row| (0..per_row).map(move |x| row[x * bits / 8] >> (8 - bits - x * bits % 8) & mask)).collect()
}
