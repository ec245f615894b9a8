//! What can be asked of the files of a pod with a kernel of its own, how it is answered, and who answers it in there.
//!
//! The answer is one stream out of the guest:
//!
//! ```text
//!   kind (1 byte)  length (4 bytes, little endian)  bytes
//!   found          JSON of what was asked for; first, where there is any
//!   piece          of an archive, or of a list of changes
//!   end            nothing, or JSON of a Complaint: an answer without it was cut off
//! ```
//!
//! Who reads it believes it nothing but that it is about the pod's own files: lengths, kinds and texts are checked here, what
//! archives may hold in [`super::sieve`].

use super::{ContainerFiles, FilesError, Into, io_at};
use crate::instance::sentence;
use model::error::Code;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, BufWriter, Read, Write};

/// Most bytes of one piece.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// Most bytes of what was found, or of a complaint.
const WORDS_BYTES_MAX: usize = 64 << 10;
/// Longest text of a complaint that is passed on, in characters.
const TEXT_CHARS_MAX: usize = 2000;
const HEADER_BYTES: usize = 5;

const FOUND: u8 = 0;
const PIECE: u8 = 1;
const END: u8 = 2;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "work")]
pub enum Work {
    /// What lies at a path.
    Stat {
        /// The path.
        path: String,
    },
    /// Which paths differ from the image's.
    Changes,
    /// How many bytes the container wrote.
    Weigh,
    /// An archive of what lies at a path.
    Pack {
        /// The path.
        path: String,
    },
    /// An archive of all files but those of volumes.
    Export,
    /// An archive of what the container changed, as a layer.
    Layer {
        /// No time in it is later, in seconds since 1970.
        newest_s: Option<i64>,
    },
    /// Writes the archive that comes in.
    Unpack {
        /// Where, and how.
        into: Into,
    },
}

/// Why it could not be done, on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
enum Complaint {
    Missing { path: String },
    NoDirectory { path: String },
    Kernel { path: String },
    ReadOnly { path: String },
    Moving,
    Other { code: Code, text: String },
}

impl Complaint {
    fn of(error: &FilesError) -> Self {
        match error {
            FilesError::Missing(path) => Self::Missing { path: path.clone() },
            FilesError::NoDirectory(path) => Self::NoDirectory { path: path.clone() },
            FilesError::Kernel(path) => Self::Kernel { path: path.clone() },
            FilesError::ReadOnly(path) => Self::ReadOnly { path: path.clone() },
            FilesError::Moving => Self::Moving,
            other => Self::Other { code: other.code(), text: sentence(other) },
        }
    }

    fn heard(self) -> FilesError {
        match self {
            Self::Missing { path } => FilesError::Missing(readable(&path)),
            Self::NoDirectory { path } => FilesError::NoDirectory(readable(&path)),
            Self::Kernel { path } => FilesError::Kernel(readable(&path)),
            Self::ReadOnly { path } => FilesError::ReadOnly(readable(&path)),
            Self::Moving => FilesError::Moving,
            Self::Other { code, text } => {
                // What else a door would make of it is not a guest's to say.
                let can_be = matches!(code, Code::Invalid | Code::TooLarge | Code::NoCapacity);
                let code = if can_be { code } else { Code::Internal };
                FilesError::Inside { code, message: readable(&text) }
            }
        }
    }
}

/// A guest's text for people: without what moves a terminal, and not endless.
pub(in crate::container) fn readable(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).take(TEXT_CHARS_MAX).collect()
}

/// Where an answer is put in. What is written to it are pieces.
pub(in crate::container) struct Teller<W: Write>(W);

impl<W: Write> Teller<W> {
    /// Over the way to the host.
    pub fn new(output: W) -> Self {
        Self(output)
    }

    fn record(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let mut record = Vec::with_capacity(HEADER_BYTES + bytes.len());
        record.push(kind);
        record.extend((bytes.len() as u32).to_le_bytes());
        record.extend(bytes);
        self.0.write_all(&record)
    }

