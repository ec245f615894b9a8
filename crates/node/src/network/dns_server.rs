//! DNS over UDP and TCP for a network, and the forwarding of questions to the host's resolvers.
//!
//! Questions are few and small, so each is answered on its own task; how many at once, how often one guest may ask
//! and how long the outside may take are bounded. Forwarded questions leave by sockets in the host's namespace
//! with a fresh port and a fresh id each, so that no one on the way can guess them.

use crate::network::{
    directory::Directory,
    dns::{self, Outcome},
    limit::{Rate, RateLimit},
    sockets::{DatagramSocket, Reply, connect_udp, tcp_socket},
};
use hickory_proto::op::Message;
use model::id::NetworkId;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use sys::netns::NetNs;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

/// Port of DNS.
pub const PORT: u16 = 53;
/// Questions of one network under way at once.
const QUESTIONS_MAX: usize = 256;
/// TCP connections of one network at once.
const CONNECTIONS_MAX: usize = 64;
/// Questions on one TCP connection.
const QUESTIONS_PER_CONNECTION_MAX: usize = 100;
/// How long a TCP client may stay silent.
const IDLE: Duration = Duration::from_secs(10);
/// How long one resolver may take.
const UPSTREAM: Duration = Duration::from_secs(2);
/// Resolvers that are asked one after the other.
const RESOLVERS_MAX: usize = 3;
/// Questions of one guest: bursts of 200, then 100 a second.
const RATE: Rate = Rate { burst: 200.0, per_second: 100.0 };

/// Where questions about the outside go.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Namespace in which the resolvers are reached: the host's.
    pub host: Arc<NetNs>,
    /// The resolvers, in order.
    pub resolvers: Vec<SocketAddr>,
}

impl Upstream {
    /// Resolvers of a resolv.conf text, at most three, as the C library reads it (resolv.conf(5)).
    pub fn parse(text: &str) -> Vec<SocketAddr> {
        text.lines()
            .filter_map(|line| {
                line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse::<IpAddr>().ok()
            })
            .map(|address| SocketAddr::new(address, PORT))
            .take(RESOLVERS_MAX)
            .collect()
    }

    async fn ask(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let id: u16 = rand::random();
        let mut sent = question.to_vec();
        sent.get_mut(..2)?.copy_from_slice(&id.to_be_bytes());
        for resolver in self.resolvers.iter().take(RESOLVERS_MAX) {
            let asked = async {
                if tcp { self.ask_tcp(*resolver, &sent).await } else { self.ask_udp(*resolver, &sent).await }
            };
            if let Ok(Ok(mut answer)) = timeout(UPSTREAM, asked).await {
                answer[..2].copy_from_slice(&question[..2]);
                return Some(answer);
            }
        }
        None
    }

    async fn ask_udp(&self, resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let socket = connect_udp(&self.host, resolver)?;
        socket.send(question).await?;
        let mut buffer = vec![0u8; 4096];
        loop {
            let length = socket.recv(&mut buffer).await?;
            // Anything else is a late or forged answer; the timeout ends the wait.
            if answers(question, &buffer[..length]) {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }

    async fn ask_tcp(&self, resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = tcp_socket(&self.host, resolver)?.connect(resolver).await?;
        write_framed(&mut stream, question).await?;
        let answer = read_framed(&mut stream).await?;
        if answers(question, &answer) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

/// Whether `answer` is a response with the id and the question of `question`.
fn answers(question: &[u8], answer: &[u8]) -> bool {
    if answer.len() < 12 || answer[..2] != question[..2] || answer[2] & 0x80 == 0 {
        return false;
    }
    match (Message::from_vec(question), Message::from_vec(answer)) {
        (Ok(q), Ok(a)) => q.queries.first().zip(a.queries.first()).is_some_and(|(q, a)| {
            q.query_type() == a.query_type()
                && q.query_class() == a.query_class()
                && q.name().eq_ignore_root(a.name())
        }),
        _ => false,
    }
}

/// What all questions of one network share.
#[derive(Clone)]
pub struct DnsServer {
    network: NetworkId,
    directory: Arc<dyn Directory>,
    upstream: Upstream,
    questions: Arc<Semaphore>,
    limit: Arc<Mutex<RateLimit<IpAddr>>>,
}

impl DnsServer {
    /// A server for `network`.
    pub fn new(network: NetworkId, directory: Arc<dyn Directory>, upstream: Upstream) -> Self {
        Self {
            network,
            directory,
            upstream,
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            limit: Arc::new(Mutex::new(RateLimit::new(RATE))),
        }
    }

    fn may_ask(&self, peer: IpAddr) -> bool {
        self.limit.lock().unwrap_or_else(|e| e.into_inner()).take(peer, Instant::now())
    }

    /// The answer on the wire to a question on the wire.
    async fn answer(&self, question: &[u8], asker: IpAddr, tcp: bool) -> Option<Vec<u8>> {
        let message = match dns::decide(question, self.network, asker, &*self.directory) {
            Outcome::Drop => return None,
            Outcome::Answer(message) => *message,
            Outcome::Forward => match self.upstream.ask(question, tcp).await {
                Some(answer) => return Some(answer),
                None => dns::server_failure(question)?,
            },
        };
        let limit = if tcp {
            u16::MAX
        } else {
            Message::from_vec(question).map_or(dns::UDP_BYTES_PLAIN, |q| dns::udp_limit(&q))
        };
        dns::encode(&message, limit)
    }

    /// Serves UDP until the task is dropped.
    pub async fn serve_udp(self, socket: Arc<DatagramSocket>) -> io::Result<()> {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let datagram = socket.receive().await?;
            if !self.may_ask(datagram.peer.ip()) {
                continue;
            }
            // Beyond the bound questions are dropped: clients ask again.
            let Ok(permit) = self.questions.clone().try_acquire_owned() else {
                continue;
            };
            let (server, socket) = (self.clone(), socket.clone());
            tasks.spawn(async move {
                let _permit = permit;
                let Some(bytes) = server.answer(&datagram.bytes, datagram.peer.ip(), false).await else {
                    return;
                };
                let is_link_local = matches!(datagram.peer.ip(), IpAddr::V6(a) if a.is_unicast_link_local());
                let device_index = if is_link_local { datagram.device_index } else { 0 };
                let reply =
                    Reply { bytes: &bytes, to: datagram.peer, from: Some(datagram.local), device_index };
                if let Err(error) = socket.send(reply).await {
                    tracing::debug!(network = %server.network, %error, "DNS answer was not sent");
                }
            });
        }
    }

    /// Serves TCP until the task is dropped.
    pub async fn serve_tcp(self, listener: TcpListener) -> io::Result<()> {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(permit) = connections.clone().acquire_owned().await else {
                return Ok(());
            };
            let (stream, peer) = crate::network::servers::accept(&listener).await;
            let server = self.clone();
            tasks.spawn(async move {
                let _permit = permit;
                let _ = server.converse(stream, peer.ip()).await;
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream, peer: IpAddr) -> io::Result<()> {
        for _ in 0..QUESTIONS_PER_CONNECTION_MAX {
            let question = timeout(IDLE, read_framed(&mut stream)).await??;
            if !self.may_ask(peer) {
                break;
            }
            let Ok(_permit) = self.questions.clone().try_acquire_owned() else {
                break;
            };
            let Some(answer) = self.answer(&question, peer, true).await else {
                break;
            };
            timeout(IDLE, write_framed(&mut stream, &answer)).await??;
        }
        Ok(())
    }
}

/// Reads a message behind its two bytes of length (RFC 1035, section 4.2.2).
async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
