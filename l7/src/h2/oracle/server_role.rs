//! Our server, and the other's client.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};

use super::app::App;
use super::wire::Wire;
use super::{Chance, ROUNDS, Task, both, conversations, listed, map, poll_all};

/// What a request is to do.
#[derive(Clone)]
struct Plan {
    path: String,
    fields: Vec<(String, String)>,
    pieces: Vec<Vec<u8>>,
    trailers: Vec<(String, String)>,
    end: End,
}

/// How it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    InFull,
    /// The server resets it.
    ResetByServer,
    /// The client does, after so many pieces.
    ResetByClient(usize),
}

impl Plan {
    fn new(chance: &mut Chance, most: usize) -> Plan {
        let pieces = chance.pieces(most);
        let total: usize = pieces.iter().map(Vec::len).sum();
        let (path, end) = match chance.below(8) {
            0 => (format!("/bytes/{}", chance.below(most)), End::InFull),
            1 => (format!("/reset/{}", chance.below(total + 1)), End::ResetByServer),
            2 => ("/echo".to_owned(), End::ResetByClient(chance.below(pieces.len() + 1))),
            3 => ("/hold".to_owned(), End::ResetByClient(0)),
            _ => ("/echo".to_owned(), End::InFull),
        };
        let trailers = if chance.below(3) == 0 { chance.fields("t-") } else { Vec::new() };
        Plan { path, fields: chance.fields("x-"), pieces, trailers, end }
    }
}

fn sorted(fields: &[(String, String)]) -> Vec<(String, String)> {
    let mut fields = fields.to_vec();
    fields.sort();
    fields
}

/// Sends a body piece by piece, as the windows allow; what the server's reset cuts off is not sent.
async fn upload(mut stream: SendStream<Bytes>, plan: Plan) {
    let most = if let End::ResetByClient(n) = plan.end { n } else { usize::MAX };
    for piece in plan.pieces.iter().take(most) {
        let mut rest = Bytes::from(piece.clone());
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
            if stream.send_data(rest.split_to(room.min(rest.len())), false).is_err() {
                return;
            }
        }
    }
    if plan.end != End::InFull && most != usize::MAX {
        return stream.send_reset(Reason::CANCEL);
    }
    let _reset_by_the_server = if plan.trailers.is_empty() {
        stream.send_data(Bytes::new(), true)
    } else {
        stream.send_trailers(map(&plan.trailers))
    };
}

/// Reads the body and the trailers.
async fn download(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        whole.extend_from_slice(&piece);
    }
    Ok((whole, body.trailers().await?))
}

/// One request, from its head to its end.
async fn talk(send: SendRequest<Bytes>, plan: Plan, told: Rc<RefCell<Told>>) {
    let refused = || told.borrow_mut().refused += 1;
    let Ok(mut send) = send.ready().await else { return refused() };
    let mut request = Request::post(format!("https://site.example{}", plan.path)).body(()).unwrap();
    request.headers_mut().extend(map(&plan.fields));
    let Ok((answer, stream)) = send.send_request(request, false) else { return refused() };
    let check = async {
        let result = match answer.await {
            Ok(answer) => {
                let (head, mut body) = answer.into_parts();
                download(&mut body).await.map(|(body, trailers)| (head, body, trailers))
            }
            Err(error) => Err(error),
        };
        match (plan.end, result) {
            (End::InFull, Ok((head, body, trailers))) => {
                assert_eq!(listed(&head.headers, "x-"), sorted(&plan.fields));
                if let Some(count) = plan.path.strip_prefix("/bytes/") {
                    assert_eq!(body.len(), count.parse::<usize>().unwrap());
                } else {
                    assert_eq!(body, plan.pieces.concat());
                    let trailers = trailers.map(|map| listed(&map, "t-")).unwrap_or_default();
                    assert_eq!(trailers, sorted(&plan.trailers));
                }
                told.borrow_mut().answered += 1;
            }
            (End::ResetByServer, Err(error)) if error.is_reset() => {
                assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
                told.borrow_mut().reset += 1;
            }
            (End::ResetByClient(_), _) => told.borrow_mut().given_up += 1,
            (_, Err(error)) if error.is_go_away() => refused(),
            (_, result) => panic!("{}: {:?}", plan.path, result.map(|(head, ..)| head)),
        }
    };
    both(upload(stream, plan.clone()), check).await;
}

/// What has become of the requests.
#[derive(Debug, Default)]
struct Told {
    answered: usize,
    reset: usize,
    given_up: usize,
    refused: usize,
}

async fn connect(
    io: Wire,
    mut chance: Chance,
    tasks: Rc<RefCell<Vec<Task>>>,
    told: Rc<RefCell<Told>>,
) {
    let window = chance.of(&[1, 100, 16_384, 65_535, 1_000_000]);
    let most = io.most().min(1_000 * window as usize);
    let (send, connection) = client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(chance.of(&[65_535, 70_000, 2_000_000]))
        .max_frame_size(chance.of(&[16_384, 100_000]))
        .header_table_size(chance.of(&[0, 100, 4_096, 65_536]))
        .max_concurrent_streams(100)
        .enable_push(false)
        .handshake::<_, Bytes>(io)
        .await
        .unwrap();
    let mut tasks = tasks.borrow_mut();
    for _ in 0..1 + chance.below(20) {
        let plan = Plan::new(&mut chance, most);
        tasks.push(Box::pin(talk(send.clone(), plan, told.clone())));
    }
    tasks.push(Box::pin(async { connection.await.expect("the connection") }));
}

fn conversation(seed: u64) {
    let mut chance = Chance(seed);
    let wire = Wire::new(&mut chance);
    let (tasks, told) = (Rc::default(), Rc::new(RefCell::new(Told::default())));
    let start = connect(wire.clone(), chance.split(), Rc::clone(&tasks), told.clone());
    let mut running: Vec<Task> = vec![Box::pin(start)];
    let mut app = App::new();
    let drain_at = if chance.below(3) == 0 { chance.below(300) } else { usize::MAX };
    for round in 0.. {
        assert!(round < ROUNDS, "it does not end");
        poll_all(&mut running);
        running.append(&mut tasks.borrow_mut());
        app.feed(&wire.take());
        assert_eq!(app.ended, None);
        if round == drain_at {
            app.connection.go_away(&mut app.out);
        }
        if chance.below(3) > 0 {
            app.pump();
        }
        wire.give(&mut app.out);
        // The last task is the connection; it ends when nobody wants anything of it.
        if running.is_empty() {
            break;
        }
    }
    wire.close();
    while !wire.is_quiet() {
        app.feed(&wire.take());
    }
    assert_eq!((app.ended, app.talks(), app.connection.streams()), (None, 0, 0));
    let told = told.borrow();
    assert!(told.refused == 0 || drain_at < usize::MAX, "{told:?}");
}

#[test]
fn another_client_and_our_server_agree() {
    conversations(conversation);
}
