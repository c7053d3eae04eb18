//! The journal: changes in a row behind a header, each with a checksum, then zeros to the end.
//!
//! ```text
//! lbd journal 1
//! crc32:0123abcd {"revision":8,"after":7,"written":1790000000000,"put":[…],"removed":[…]}
//! \0\0\0…                                                        (to a multiple of 4 KiB, one at least)
//! ```
//!
//! A change is kept once its line is on the disk. The zeros are there so that a change finds its room, costs one write of
//! what was written before (no file system has to note anything), and a file that was cut is told from a whole one. A last
//! line that ends in zeros, or that lacks whole sectors, is one that was being written when the daemon or the machine
//! stopped: nobody was told that it is kept, and it is not. Anything else that does not fit is damage.
//!
//! A line that could neither be written nor be taken back would be found by the next start. So a journal with such a line
//! is spoilt: a copy without it takes its place before anything else is kept.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_api_types::vip::Vip;
use serde::Serialize;
use serde_json::Value;

use super::{Change, crc32, lists, object_with_lists};
use crate::read::{Cursor, document};
use crate::resources::Resources;
use crate::vip;

const HEADER: &[u8] = b"lbd journal 1\n";
const NO_JOURNAL: &str = "it does not begin as a journal does";
/// The file's length is a multiple of this.
pub(super) const CHUNK: usize = 4 << 10;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// What it grows to a multiple of where there is room, so that it seldom does, and no change waits long for it. Tests look at
/// each byte.
const GROWTH: usize = if cfg!(test) { CHUNK } else { 16 * CHUNK };

/// A change, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// The revision that it leads to.
    pub(super) revision: u64,
    /// The revision that it comes after.
    pub(super) after: u64,
    /// When it was made.
    pub(super) written: SystemTime,
    /// VIPs that are new or other than before.
    pub(super) put: Vec<Vip>,
    /// Names of those that are gone.
    pub(super) removed: Vec<String>,
    /// All other resources, where any of them is other than before.
    pub(super) resources: Option<Resources>,
}

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) records: Vec<Record>,
    /// Records that lead no further are left out.
    pub(super) known: u64,
    /// A revision that was given to something that is not kept.
    pub(super) reserved: u64,
    /// Where the next line goes.
    pub(super) end: usize,
    /// Whether a line was not written to its end.
    pub(super) is_torn: bool,
    /// Whether sectors of it are missing in front of others.
    pub(super) has_holes: bool,
    /// What it says that this version does not know.
    pub(super) foreign: Option<String>,
    /// What is wrong with it, in words.
    pub(super) damage: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    revision: u64,
    after: u64,
    written: u64,
    put: &'a [Vip],
    removed: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Value>,
}

/// The line of a change that is made now.
pub(super) fn line(change: &Change, after: u64) -> io::Result<Vec<u8>> {
    let Change { revision, put, removed, resources } = change;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let written = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let resources = resources.as_ref().map(Resources::to_value).transpose()?;
    let line = Line { revision: *revision, after, written, put, removed, resources };
    sealed(&serde_json::to_vec(&line)?)
}

/// The line that keeps a revision from being given again.
pub(super) fn reservation(revision: u64) -> io::Result<Vec<u8>> {
    sealed(&serde_json::to_vec(&serde_json::json!({ "reserved": revision }))?)
}

