//! Lines of any length, from any reader, in one buffer.

use std::io::{self, Read};

use zkv::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// What is read at once: large, so that few system calls are made.
const READ_BYTES: usize = 1 << 20;

/// The longest line that can be a record: the longest key, a tab, and the longest value.
#[expect(
    clippy::cast_possible_truncation,
    reason = "4 GiB - 1, which is the largest usize or less"
)]
pub const LINE_BYTES_MAX: usize = (VALUE_BYTES_MAX as usize).saturating_add(KEY_BYTES_MAX + 1);

/// Reads lines. The buffer grows with the longest line, and with nothing else.
pub struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Up to here, from `start`, there is no line end.
    searched: usize,
    bytes_max: usize,
    is_done: bool,
}

impl<R: Read> Lines<R> {
    /// Reads lines of up to `bytes_max` bytes.
    pub fn new(reader: R, bytes_max: usize) -> Self {
        let buffer = vec![0; READ_BYTES];
        Self { reader, buffer, start: 0, end: 0, searched: 0, bytes_max, is_done: false }
    }

    /// The next line, without its line feed; `None` behind the last one, which needs none. A
    /// carriage return before that is given as it is.
    ///
    /// # Errors
    /// Those of the reader, and [`io::ErrorKind::FileTooLarge`] for a line over the limit.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        let length = loop {
            let pending = &self.buffer[self.start..self.end];
            if let Some(found) = memchr::memchr(b'\n', &pending[self.searched..]) {
                break self.searched + found;
            }
            if self.bytes_max < pending.len() {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.searched = pending.len();
            if self.is_done {
                return Ok(self.take_last());
            }
            self.fill()?;
        };
        if self.bytes_max < length {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let start = self.start;
        self.start += length + 1;
        self.searched = 0;
        Ok(Some(&self.buffer[start..start + length]))
    }

    fn take_last(&mut self) -> Option<&[u8]> {
        let last = self.start..self.end;
        self.start = self.end;
        self.searched = 0;
        (!last.is_empty()).then(|| &self.buffer[last])
    }

    /// Reads more behind what is pending, which is first moved to the front.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() == self.end {
            // A line may be gigabytes, or endless: there may be no memory for it.
            self.buffer.try_reserve_exact(self.end)?;
            self.buffer.resize(self.end * 2, 0);
        }
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.is_done = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, with interruptions.
    struct Trickle<'a> {
        bytes: &'a [u8],
        step: usize,
        is_interrupted: bool,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.is_interrupted = !self.is_interrupted;
            if self.is_interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let room = into.len().min(self.step);
            self.bytes.read(&mut into[..room])
        }
    }

    fn lines(bytes: &[u8], step: usize, bytes_max: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut lines = Lines::new(Trickle { bytes, step, is_interrupted: false }, bytes_max);
        let mut found = Vec::new();
        while let Some(line) = lines.next_line()? {
            found.push(line.to_vec());
        }
        assert_eq!(lines.next_line()?, None);
        Ok(found)
    }

    #[test]
    fn lines_are_found_however_the_reader_cuts_them() {
        let cases: [(&[u8], &[&[u8]]); 6] = [
            (b"", &[]),
            (b"\n", &[b""]),
            (b"a\nbc\n", &[b"a", b"bc"]),
            (b"a\n\nlast", &[b"a", b"", b"last"]),
            (b"a\r\nb\r", &[b"a\r", b"b\r"]),
            (b"\n\n", &[b"", b""]),
        ];
        for (bytes, expected) in cases {
            for step in 1..8 {
                assert_eq!(lines(bytes, step, 100).unwrap(), expected, "{bytes:?} by {step}");
            }
        }
    }

    #[test]
    fn a_line_longer_than_the_buffer_grows_it() {
        let mut bytes = vec![b'x'; 3 * READ_BYTES + 1];
        bytes.extend_from_slice(b"\nshort\n");
        let found = lines(&bytes, READ_BYTES / 3, LINE_BYTES_MAX).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].len(), &found[1][..]), (3 * READ_BYTES + 1, &b"short"[..]));
    }

    #[test]
    fn a_line_over_the_limit_is_refused_before_it_is_whole() {
        assert_eq!(lines(b"four\nfour", 2, 4).unwrap().len(), 2);
        for bytes in [&b"five5\n"[..], b"five5", b"a\nfive5 and more"] {
            for step in [1, 3, 100] {
                let error = lines(bytes, step, 4).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{bytes:?} by {step}");
            }
        }
    }
}
