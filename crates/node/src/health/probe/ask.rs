//! Questions by the network that wait for their answer: for a process of its own, which has no runtime.

use super::{network::request, tls};
use model::health::probe::Action;
use rustls::{ClientConnection, StreamOwned};
use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

/// Most bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: usize = 1024;

/// Asks, as hooks do: a connection is enough, and by HTTP any answer is.
///
/// # Errors
/// Nobody answered so, in words.
pub(crate) fn asked(action: &Action, address: IpAddr, limit: Duration) -> Result<(), String> {
    let failed = |what: &str| {
        let what = what.to_string();
        move |error: io::Error| format!("{what}: {error}")
    };
    let connect = |port: u16| {
        let to = SocketAddr::new(address, port);
        let stream = TcpStream::connect_timeout(&to, limit).map_err(failed(&format!("connect to {to}")))?;
        let timeout = Some(limit);
        stream
            .set_read_timeout(timeout)
            .and_then(|()| stream.set_write_timeout(timeout))
            .map_err(failed("ask"))?;
        Ok::<_, String>(stream)
    };
    match action {
        Action::Tcp { port } => connect(*port).map(drop),
        Action::Http { port, path, headers, tls: is_tls } => {
            let (stream, text) = (connect(*port)?, request(path, headers));
            let answered = match is_tls {
                false => answers(stream, &text),
                true => ClientConnection::new(tls::unverified(), tls::name(address))
                    .map_err(io::Error::other)
                    .and_then(|session| answers(StreamOwned::new(session, stream), &text)),
            };
            answered.map_err(failed("no answer"))
        }
        Action::Exec { .. } | Action::Grpc { .. } => Err("this is not asked by the network".into()),
    }
}

fn answers(mut stream: impl Read + Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()?;
    let (mut line, mut buffer) = (Vec::new(), [0; ANSWER_BYTES_MAX]);
    while line.len() < ANSWER_BYTES_MAX && !line.contains(&b'\n') {
        match stream.read(&mut buffer)? {
            0 => break,
            length => line.extend_from_slice(&buffer[..length]),
        }
    }
    match line.starts_with(b"HTTP/1.") {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is not by HTTP/1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{Ipv4Addr, TcpListener},
        thread,
    };

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// Serves one connection, and gives the port.
    fn serve(answer: &'static str) -> (u16, thread::JoinHandle<String>) {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            let mut buffer = [0; 1024];
            while !asked.contains("\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(length) if length > 0 => asked.push_str(&String::from_utf8_lossy(&buffer[..length])),
                    _ => break,
                }
            }
            let _ = stream.write_all(answer.as_bytes());
            asked
        });
        (port, served)
    }

    #[test]
    fn any_answer_by_http_is_one() {
        let limit = Duration::from_secs(20);
        for (answer, is_good) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.0 500 No\r\n\r\n", true),
            ("SSH-2.0-x\r\n", false),
            ("", false),
        ] {
            let (port, served) = serve(answer);
            let page = Action::Http { port, path: "/stop?a=b".into(), headers: vec![], tls: false };
            assert_eq!(asked(&page, HERE, limit).is_ok(), is_good, "{answer:?}");
            assert!(served.join().unwrap().starts_with("GET /stop?a=b HTTP/1.1\r\n"));
        }
        let (port, served) = serve("");
        assert_eq!(asked(&Action::Tcp { port }, HERE, limit), Ok(()));
        served.join().unwrap();
        let closed = TcpListener::bind((HERE, 0)).unwrap().local_addr().unwrap().port();
        assert!(
            asked(&Action::Tcp { port: closed }, HERE, limit).unwrap_err().contains("connect to 127.0.0.1")
        );
    }
}