    fn found(&mut self, what: &impl Serialize) -> Result<(), FilesError> {
        let text = serde_json::to_vec(what).map_err(io_at("tell what was found"))?;
        self.record(FOUND, &text).map_err(io_at("tell what was found"))
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// Nobody takes it any more.
    pub fn end(mut self, outcome: &Result<(), FilesError>) -> io::Result<()> {
        match outcome {
            Ok(()) => self.record(END, &[])?,
            Err(error) => self.record(END, &serde_json::to_vec(&Complaint::of(error))?)?,
        }
        self.0.flush()
    }
}

impl<W: Write> Write for Teller<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PIECE_BYTES_MAX)];
        if !bytes.is_empty() {
            self.record(PIECE, bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl ContainerFiles {
    /// Does what was asked, inside of the machine, and answers.
    ///
    /// # Errors
    /// Nobody takes the answer any more.
    pub(in crate::container) fn perform(
        &self,
        work: &Work,
        input: impl Read,
        output: impl Write,
    ) -> io::Result<()> {
        let mut teller = Teller::new(output);
        let outcome = self.work(work, input, &mut teller);
        teller.end(&outcome)
    }

    fn work<W: Write>(
        &self,
        work: &Work,
        input: impl Read,
        teller: &mut Teller<W>,
    ) -> Result<(), FilesError> {
        match work {
            Work::Stat { path } => teller.found(&self.stat(path)?),
            Work::Weigh => teller.found(&self.written_bytes()?),
            Work::Changes => {
                let mut list = BufWriter::with_capacity(PIECE_BYTES_MAX, teller);
                for change in self.changes()? {
                    list.write_all(&change.record()).map_err(io_at("tell the changes"))?;
                }
                list.flush().map_err(io_at("tell the changes"))
            }
            Work::Pack { path } => {
                let (stat, asked, found) = self.open_for_packing(path)?;
                teller.found(&stat)?;
                self.pack(&asked, found, BufWriter::with_capacity(PIECE_BYTES_MAX, teller))
            }
            Work::Export => self.export(BufWriter::with_capacity(PIECE_BYTES_MAX, teller)),
            Work::Layer { newest_s } => {
                self.pack_layer(BufWriter::with_capacity(PIECE_BYTES_MAX, teller), *newest_s)
            }
            Work::Unpack { into } => self.unpack(into, input),
        }
    }
}

/// What comes out of a guest: read, its pieces.
pub(super) struct Hearer<R: Read> {
    input: R,
    /// Bytes of the piece at hand that were not read yet.
    left: usize,
    end: Option<Result<(), FilesError>>,
}

fn no_answer() -> FilesError {
    FilesError::Inside { code: Code::Internal, message: "its machine answers what is no answer".into() }
}

impl<R: Read> Hearer<R> {
    /// Over the way from the guest.
    pub fn new(input: R) -> Self {
        Self { input, left: 0, end: None }
    }

    /// What was found, which comes first.
    ///
    /// # Errors
    /// The guest's complaint; what it says is no answer.
    pub fn found<T: DeserializeOwned>(&mut self) -> Result<T, FilesError> {
        match self.next()? {
            (FOUND, length) if length <= WORDS_BYTES_MAX => {
                serde_json::from_slice(&self.words(length)?).map_err(|_| no_answer())
            }
            (END, length) => match self.ended(length) {
                Err(complaint) => Err(complaint),
                Ok(()) => Err(no_answer()),
            },
            _ => Err(no_answer()),
        }
    }

    /// The end, of an answer whose pieces were all read.
    ///
    /// # Errors
    /// The guest's complaint; what it says is no answer; more pieces come.
    pub fn finish(&mut self) -> Result<(), FilesError> {
        if let Some(end) = self.end.take() {
            return end;
        }
        match self.next()? {
            (END, length) if self.left == 0 => self.ended(length),
            _ => Err(no_answer()),
        }
    }

    /// Why the pieces ended before their end, where that was the guest's doing.
    pub fn broken_off(&mut self) -> Option<FilesError> {
        self.end.take().and_then(Result::err)
    }

    fn next(&mut self) -> Result<(u8, usize), FilesError> {
        let mut header = [0; HEADER_BYTES];
        self.exactly(&mut header)?;
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]);
        Ok((header[0], usize::try_from(length).unwrap_or(usize::MAX)))
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), FilesError> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            // Its pod ended, and its machine with it.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => FilesError::Moving,
            _ => io_at("hear from its machine")(error),
        })
    }

    fn words(&mut self, length: usize) -> Result<Vec<u8>, FilesError> {
        let mut words = vec![0; length];
        self.exactly(&mut words)?;
        Ok(words)
    }

    fn ended(&mut self, length: usize) -> Result<(), FilesError> {
        match length {
            0 => Ok(()),
            length if length <= WORDS_BYTES_MAX => {
                let complaint: Result<Complaint, _> = serde_json::from_slice(&self.words(length)?);
                Err(complaint.map_or_else(|_| no_answer(), Complaint::heard))
            }
            _ => Err(no_answer()),
        }
    }

    /// Goes to the next piece. Whether there is one.
    fn turn_over(&mut self) -> Result<bool, FilesError> {
        while self.left == 0 {
            match self.next()? {
                (PIECE, length) if length <= PIECE_BYTES_MAX => self.left = length,
                (END, length) => {
                    self.end = Some(self.ended(length));
                    return Ok(false);
                }
                _ => return Err(no_answer()),
            }
        }
        Ok(true)
    }
}

