//! Frames: a type, a length, bytes.

/// Longer ones are a broken or hostile peer.
pub const MAX: usize = 1 << 20;

/// Appends a frame.
pub fn push(buffer: &mut Vec<u8>, kind: u8, data: &[u8]) {
    buffer.push(kind);
    buffer.extend((data.len() as u32).to_le_bytes());
    buffer.extend(data);
}

/// The next whole frame at the start of a buffer: its type, its bytes, and how long it is in all.
pub fn next(buffer: &[u8]) -> Result<Option<(u8, &[u8], usize)>, TooLong> {
    let Some((header, rest)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if length > MAX {
        return Err(TooLong);
    }
    Ok(rest.get(..length).map(|data| (header[0], data, 5 + length)))
}

/// A frame longer than any that is sent.
#[derive(Debug)]
pub struct TooLong;

#[cfg(test)]
mod tests {
    #[test]
    fn frames() {
        let mut buffer = Vec::new();
        super::push(&mut buffer, b'o', b"hello");
        super::push(&mut buffer, b'q', &7i32.to_le_bytes());
        assert!(super::next(&buffer[..9]).unwrap().is_none());
        let (kind, data, length) = super::next(&buffer).unwrap().unwrap();
        assert_eq!((kind, data), (b'o', &b"hello"[..]));
        assert_eq!(super::next(&buffer[length..]).unwrap().unwrap().0, b'q');
        assert!(super::next(&[b'o', 255, 255, 255, 255]).is_err());
    }
}
