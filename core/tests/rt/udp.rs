//! UDP sockets: datagrams arrive whole or marked, with the address that was asked; errors name
//! their peer; a flood, a full socket and a misbehaving ring lose datagrams, never more than that.
//! What R6.5-1 and the UDP flow table stand on.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use weir_core::rt::{self, Arrival, Datagram, FaultPlan, Refusal, SendBuf, UdpOptions, UdpSocket};

use crate::support::{DEADLINE, on_faulty_shard, on_shard};

fn socket(addr: &str) -> (UdpSocket, SocketAddr) {
    let options = UdpOptions { errors: true, ..UdpOptions::default() };
    let socket = UdpSocket::bind(addr.parse().unwrap(), options).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

fn bytes(content: &[u8]) -> SendBuf {
    let mut buf = SendBuf::new();
    buf.extend_from_slice(content);
    buf
}

async fn arrival(socket: &UdpSocket) -> Arrival {
    rt::timeout(DEADLINE, socket.recv()).await.expect("nothing arrives").unwrap()
}

async fn datagram(socket: &UdpSocket) -> Datagram {
    match arrival(socket).await {
        Arrival::Datagram(datagram) => datagram,
        Arrival::Refused(refusal) => panic!("{refusal:?}"),
    }
}

async fn refusal(socket: &UdpSocket) -> Refusal {
    match arrival(socket).await {
        Arrival::Refused(refusal) => refusal,
        Arrival::Datagram(datagram) => panic!("{datagram:?}"),
    }
}

/// Waits for a datagram for a moment only: it may have been lost.
async fn maybe(socket: &UdpSocket, limit: Duration) -> Option<Datagram> {
    match rt::timeout(limit, socket.recv()).await {
        Ok(Ok(Arrival::Datagram(datagram))) => Some(datagram),
        _ => None,
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 % 251) as u8).collect()
}

async fn echo(server: UdpSocket) {
    while let Ok(arrival) = server.recv().await {
        if let Arrival::Datagram(got) = arrival {
            server.send(got.data, got.peer, Some(got.local));
        }
    }
}

/// Empty ones, and the longest that each family has, there and back as they were.
#[test]
fn datagrams_of_every_length_come_back_whole() {
    on_shard(|| async {
        for (any, longest) in [("127.0.0.1:0", 65_507), ("[::1]:0", 65_527)] {
            let (server, at) = socket(any);
            let server = rt::spawn(echo(server));
            let (client, _) = socket(any);
            for len in [0, 1, 512, 1_472, 4_096, 40_000, longest, 0, 3] {
                assert!(client.send(bytes(&pattern(len)), at, None));
                let back = datagram(&client).await;
                assert_eq!(back.data.len(), len);
                assert!(*back.data == *pattern(len) && !back.truncated);
                assert_eq!(back.peer, at);
            }
            server.abort();
        }
    });
}

/// Answers leave from the address that was asked, though the socket is bound to all of them.
#[test]
fn the_address_that_was_asked_answers() {
    on_shard(|| async {
        for (any, asked) in [("0.0.0.0:0", "127.9.9.9"), ("[::]:0", "::1")] {
            let (server, at) = socket(any);
            let server = rt::spawn(echo(server));
            let asked: IpAddr = asked.parse().unwrap();
            let (client, _) = socket(&SocketAddr::new(asked, 0).to_string());
            let to = SocketAddr::new(asked, at.port());
            client.send(bytes(b"who"), to, None);
            let back = datagram(&client).await;
            assert_eq!((back.peer, back.local), (to, asked));
            server.abort();
        }
    });
}

/// One socket, many peers: the error queue says which one is not there, and what goes to the others
/// is not lost with it.
#[test]
fn the_peer_that_refused_is_named() {
    on_shard(|| async {
        for (any, ip) in [("127.0.0.1:0", "127.0.7.7"), ("[::1]:0", "::1")] {
            let (server, live) = socket(any);
            let server = rt::spawn(echo(server));
            let bound = |_| socket(&SocketAddr::new(ip.parse().unwrap(), 0).to_string());
            let sockets: Vec<_> = (0..4).map(bound).collect();
            let dead: HashSet<SocketAddr> = sockets.iter().map(|(_, addr)| *addr).collect();
            drop(sockets);
            let (client, _) = socket(any);
            let (mut refused, mut answers) = (HashSet::new(), 0);
            for round in 0..20u8 {
                for to in &dead {
                    client.send(bytes(b"anybody"), *to, None);
                }
                client.send(bytes(&[round]), live, None);
                while answers <= u32::from(round) {
                    match arrival(&client).await {
                        Arrival::Datagram(back) => {
                            assert_eq!((&*back.data, back.peer), (&[round][..], live));
                            answers += 1;
                        }
                        Arrival::Refused(refusal) => {
                            assert_eq!(refusal.error, ErrorKind::ConnectionRefused);
                            refused.insert(refusal.peer);
                        }
                    }
                }
            }
            while refused.len() < dead.len() {
                refused.insert(refusal(&client).await.peer);
            }
            assert_eq!(refused, dead);
            server.abort();
        }
    });
}

