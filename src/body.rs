//! Body: what nginx has left in buffers or in a temporary file becomes one slice.

use crate::ngx::{BodyPart, OutOfMemory, Request};

/// Why there is no slice.
pub enum Unreadable {
    /// More than the limit.
    TooLarge,
    OutOfMemory,
    /// A temporary file that nginx wrote cannot be read back.
    File,
}

impl From<OutOfMemory> for Unreadable {
    fn from(_: OutOfMemory) -> Self {
        Unreadable::OutOfMemory
    }
}

/// The whole body of at most `limit` bytes, where it lies if it is in one piece, else in a copy that belongs to the
/// request.
pub fn collect<'r>(request: &Request<'r>, limit: usize) -> Result<&'r [u8], Unreadable> {
    let length = request.body().map(|part| part.len()).fold(0usize, usize::saturating_add);
    if length > limit {
        return Err(Unreadable::TooLarge);
    }
    let whole = request.body().find(|part| part.len() == length);
    if let Some(BodyPart::Memory(bytes)) = whole {
        return Ok(bytes);
    }
    let bytes = request.allocate(length)?;
    let mut rest = &mut *bytes;
    for part in request.body() {
        let Some((into, after)) = rest.split_at_mut_checked(part.len()) else { return Err(Unreadable::File) };
        match part {
            BodyPart::Memory(bytes) => into.copy_from_slice(bytes),
            BodyPart::File(file) if file.read(into) => {}
            BodyPart::File(_) => return Err(Unreadable::File),
        }
        rest = after;
    }
    Ok(bytes)
}

impl BodyPart<'_> {
    /// In bytes.
    fn len(&self) -> usize {
        match self {
            BodyPart::Memory(bytes) => bytes.len(),
            BodyPart::File(file) => file.len(),
        }
    }
}
