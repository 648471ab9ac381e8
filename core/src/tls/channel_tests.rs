//! Channels against a peer that seals whatever it likes: what the peer is told, and what goes on.

use std::future::poll_fn;
use std::time::Duration;

use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{CipherSuite, ProtocolVersion};

use super::*;
use crate::rt::{self, ConnectOptions, ListenOptions, ShardConfig, TcpListener};
use crate::tls::keys::{DATA, HEADER};

const TLS12: ProtocolVersion = ProtocolVersion::TLSv1_2;
const TLS13: ProtocolVersion = ProtocolVersion::TLSv1_3;
const LIMIT: Duration = Duration::from_secs(60);

/// The key of one direction.
fn key(version: ProtocolVersion, direction: u8) -> Key {
    let (key, iv) = (AeadKey::from([direction; 32]), Iv::from([direction; 12]));
    Key::new(version, (0, ConnectionTrafficSecrets::Aes256Gcm { key, iv })).unwrap()
}

/// A server's side, whose keys nobody can renew.
fn channel(version: ProtocolVersion, most: u64) -> Box<Channel> {
    let facts = Facts {
        version,
        suite: CipherSuite::TLS13_AES_256_GCM_SHA384,
        alpn: None,
        server_name: None,
        certificate: None,
        resumed: false,
        took: Duration::ZERO,
        peer: None,
        peer_text: std::cell::OnceCell::new(),
    };
    Channel::new(Parts {
        opening: key(version, 1),
        sealing: key(version, 2),
        most,
        renewal: Renewal::None,
        facts,
        owed: None,
        is_client: false,
    })
}

/// The other side.
struct Peer {
    tcp: TcpStream,
    sealing: Key,
    opening: Key,
}

impl Peer {
    async fn send(&mut self, records: &[(u8, &[u8])]) {
        let mut out = SendBuf::new();
        for (kind, text) in records {
            outgoing::append(&mut self.sealing, *kind, text, &mut out).unwrap();
        }
        self.tcp.send(out).await.unwrap();
    }

    /// All records until the end, by their kinds.
    async fn rest(&mut self) -> Vec<(u8, Vec<u8>)> {
        let (mut bytes, mut records) = (Vec::new(), Vec::new());
        while let Ok(Some(lease)) = self.tcp.recv().await {
            bytes.extend_from_slice(&lease);
        }
        while let Some(&[_, _, _, high, low]) = bytes.first_chunk::<HEADER>() {
            let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
            let mut record: Vec<u8> = bytes.drain(..len).collect();
            let (kind, text) = self.opening.open(&mut record).unwrap();
            records.push((kind, record[text].to_vec()));
        }
        assert!(bytes.is_empty());
        records
    }
}

/// Runs `test` with both sides of a connection.
fn with_peer<F>(version: ProtocolVersion, test: impl FnOnce(Peer, TcpStream) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let main = move || async move {
        let options = ListenOptions { backlog: 16, reuse_port: false };
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let at = listener.local_addr().unwrap();
        let tcp = TcpStream::connect(at, &ConnectOptions::default()).await.unwrap();
        let (inside, _) = listener.accept().await.unwrap();
        let peer = Peer { tcp, sealing: key(version, 1), opening: key(version, 2) };
        rt::timeout(LIMIT, test(peer, inside)).await.unwrap();
    };
    let shard = ShardConfig { name: "test".into(), ..ShardConfig::default() };
    rt::start_shard(shard, main).unwrap().join().unwrap();
}

async fn recv(channel: &Channel, tcp: &TcpStream) -> io::Result<Option<Lease>> {
    poll_fn(|cx| channel.poll_recv(tcp, cx)).await
}

async fn shut(channel: &Channel, tcp: &TcpStream) {
    poll_fn(|cx| channel.poll_shutdown_write(tcp, cx)).await.unwrap();
}

/// What the peer is told of these records, and how much text has come of them.
fn told(version: ProtocolVersion, records: &'static [(u8, &[u8])], alert: [u8; 2], texts: usize) {
    with_peer(version, move |mut peer, tcp| async move {
        let channel = channel(version, u64::MAX);
        peer.send(records).await;
        let mut len = 0;
        let error = loop {
            match recv(&channel, &tcp).await {
                Ok(Some(text)) => len += text.len(),
                Ok(None) => panic!("an end in order"),
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), len), (io::ErrorKind::InvalidData, texts), "{records:?} {error}");
        shut(&channel, &tcp).await;
        assert_eq!(peer.rest().await, [(ALERT, alert.to_vec())], "{records:?}");
    });
}