#[test]
fn a_datagram_that_does_not_fit_is_marked() {
    let plan = FaultPlan { short_buffer: 1_000, ..FaultPlan::default() };
    on_faulty_shard(plan, || async {
        let (server, at) = socket("127.0.0.1:0");
        let (client, _) = socket("127.0.0.1:0");
        for (len, truncated) in [(9, true), (8, false), (60_000, true), (0, false)] {
            client.send(bytes(&pattern(len)), at, None);
            let got = datagram(&server).await;
            assert_eq!((got.truncated, got.data.len()), (truncated, len.min(8)));
        }
    });
}

#[test]
fn a_dropped_receive_loses_nothing() {
    on_shard(|| async {
        let (server, at) = socket("127.0.0.1:0");
        let (client, _) = socket("127.0.0.1:0");
        for n in 0..50u8 {
            drop(rt::timeout(Duration::from_micros(u64::from(n)), server.recv()).await);
            client.send(bytes(&[n]), at, None);
            assert_eq!(*datagram(&server).await.data, [n]);
        }
    });
}

/// More than a turn may carry is dropped and counted at once; the sockets beside it send on.
#[test]
fn a_full_socket_drops_and_holds_nobody_up() {
    on_shard(|| async {
        let (server, at) = socket("127.0.0.1:0");
        let (full, from) = socket("127.0.0.1:0");
        let (other, _) = socket("127.0.0.1:0");
        let taken = (0..1_500).filter(|_| full.send(&b"x"[..], at, None)).count();
        assert_eq!((taken, full.drops()), (1_024, 476));
        assert!(other.send(&b"y"[..], at, None));
        rt::yield_now().await;
        assert!(full.send(&b"z"[..], from, None), "there is room again");
        assert_eq!(*datagram(&full).await.data, *b"z");
        drop(server);
    });
}

/// What the kernel refuses (here: a source address that is not ours) is dropped and counted.
#[test]
fn a_refused_send_is_counted() {
    on_shard(|| async {
        let (server, at) = socket("127.0.0.1:0");
        let (client, _) = socket("0.0.0.0:0");
        let foreign: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(client.send(bytes(b"lost"), at, Some(foreign)));
        assert!(client.send(bytes(b"found"), at, None));
        assert_eq!(*datagram(&server).await.data, *b"found");
        let counted = async {
            while client.drops() == 0 {
                rt::yield_now().await;
            }
        };
        rt::timeout(DEADLINE, counted).await.unwrap();
        assert_eq!(client.drops(), 1);
    });
}

/// Nobody reads: the ring stops receiving, and what it holds stays few.
#[test]
fn a_flood_does_not_take_all_buffers() {
    on_shard(|| async {
        let (server, at) = socket("127.0.0.1:0");
        // Arms the receive.
        drop(rt::timeout(Duration::from_micros(1), server.recv()).await);
        let (client, _) = socket("127.0.0.1:0");
        for _ in 0..40 {
            for _ in 0..64 {
                client.send(&b"flood"[..], at, None);
            }
            rt::yield_now().await;
        }
        let held = rt::audit().leases;
        assert!((1..=512).contains(&held), "{held} held");
        // All that was held is handed out, and then it goes on.
        for _ in 0..held {
            datagram(&server).await;
        }
        let again = async {
            loop {
                client.send(&b"after"[..], at, None);
                let got = maybe(&server, Duration::from_millis(50)).await;
                if got.is_some_and(|got| *got.data == *b"after") {
                    return;
                }
            }
        };
        rt::timeout(DEADLINE, again).await.expect("it receives no more");
    });
}

/// A socket that goes while it receives and sends leaves nothing behind, and what was posted goes
/// out.
#[test]
fn a_dropped_socket_leaves_nothing_behind() {
    on_shard(|| async {
        let (server, at) = socket("127.0.0.1:0");
        for n in 0..30u8 {
            let (client, from) = socket("127.0.0.1:0");
            drop(rt::timeout(Duration::from_micros(1), client.recv()).await);
            server.send(&b"unread"[..], from, None);
            client.send(bytes(&[n]), at, None);
            drop(client);
            let got = loop {
                if let Arrival::Datagram(got) = arrival(&server).await {
                    break got;
                }
            };
            assert_eq!(*got.data, [n]);
        }
    });
}