fn sealed(json: &[u8]) -> io::Result<Vec<u8>> {
    let mut line = format!("crc32:{:08x} ", crc32(json)).into_bytes();
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
pub(super) fn parse(bytes: &[u8]) -> Contents {
    parse_from(bytes, 0)
}

/// Reads a journal, as far as it is whole, but for changes that lead to a revision that is `known` or to one before: these are
/// only seen to be whole.
pub(super) fn parse_from(bytes: &[u8], known: u64) -> Contents {
    let mut contents = Contents { known, ..Contents::default() };
    let Some((header, mut rest)) = bytes.split_at_checked(HEADER.len()) else {
        contents.damage = Some(NO_JOURNAL.into());
        return contents;
    };
    // Each line has a checksum of its own, so they hold also where what is before them does not.
    let head = (header != HEADER).then(|| NO_JOURNAL.to_owned());
    loop {
        contents.end = bytes.len() - rest.len();
        let text = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        let Some(line) = rest[..text].iter().position(|byte| *byte == b'\n') else {
            let is_whole = bytes.len().is_multiple_of(CHUNK);
            let tail = is_whole.then(|| tail(rest, contents.end));
            contents.damage = match tail {
                Some(Tail::Empty) => None,
                Some(Tail::Torn { has_holes }) => {
                    (contents.is_torn, contents.has_holes) = (true, has_holes);
                    if text > 0 {
                        // The byte that ends the line may be what is wrong.
                        let whole = read_line(&rest[..text - 1], &mut contents);
                        let _torn = whole.or_else(|_| read_line(&rest[..text], &mut contents));
                    }
                    None
                }
                Some(Tail::Damaged) | None => {
                    Some("its end is missing or is not as it was written".into())
                }
            };
            break;
        };
        match read_line(&rest[..line], &mut contents) {
            Ok(()) => {}
            Err(Flaw::Damage(why)) => {
                contents.damage = Some(why.into());
                break;
            }
            Err(Flaw::Foreign(why)) => {
                contents.foreign = Some(why);
                break;
            }
        }
        rest = &rest[line + 1..];
    }
    contents.damage = head.or(contents.damage);
    contents
}

/// What is behind the last whole line.
enum Tail {
    /// Nothing.
    Empty,
    /// A line of which not all was written: its end, or sectors in front of others, too.
    Torn { has_holes: bool },
    /// Something else.
    Damaged,
}

/// What is behind the last whole line, which ends at `from`. Of one line that was being written any sectors may be there,
/// the last of them in part.
fn tail(rest: &[u8], from: usize) -> Tail {
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return Tail::Empty };
    // It has no room for a zero.
    if last + 1 == rest.len() {
        return Tail::Damaged;
    }
    let written = &rest[..last];
    let ends_within = written.contains(&b'\n');
    let (mut at, mut has_holes) = (0, false);
    while let Some(zero) = written[at..].iter().position(|byte| *byte == 0).map(|n| at + n) {
        let end = written[zero..].iter().position(|byte| *byte != 0).map_or(last, |n| zero + n);
        let begins = zero == 0 || (from + zero).is_multiple_of(SECTOR);
        if !begins || !(from + end).is_multiple_of(SECTOR) {
            return Tail::Damaged;
        }
        (at, has_holes) = (end, true);
    }
    if ends_within { Tail::Damaged } else { Tail::Torn { has_holes } }
}

