//! Tells whoever started the daemon that it answers, and that it stops: the datagrams of `sd_notify(3)`.
//!
//! With `Type=notify` in its unit, `systemctl start holm` returns when the next command is answered, and units that come
//! after it find it ready. Nothing is said where nobody asked; nothing depends on being heard.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// Where systemd listens: a path, or an abstract name after `@`.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// How long the daemon's own end takes at most.
const STOP_MAX: Duration = Duration::from_secs(60);

/// The daemon answers.
pub fn ready() {
    say("READY=1\n");
}

/// The daemon ends by itself from here on, and needs `more` time for that than others.
pub fn stopping(more: Duration) {
    let usual = "STOPPING=1\n".to_string();
    let words = match more {
        Duration::ZERO => usual,
        more => format!("{usual}EXTEND_TIMEOUT_USEC={}\n", (more + STOP_MAX).as_micros()),
    };
    say(&words);
}

fn say(words: &str) {
    let Some(address) = std::env::var_os(VARIABLE) else { return };
    if let Err(error) = send(&address, words) {
        tracing::warn!(%error, "{VARIABLE} is set, and nobody hears there");
    }
}

fn send(address: &OsStr, words: &str) -> io::Result<()> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_paths_and_abstract_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let abstract_name = format!("holm-notify-{:x}", rand::random::<u64>());
        let listeners = [
            (path.clone().into_os_string(), SocketAddr::from_pathname(&path).unwrap()),
            (format!("@{abstract_name}").into(), SocketAddr::from_abstract_name(&abstract_name).unwrap()),
        ];
        for (variable, address) in listeners {
            let listener = UnixDatagram::bind_addr(&address).unwrap();
            send(&variable, "READY=1\n").unwrap();
            let mut heard = [0; 64];
            let length = listener.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1\n");
        }
        assert!(send(OsStr::new("/nonexistent/notify"), "READY=1\n").is_err());
    }
}