/// Byte `n` of the datagram with this number.
fn byte(number: u32, n: usize) -> u8 {
    (u64::from(number).wrapping_add(n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn numbered(number: u32, len: usize) -> SendBuf {
    let mut buf = bytes(&number.to_le_bytes());
    buf.extend((4..len).map(|n| byte(number, n)));
    buf
}

fn number_of(data: &[u8]) -> u32 {
    let number = u32::from_le_bytes(data[..4].try_into().unwrap());
    assert!(data.iter().enumerate().skip(4).all(|(n, b)| *b == byte(number, n)), "{number}");
    number
}

/// A client asks one question after the other, again when an answer is lost; answers are whole, and
/// to questions that were asked.
async fn ask_all(at: SocketAddr, questions: u32, seed: u64) {
    let (client, _) = socket("127.0.0.1:0");
    for number in 0..questions {
        let len = 4 + (seed.wrapping_mul(u64::from(number) + 7) % 9_000) as usize;
        let asked = async {
            loop {
                client.send(numbered(number, len), at, None);
                while let Some(back) = maybe(&client, Duration::from_millis(40)).await {
                    assert!(!back.truncated && back.peer == at);
                    let answered = number_of(&back.data);
                    assert!(answered <= number);
                    if answered == number {
                        assert_eq!(back.data.len(), len);
                        return;
                    }
                }
            }
        };
        rt::timeout(DEADLINE, asked).await.expect("no answer");
    }
}

fn questions_with(faults: FaultPlan) {
    for seed in 1..3 {
        let plan = FaultPlan { seed, ..faults };
        println!("seed {seed}: {plan:?}");
        on_faulty_shard(plan, move || async move {
            let (server, at) = socket("127.0.0.1:0");
            let server = rt::spawn(echo(server));
            let done = Rc::new(Cell::new(0));
            for n in 0..20 {
                let done = Rc::clone(&done);
                rt::spawn(async move {
                    ask_all(at, 40, seed * 1_000 + n).await;
                    done.set(done.get() + 1);
                });
            }
            while done.get() < 20 {
                rt::sleep(Duration::from_millis(5)).await;
            }
            server.abort();
        });
    }
}

#[test]
fn answers_are_whole() {
    questions_with(FaultPlan::default());
}

#[test]
fn answers_survive_a_want_of_buffers() {
    questions_with(FaultPlan { starve: 700, ..FaultPlan::default() });
}

#[test]
fn answers_survive_cancellations_out_of_the_blue() {
    questions_with(FaultPlan { cancel: 300, ..FaultPlan::default() });
}

#[test]
fn answers_survive_ended_multishots() {
    questions_with(FaultPlan { end_multishot: 500, ..FaultPlan::default() });
}

#[test]
fn answers_survive_an_overflowing_completion_queue() {
    questions_with(FaultPlan { tiny_queue: true, ..FaultPlan::default() });
}

#[test]
fn answers_survive_everything_at_once() {
    questions_with(FaultPlan {
        starve: 200,
        cancel: 100,
        end_multishot: 200,
        tiny_queue: true,
        ..FaultPlan::default()
    });
}

/// Another process may receive by the very same socket: what has arrived is handed out here, what
/// comes while the socket is held up waits for the other one, or for this one again.
#[test]
fn what_a_held_socket_gets_waits_for_who_goes_on() {
    on_shard(|| async {
        let (server, at) = socket("127.0.0.1:0");
        let (client, _) = socket("127.0.0.1:0");
        let send = |word: &[u8]| assert!(client.send(bytes(word), at, None));
        for word in [b"one", b"two"] {
            send(word);
            assert_eq!(*datagram(&server).await.data, word[..]);
        }
        let until_still = async |socket: &UdpSocket| {
            socket.hold();
            while !socket.is_still() {
                if let Some(got) = maybe(socket, Duration::from_millis(1)).await {
                    panic!("{got:?}");
                }
            }
        };
        until_still(&server).await;
        let same = std::os::fd::AsFd::as_fd(&server).try_clone_to_owned().unwrap();
        let other = UdpSocket::from_fd(same, true).unwrap();
        send(b"three");
        assert_eq!(*datagram(&other).await.data, b"three"[..]);
        until_still(&other).await;
        send(b"four");
        assert!(maybe(&server, Duration::from_millis(20)).await.is_none(), "nobody receives");
        server.go_on();
        assert_eq!(*datagram(&server).await.data, b"four"[..]);
    });
}

/// What the kernel's buffer has no room for is counted, by the socket that missed it.
#[test]
fn missed_datagrams_are_counted() {
    on_shard(|| async {
        let ((deaf, addr), (other, _)) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        assert_eq!(deaf.missed(), 0);
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let large = vec![7; 60_000];
        // More than any buffer holds that a socket can have here.
        for _ in 0..4_096 {
            sender.send_to(&large, addr).unwrap();
        }
        let missed = deaf.missed();
        assert!((1..4_096).contains(&missed), "{missed}");
        assert_eq!(other.missed(), 0);
    });
}
