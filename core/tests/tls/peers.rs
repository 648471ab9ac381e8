//! Streams against rustls itself: key updates, ends in order and ends that are none.

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use rustls::Error::AlertReceived;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::{AlertDescription, ClientConnection, StreamOwned};
use weir_core::rt;
use weir_core::tls::{self, Server, Stream};

use crate::keys::{NAME, configs_of};
use crate::support::{DEADLINE, listener, on_shard};

type Peer = StreamOwned<ClientConnection, std::net::TcpStream>;

/// Runs `client` on a thread against `serve` on a shard.
fn with_rustls<F>(
    client: impl FnOnce(&mut Peer) + Send + 'static,
    serve: impl FnOnce(Stream) -> F + Send + 'static,
) where
    F: Future<Output = ()>,
{
    let (server, settings) = configs_of(ALL_CIPHER_SUITES);
    let server = Server::new(server, DEADLINE);
    on_shard(move || async move {
        let (listener, address) = listener();
        let peer = thread::spawn(move || client(&mut connected(settings, address)));
        let (tcp, _) = listener.accept().await.unwrap();
        serve(tls::accept(tcp, &server).await.unwrap()).await;
        // The thread may still wait for what this shard has to send.
        while !peer.is_finished() {
            rt::yield_now().await;
        }
        peer.join().unwrap();
    });
}

fn connected(settings: rustls::ClientConfig, address: SocketAddr) -> Peer {
    let tcp = std::net::TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    let name = NAME.try_into().unwrap();
    let mut peer = StreamOwned::new(ClientConnection::new(Arc::new(settings), name).unwrap(), tcp);
    peer.conn.complete_io(&mut peer.sock).unwrap();
    peer
}

async fn echo(stream: Stream) {
    while let Some(lease) = stream.recv().await.unwrap() {
        poll_fn(|cx| stream.poll_send_ready(cx)).await.unwrap();
        stream.post(lease).unwrap();
    }
    poll_fn(|cx| stream.poll_shutdown_write(cx)).await.unwrap();
}

/// RFC 8446, 5.1: a handshake message may be cut into records anyhow, within its version too.
#[test]
fn a_hello_in_many_records_is_understood() {
    for size in [1, 2, 5, 6, 7, 100] {
        let (server, settings) = configs_of(ALL_CIPHER_SUITES);
        let server = Server::new(server, DEADLINE);
        on_shard(move || async move {
            let (listener, address) = listener();
            let peer = thread::spawn(move || {
                let mut tcp = std::net::TcpStream::connect(address).unwrap();
                tcp.set_read_timeout(Some(DEADLINE)).unwrap();
                let name = NAME.try_into().unwrap();
                let mut conn = ClientConnection::new(Arc::new(settings), name).unwrap();
                let mut hello = Vec::new();
                conn.write_tls(&mut hello).unwrap();
                let pieces = hello[5..].chunks(size);
                let cut = pieces.flat_map(|piece| {
                    [&[22, 3, 1], &(piece.len() as u16).to_be_bytes()[..], piece].concat()
                });
                tcp.write_all(&cut.collect::<Vec<u8>>()).unwrap();
                conn.complete_io(&mut tcp).unwrap();
                conn.send_close_notify();
                conn.complete_io(&mut tcp).unwrap();
            });
            let (tcp, _) = listener.accept().await.unwrap();
            let stream = tls::accept(tcp, &server).await.unwrap();
            assert!(stream.recv().await.unwrap().is_none(), "{size}");
            while !peer.is_finished() {
                rt::yield_now().await;
            }
            peer.join().unwrap();
        });
    }
}

/// RFC 8446, 4.6.3: the peer changes its keys and asks for ours to be changed.
#[test]
fn keys_are_changed_when_the_peer_asks() {
    let client = |peer: &mut Peer| {
        for n in 0..100_u8 {
            peer.conn.refresh_traffic_keys().unwrap();
            peer.write_all(&[n; 3_000]).unwrap();
            let mut back = [0; 3_000];
            peer.read_exact(&mut back).unwrap();
            assert_eq!(back, [n; 3_000]);
        }
        peer.conn.send_close_notify();
        peer.flush().unwrap();
        // The other side says its end, too.
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    };
    with_rustls(client, echo);
}

/// Key updates and nothing else, without end.
#[test]
fn a_flood_of_key_updates_ends_the_connection() {
    let client = |peer: &mut Peer| {
        for _ in 0..100 {
            peer.conn.refresh_traffic_keys().unwrap();
            let _closed = peer.flush();
        }
        let error = loop {
            assert!(peer.conn.read_tls(&mut peer.sock).unwrap() > 0, "no alert");
            if let Err(error) = peer.conn.process_new_packets() {
                break error;
            }
        };
        assert_eq!(error, AlertReceived(AlertDescription::UnexpectedMessage));
    };
    with_rustls(client, |stream| async move {
        let error = stream.recv().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        // The same for good, and nothing can be sent any more.
        assert!(stream.recv().await.is_err());
        assert!(stream.post(&b"x"[..]).is_err());
        stream.close_lingering(1 << 20, DEADLINE).await;
    });
}

/// RFC 8446, 6.1: a FIN alone may be anybody's.
#[test]
fn an_end_without_close_notify_is_a_cut() {
    let client = |peer: &mut Peer| {
        peer.write_all(b"all of it?").unwrap();
        peer.sock.shutdown(std::net::Shutdown::Write).unwrap();
    };
    with_rustls(client, |stream| async move {
        assert_eq!(stream.recv().await.unwrap().as_deref(), Some(&b"all of it?"[..]));
        assert_eq!(stream.recv().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    });
}