/// Why a line says nothing.
enum Flaw {
    /// It is not as it was written.
    Damage(&'static str),
    /// It is, by an lbd that knows more.
    Foreign(String),
}

fn read_line(line: &[u8], contents: &mut Contents) -> Result<(), Flaw> {
    let sum = line.strip_prefix(b"crc32:").and_then(|line| line.split_at_checked(9));
    let Some((said, json)) = sum else { return Err(Flaw::Damage("a change has no checksum")) };
    if *said != *format!("{:08x} ", crc32(json)).as_bytes() {
        return Err(Flaw::Damage("the checksum of a change is not that of its content"));
    }
    if revision(json).is_some_and(|revision| revision <= contents.known) {
        return Ok(());
    }
    let value: Value =
        serde_json::from_slice(json).map_err(|error| Flaw::Foreign(error.to_string()))?;
    if let Some(reserved) = value.get("reserved").and_then(Value::as_u64) {
        contents.reserved = contents.reserved.max(reserved);
        return Ok(());
    }
    let record = document(&value, read).map_err(|mistakes| {
        let first = mistakes.first().map(|m| format!("{} {}", m.path, m.message));
        Flaw::Foreign(first.unwrap_or_default())
    })?;
    contents.records.push(record);
    Ok(())
}

/// The revision of a change, which is what its line begins with.
fn revision(json: &[u8]) -> Option<u64> {
    let rest = json.strip_prefix(b"{\"revision\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

fn read(cursor: &Cursor<'_>) -> Option<Record> {
    let record = cursor.object(&["revision", "after", "written", "put", "removed", "resources"])?;
    let number = |name| record.required(name)?.number(0..=u64::MAX);
    let (revision, after, written) = (number("revision"), number("after"), number("written"));
    let put = record.required("put")?.list(vip::read)?;
    let removed = record.required("removed")?.list(|name| name.text().map(str::to_owned))?;
    let resources = match record.field("resources") {
        None => None,
        Some(all) => Some(lists(&object_with_lists(&all, &[])?)?.into_iter().collect()),
    };
    let written = UNIX_EPOCH + Duration::from_millis(written?);
    Some(Record { revision: revision?, after: after?, written, put, removed, resources })
}

/// A journal that lines are added to.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    end: usize,
    len: usize,
    /// Whether it may say more than was kept.
    is_spoilt: bool,
}

impl Journal {
    /// Makes an empty one, which is on the disk but for its name.
    pub(super) fn begin(path: &Path) -> io::Result<Self> {
        Self::saying(HEADER, path)
    }

    fn saying(kept: &[u8], path: &Path) -> io::Result<Self> {
        super::may_lack(fs::remove_file(path))?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let mut journal = Self { file, end: kept.len(), len: 0, is_spoilt: false };
        journal.make_room(1)?;
        journal.file.write_all_at(kept, 0)?;
        journal.file.sync_all()?;
        Ok(journal)
    }

    /// Goes on with one that is whole up to `end`. A daemon that was killed may have left what is not on the disk yet.
    pub(super) fn resume(path: &Path, end: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        file.sync_all()?;
        Ok(Self { file, end, len, is_spoilt: false })
    }

    /// Has a copy that says what was kept take the place of one that is spoilt.
    pub(super) fn heal(&mut self, path: &Path, new: &Path, folder: &Path) -> io::Result<()> {
        if !self.is_spoilt {
            return Ok(());
        }
        let mut kept = vec![0; self.end];
        self.file.read_exact_at(&mut kept, 0)?;
        let copy = Self::saying(&kept, new)?;
        fs::rename(new, path)?;
        *self = Self { is_spoilt: true, ..copy };
        File::open(folder)?.sync_all()?;
        self.is_spoilt = false;
        Ok(())
    }

    /// Whether it may say more than was kept.
    pub(super) fn is_spoilt(&self) -> bool {
        self.is_spoilt
    }

    /// Bytes of what it says.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Has room for a line of this length and a zero; a full disk says so here.
    pub(super) fn make_room(&mut self, line: usize) -> io::Result<()> {
        let needed = (self.end + line + 1).next_multiple_of(CHUNK);
        if needed <= self.len {
            return Ok(());
        }
        let ample = needed.next_multiple_of(GROWTH);
        match self.grow(ample) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && ample > needed => {
                self.grow(needed)
            }
            outcome => outcome,
        }
    }

    /// The length is right at every moment: what is not written yet reads as zeros, too.
    fn grow(&mut self, len: usize) -> io::Result<()> {
        let grown = self.file.set_len(len as u64).and_then(|()| {
            let zeros = [0; CHUNK];
            (self.len..len)
                .step_by(CHUNK)
                .try_for_each(|at| self.file.write_all_at(&zeros, at as u64))
        });
        match grown {
            Ok(()) => self.len = len,
            Err(_) => self.file.set_len(self.len as u64)?,
        }
        grown
    }

    /// Adds a line: when this returns, a crash leaves it there; after an error it is not there, or this is spoilt.
    pub(super) fn add(&mut self, line: &[u8]) -> io::Result<()> {
        self.make_room(line.len())?;
        if let Err(error) = self.write(line) {
            self.is_spoilt = self.write(&vec![0; line.len()]).is_err();
            return Err(error);
        }
        self.end += line.len();
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end as u64)?;
        self.file.sync_data()
    }
}