impl<R: Read> Read for Hearer<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let broken = || io::Error::other("its machine broke off");
        match &self.end {
            Some(Ok(())) => return Ok(0),
            Some(Err(_)) => return Err(broken()),
            None => {}
        }
        match self.turn_over() {
            Ok(true) => {}
            Ok(false) if matches!(self.end, Some(Ok(()))) => return Ok(0),
            Ok(false) => return Err(broken()),
            Err(error) => {
                // Told by `finish`, which knows more than an error of a read can say.
                self.end = Some(Err(error));
                return Err(broken());
            }
        }
        let count = buffer.len().min(self.left);
        let count = self.input.read(&mut buffer[..count])?;
        if count == 0 && !buffer.is_empty() {
            self.end = Some(Err(FilesError::Moving));
            return Err(broken());
        }
        self.left -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        Teller::new(&mut all).record(kind, bytes).unwrap();
        all
    }

    #[test]
    fn what_is_told_inside_is_heard_outside() {
        let mut all = Vec::new();
        let mut teller = Teller::new(&mut all);
        teller.found(&7).unwrap();
        teller.write_all(&[5; 200_000]).unwrap();
        teller.end(&Ok(())).unwrap();
        let mut hearer = Hearer::new(all.as_slice());
        assert_eq!(hearer.found::<u64>().unwrap(), 7);
        let mut heard = Vec::new();
        hearer.read_to_end(&mut heard).unwrap();
        assert!(heard == [5; 200_000]);
        hearer.finish().unwrap();
    }

    #[test]
    fn complaints_are_the_same_on_both_sides() {
        let limit = || FilesError::Limit { what: "files", limit: 3 };
        let entry = || FilesError::Entry { entry: "a".into(), why: "has no name".into() };
        for (said, code, text) in [
            (FilesError::Missing("/a".into()), Code::NotFound, FilesError::Missing("/a".into()).to_string()),
            (FilesError::NoDirectory("/a".into()), Code::Invalid, "/a is not a directory".into()),
            (FilesError::ReadOnly("/a".into()), Code::Forbidden, "/a is read-only".into()),
            (FilesError::Moving, Code::Conflict, FilesError::Moving.to_string()),
            (limit(), Code::TooLarge, limit().to_string()),
            (entry(), Code::Invalid, entry().to_string()),
        ] {
            let mut all = Vec::new();
            Teller::new(&mut all).end(&Err(said)).unwrap();
            let heard = Hearer::new(all.as_slice()).found::<u64>().unwrap_err();
            assert_eq!((heard.code(), heard.to_string()), (code, text));
        }
    }

    #[test]
    fn an_answer_that_is_cut_or_none_is_not_taken_for_one() {
        let long = record(PIECE, &[0; 8]);
        let other = [
            vec![],
            long[..3].to_vec(),
            long[..8].to_vec(),
            record(9, b""),
            record(END, b"{not json"),
            [PIECE, 255, 255, 255, 255].to_vec(),
            [END, 255, 255, 255, 255].to_vec(),
            [record(PIECE, b"abc"), record(FOUND, b"1")].concat(),
            [
                record(PIECE, b"abc"),
                record(END, br#"{"why":"other","code":"unauthorized","text":"\u001b[2J"}"#),
            ]
            .concat(),
        ];
        for bytes in other {
            let mut hearer = Hearer::new(bytes.as_slice());
            assert!(hearer.read_to_end(&mut Vec::new()).is_err(), "{bytes:?}");
            let error = hearer.finish().unwrap_err();
            assert!(matches!(error.code(), Code::Conflict | Code::Internal), "{error:?}");
            assert!(!error.to_string().contains('\u{1b}'));
            assert!(Hearer::new(bytes.as_slice()).found::<u64>().is_err());
        }
        // More than was said to be the end.
        let mut hearer = Hearer::new(record(PIECE, b"a").leak() as &[u8]);
        assert!(hearer.finish().is_err());
    }
}
