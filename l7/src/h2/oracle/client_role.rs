//! Our client, and the other's server.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request as Received, Response};

use super::caller::{Call, Caller, Ending, Request};
use super::wire::Wire;
use super::{Chance, ROUNDS, Task, conversations, listed, map, poll_all};
use crate::h2::frame::Code;

fn request(chance: &mut Chance, most: usize) -> Request {
    let path = match chance.below(10) {
        0 => format!("/bytes/{}", chance.below(most)),
        1 => format!("/early/{}", chance.below(most)),
        2 => "/reset".to_owned(),
        3 => "/refuse".to_owned(),
        4 => "/interim".to_owned(),
        _ => "/echo".to_owned(),
    };
    Request {
        path,
        fields: chance.fields("x-"),
        body: chance.pieces(most).concat(),
        trailers: if chance.below(3) == 0 { chance.fields("t-") } else { Vec::new() },
        give_up: (chance.below(8) == 0).then(|| chance.below(most)),
    }
}

/// Sends bytes as the windows allow; false: the client has given the stream up.
async fn send(stream: &mut SendStream<Bytes>, mut rest: Bytes) -> bool {
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return false };
        if stream.send_data(rest.split_to(room.min(rest.len())), false).is_err() {
            return false;
        }
    }
    true
}

/// Sends the body back, and the trailers.
async fn echo(body: &mut RecvStream, stream: &mut SendStream<Bytes>) -> Option<HeaderMap> {
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        body.flow_control().release_capacity(piece.len()).ok()?;
        if !send(stream, piece).await {
            return None;
        }
    }
    body.trailers().await.ok()?
}

/// Answers as the path asks for.
async fn serve(received: Received<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, mut body) = received.into_parts();
    let path = head.uri.path().to_owned();
    if path == "/refuse" {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    if path == "/interim" {
        for status in [100, 103] {
            let interim = Response::builder().status(status).body(()).unwrap();
            respond.send_informational(interim).expect("an interim answer");
        }
    }
    let mut answer = Response::new(());
    answer.headers_mut().extend(map(&listed(&head.headers, "x-")));
    let Ok(mut stream) = respond.send_response(answer, false) else { return };
    let bytes = |prefix| Some(Bytes::from(vec![b'x'; path.strip_prefix(prefix)?.parse().ok()?]));
    if let Some(bytes) = bytes("/early/") {
        send(&mut stream, bytes).await;
    } else if let Some(bytes) = bytes("/bytes/") {
        while let Some(Ok(piece)) = body.data().await {
            let _it_is_gone = body.flow_control().release_capacity(piece.len());
        }
        send(&mut stream, bytes).await;
    } else if path == "/reset" {
        let _a_piece_or_the_end = body.data().await;
        return stream.send_reset(Reason::INTERNAL_ERROR);
    } else if let Some(trailers) = echo(&mut body, &mut stream).await {
        let _it_is_gone = stream.send_trailers(trailers);
        return;
    }
    let _it_is_gone = stream.send_data(Bytes::new(), true);
}

/// What both ends of a conversation say to each other.
#[derive(Default)]
struct Shared {
    tasks: RefCell<Vec<Task>>,
    drain: Cell<bool>,
    over: Cell<bool>,
}

async fn listen(io: Wire, mut chance: Chance, shared: Rc<Shared>) {
    let mut connection = server::Builder::new()
        .initial_window_size(chance.of(&[10, 100, 16_384, 65_535, 1_000_000]))
        .initial_connection_window_size(chance.of(&[65_535, 70_000, 2_000_000]))
        .max_frame_size(chance.of(&[16_384, 100_000]))
        .header_table_size(chance.of(&[0, 100, 4_096, 65_536]))
        .max_concurrent_streams(chance.of(&[1, 3, 100, 1_000]))
        .handshake::<_, Bytes>(io)
        .await
        .unwrap();
    loop {
        let next = poll_fn(|cx| {
            if shared.drain.take() {
                connection.graceful_shutdown();
            }
            connection.poll_accept(cx)
        });
        match next.await {
            Some(Ok((received, respond))) => {
                shared.tasks.borrow_mut().push(Box::pin(serve(received, respond)));
            }
            Some(Err(error)) => return assert!(shared.over.get(), "{error}"),
            None => return,
        }
    }
}

fn check(call: &Call, draining: bool) {
    let request = &call.request;
    let refused = Ending::Reset { code: Code::REFUSED, unprocessed: true };
    let ending = call.ending.unwrap();
    match (request.path.as_str(), ending) {
        (_, Ending::GivenUp) => assert!(request.give_up.is_some()),
        ("/refuse", ending) if ending == refused => {}
        ("/reset", Ending::Reset { code: Code::INTERNAL, unprocessed: false }) => {}
        (_, ending) if draining && (ending == Ending::Refused || ending == refused) => {}
        (path, Ending::InFull) => {
            assert_eq!(call.status, 200);
            assert_eq!(call.fields, listed(&map(&request.fields), "x-"));
            assert_eq!(call.interim, if path == "/interim" { 2 } else { 0 });
            let count = ["/bytes/", "/early/"].into_iter().find_map(|p| path.strip_prefix(p));
            if let Some(count) = count {
                assert_eq!(call.body.len(), count.parse::<usize>().unwrap());
            } else {
                assert_eq!(call.body, request.body);
                assert_eq!(call.trailers, listed(&map(&request.trailers), "t-"));
            }
        }
        (path, ending) => panic!("{path}: {ending:?}"),
    }
}

fn conversation(seed: u64) {
    let mut chance = Chance(seed);
    let wire = Wire::new(&mut chance);
    let shared = Rc::new(Shared::default());
    let start = listen(wire.clone(), chance.split(), shared.clone());
    let mut running: Vec<Task> = vec![Box::pin(start)];
    let requests = (0..1 + chance.below(20)).map(|_| request(&mut chance, wire.most().min(20_000)));
    let mut caller = Caller::new(requests.collect(), chance.split());
    let drain_at = if chance.below(3) == 0 { chance.below(300) } else { usize::MAX };
    let mut round = 0;
    while !caller.is_done() {
        round += 1;
        assert!(round < ROUNDS, "it does not end");
        shared.drain.set(round == drain_at);
        poll_all(&mut running);
        running.append(&mut shared.tasks.borrow_mut());
        caller.feed(&wire.take());
        assert_eq!(caller.ended, None);
        caller.pump();
        wire.give(&mut caller.out);
    }
    shared.over.set(true);
    wire.close();
    caller.calls.iter().for_each(|call| check(call, round >= drain_at));
    // An answer may be whole before its request is; what is left of that is given up here.
    poll_all(&mut running);
}

#[test]
fn our_client_and_another_server_agree() {
    conversations(conversation);
}
