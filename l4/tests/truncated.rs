//! Datagrams that are longer than their buffer: they are counted and go nowhere, neither short nor
//! whole. The kernel's own limit can't be passed by real datagrams, so the ring has short buffers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

#[allow(dead_code, reason = "made for the runtime's tests")]
#[path = "../../core/tests/rt/support.rs"]
mod support;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use support::{DEADLINE, on_faulty_shard};
use weir_core::control::State;
use weir_core::model::{self, Config, Handles, Protocol};
use weir_core::obs::{Board, DatagramDrop};
use weir_core::rt::{self, Arrival, Datagram, FaultPlan, UdpOptions, UdpSocket};
use weir_core::table::{Site, View};
use weir_core::time::clock;
use weir_l4::Udp;

fn socket() -> (Rc<UdpSocket>, SocketAddr) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = Rc::new(UdpSocket::bind(any, UdpOptions::default()).unwrap());
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

async fn datagram(socket: &UdpSocket) -> Datagram {
    match rt::timeout(DEADLINE, socket.recv()).await.expect("nothing arrives").unwrap() {
        Arrival::Datagram(datagram) => datagram,
        Arrival::Refused(refusal) => panic!("{refusal:?}"),
    }
}

/// A listener with a pool of this member.
fn site(member: SocketAddr) -> Rc<Site> {
    let listener = model::Listener {
        name: "dns".into(),
        protocol: Protocol::Udp,
        default_pool: Some(0),
        keepalive_timeout: Duration::from_secs(60),
        ..model::Listener::default()
    };
    let pool = model::Pool {
        name: "app".into(),
        protocol: model::PoolProtocol::Udp,
        members: vec![model::Member {
            id: model::Id::from_u128(1),
            name: "a".into(),
            address: member,
            weight: 1,
        }],
        ..model::Pool::default()
    };
    let config = Config {
        balancers: vec![model::Balancer::default()],
        listeners: vec![listener],
        pools: vec![pool],
        ..Config::default()
    };
    let state = State::default().next(&config, &|_| vec![0], &mut Handles::default());
    let listeners: Vec<_> = state.listeners().map(|(handle, _)| handle).collect();
    let members: Vec<_> = state.members().map(|(_, member)| member.handle).collect();
    let board = Board::default().next(1, listeners.iter().copied(), members.into_iter());
    let view = View::new(0, 7);
    view.apply(&State::default().diff(&state), &Arc::new(board), clock::mono(), true);
    view.site(listeners[0]).unwrap()
}

/// Both ways: what is too long is dropped, of a client before it begins a flow; what fits goes on.
#[test]
fn what_is_too_long_goes_nowhere() {
    let plan = FaultPlan { short_buffer: 1_000, ..FaultPlan::default() };
    on_faulty_shard(plan, || async {
        let ((member, member_addr), (door, listener)) = (socket(), socket());
        let (site, udp) = (site(member_addr), Udp::start());
        udp.open(&site, door);
        let (client, _) = socket();
        let counted = |why| site.counters.datagrams.dropped(why);
        client.send(&b"too long!"[..], listener, None);
        client.send(&b"question"[..], listener, None);
        let question = datagram(&member).await;
        assert_eq!(*question.data, *b"question", "nothing came before it");
        assert_eq!((counted(DatagramDrop::Truncated), udp.active()), (1, 1));
        for answer in [&b"an answer that is too long"[..], b"answer"] {
            member.send(answer, question.peer, None);
        }
        let answer = datagram(&client).await;
        assert_eq!((&*answer.data, answer.truncated), (&b"answer"[..], false));
        assert_eq!((counted(DatagramDrop::Truncated), udp.active()), (2, 1));
        let datagrams = &site.counters.datagrams;
        assert_eq!((datagrams.received.get(), datagrams.sent.get()), (2, 1));
        // In a flow that there is, too; it goes on.
        client.send(&b"too long!"[..], listener, None);
        client.send(&b"again"[..], listener, None);
        let again = datagram(&member).await;
        assert_eq!((&*again.data, again.peer), (&b"again"[..], question.peer));
        assert_eq!((counted(DatagramDrop::Truncated), udp.active()), (3, 1));
        let others = DatagramDrop::ALL.iter().filter(|why| **why != DatagramDrop::Truncated);
        assert!(others.copied().all(|why| counted(why) == 0));
    });
}
