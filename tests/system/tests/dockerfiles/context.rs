//! Contexts of builds as the archives that clients send, and archives in them.

use super::case::{Entry, What};
use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// An archive of these entries. Names and owners are written as they are.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_mtime(1_600_000_000);
        header.set_size(0);
        let added = match &entry.what {
            What::File(content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, &entry.path, content.as_slice())
            }
            What::Archive(form, entries) => {
                let content = packed(form, archive(entries));
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, &entry.path, content.as_slice())
            }
            What::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, format!("{}/", entry.path), std::io::empty())
            }
            What::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, &entry.path, target)
            }
            What::Hardlink(target) => {
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, &entry.path, target)
            }
        };
        added.unwrap_or_else(|error| panic!("{}: {error}", entry.path));
    }
    builder.into_inner().expect("an archive")
}

/// Packs by the programs that people pack by.
pub fn packed(form: &str, plain: Vec<u8>) -> Vec<u8> {
    if form == "tar" {
        return plain;
    }
    if let Some(form) = form.strip_prefix("cut-") {
        let mut whole = packed(form, plain);
        whole.truncate(whole.len() - 10);
        return whole;
    }
    let mut command = Command::new(form);
    command.arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{form}: {error}"));
    let mut input = child.stdin.take().expect("its input");
    let writer = std::thread::spawn(move || input.write_all(&plain).expect("writes"));
    let output = child.wait_with_output().expect("its output");
    writer.join().expect("the writer");
    assert!(output.status.success(), "{form}");
    output.stdout
}