/// RFC 8446, 5.1, 5.4 and 6; RFC 5246, 7.2.2: what may not come, each with its alert.
#[test]
fn messages_out_of_place_are_told() {
    let (unexpected, garbled) = ([2, 10], [2, 50]);
    // A message that begins, and text or an alert before it goes on.
    told(TLS13, &[(HANDSHAKE, &[24, 0]), (DATA, b"x"), (HANDSHAKE, &[0, 1, 0])], unexpected, 0);
    told(TLS13, &[(DATA, b"xy"), (HANDSHAKE, &[24]), (ALERT, &[1, 0])], unexpected, 2);
    // A message that is longer than its kind ever is: nothing is kept of it.
    told(TLS13, &[(HANDSHAKE, &[24, 0, 0x7f, 0xff])], garbled, 0);
    told(TLS13, &[(HANDSHAKE, &[24, 0, 0, 0])], garbled, 0);
    told(TLS13, &[(HANDSHAKE, &[24, 0, 0, 1, 2])], garbled, 0);
    // Nothing may stand behind a key update; nothing but padding is no message.
    told(TLS13, &[(HANDSHAKE, &[24, 0, 0, 1, 0, 24])], unexpected, 0);
    told(TLS13, &[(HANDSHAKE, b"")], unexpected, 0);
    told(TLS13, &[(ALERT, b"")], unexpected, 0);
    told(TLS13, &[(ALERT, &[2])], garbled, 0);
    // What only clients, or only servers, or only other versions send.
    told(TLS13, &[(HANDSHAKE, &[1, 0, 0, 0])], [1, 100], 0);
    told(TLS12, &[(HANDSHAKE, &[1, 0, 0, 0])], [1, 100], 0);
    told(TLS13, &[(HANDSHAKE, &[4, 0, 0, 0])], unexpected, 0);
    told(TLS12, &[(HANDSHAKE, &[0, 0, 0, 0])], unexpected, 0);
    told(TLS12, &[(HANDSHAKE, &[24, 0, 0, 1, 0])], unexpected, 0);
    told(TLS12, &[(20, &[1])], unexpected, 0);
}

/// A connection is not idle within a record: what follows would be taken for the answer to whatever
/// is asked next.
#[test]
fn a_record_that_has_begun_is_an_event() {
    with_peer(TLS13, |mut peer, tcp| async move {
        let channel = channel(TLS13, u64::MAX);
        let mut out = SendBuf::new();
        for text in [&b"answer"[..], b"unasked"] {
            outgoing::append(&mut peer.sealing, DATA, text, &mut out).unwrap();
        }
        let most = out.len() - 20;
        let rest = out.split_off(most);
        peer.tcp.send(out).await.unwrap();
        assert_eq!(recv(&channel, &tcp).await.unwrap().as_deref(), Some(&b"answer"[..]));
        assert!(channel.has_event());
        let mut out = SendBuf::new();
        out.extend_from_slice(&rest);
        peer.tcp.send(out).await.unwrap();
        assert_eq!(recv(&channel, &tcp).await.unwrap().as_deref(), Some(&b"unasked"[..]));
        assert!(!channel.has_event());
    });
}

/// More than a socket takes.
static TEXT: [u8; 8 << 20] = [7; 8 << 20];

/// An alert that finds a send under way leaves behind it, also when our side then ends.
#[test]
fn an_alert_waits_and_is_not_lost_by_the_end() {
    with_peer(TLS13, |mut peer, tcp| async move {
        let channel = channel(TLS13, u64::MAX);
        poll_fn(|cx| channel.poll_send_ready(&tcp, cx)).await.unwrap();
        channel.post(&tcp, TEXT[..].into()).unwrap();
        peer.send(&[(HANDSHAKE, b"")]).await;
        assert!(recv(&channel, &tcp).await.is_err());
        assert!(!tcp.may_post(), "the peer has read nothing yet");
        rt::spawn(async move { shut(&channel, &tcp).await });
        let records = peer.rest().await;
        let (last, before) = records.split_last().unwrap();
        assert_eq!((last.0, last.1.len()), (ALERT, 2), "the last record");
        assert_eq!(last.1, [2, 10]);
        assert_eq!(before.iter().map(|(_, text)| text.len()).sum::<usize>(), TEXT.len());
    });
}

/// RFC 5246 knows no other key: when the one there is has done its time the connection ends, and
/// the peer is told in its own words.
#[test]
fn a_worn_out_key_of_tls12_ends_in_order() {
    with_peer(TLS12, |mut peer, tcp| async move {
        let channel = channel(TLS12, KEY_RESERVE + 2);
        for left in [2, 1, 0] {
            poll_fn(|cx| channel.poll_send_ready(&tcp, cx)).await.unwrap();
            let posted = channel.post(&tcp, (&b"x"[..]).into());
            assert_eq!(posted.is_ok(), left > 0);
        }
        shut(&channel, &tcp).await;
        let expected = [(DATA, b"x".to_vec()), (DATA, b"x".to_vec()), (ALERT, vec![1, 0])];
        assert_eq!(peer.rest().await, expected);
    });
}

/// The last text, be it in a buffer or in the lease that it came in, takes close_notify and the FIN
/// along in its segment; nothing can follow.
#[test]
fn the_last_text_takes_the_end_along() {
    for (version, in_lease) in [(TLS12, false), (TLS12, true), (TLS13, false), (TLS13, true)] {
        with_peer(version, move |mut peer, tcp| async move {
            let channel = channel(version, u64::MAX);
            peer.send(&[(DATA, b"text")]).await;
            let text = recv(&channel, &tcp).await.unwrap().unwrap();
            let before = peer.tcp.tcp_info().unwrap().segments_in;
            let text = if in_lease { text.into() } else { Payload::from(&b"text"[..]) };
            channel.post_last(&tcp, text).unwrap();
            poll_fn(|cx| channel.poll_send_ready(&tcp, cx)).await.unwrap();
            let more = channel.post(&tcp, (&b"more"[..]).into());
            assert_eq!(more.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            shut(&channel, &tcp).await;
            assert_eq!(peer.rest().await, [(DATA, b"text".to_vec()), (ALERT, vec![1, 0])]);
            assert_eq!(peer.tcp.tcp_info().unwrap().segments_in - before, 1);
        });
    }
}
