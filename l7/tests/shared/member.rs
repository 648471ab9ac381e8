//! A member that speaks HTTP/2: the crate h2 on a thread of its own.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::{HeaderMap, Response, request};
use tokio::net::{TcpListener, TcpStream};

/// What a member counts.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    given_up: AtomicUsize,
}

impl Told {
    pub fn given_up(&self) {
        self.0.given_up.fetch_add(1, Ordering::SeqCst);
    }
}

/// A request on its stream.
pub struct Call {
    head: Option<request::Parts>,
    body: RecvStream,
    pub respond: SendResponse<Bytes>,
    pub told: Told,
}

impl Call {
    /// Head and body, once all of it is here.
    pub async fn whole(&mut self) -> (request::Parts, Bytes) {
        let mut body = BytesMut::new();
        while let Some(piece) = self.body.data().await {
            let piece = piece.unwrap();
            self.body.flow_control().release_capacity(piece.len()).unwrap();
            body.extend_from_slice(&piece);
        }
        (self.head.take().unwrap(), body.freeze())
    }

    /// Answers with these pieces; errors are the peer's matter.
    pub async fn answer(
        &mut self,
        head: Response<()>,
        pieces: &[Bytes],
        trailers: Option<HeaderMap>,
    ) {
        let Ok(mut stream) = self.respond.send_response(head, false) else { return };
        for piece in pieces {
            if !send(&mut stream, piece.clone()).await {
                return;
            }
        }
        let _ = match trailers {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Bytes::new(), true),
        };
    }
}

/// Sends as the window allows; false when the stream is gone.
async fn send(stream: &mut h2::SendStream<Bytes>, mut piece: Bytes) -> bool {
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return false;
        };
        if stream.send_data(piece.split_to(room.min(piece.len())), false).is_err() {
            return false;
        }
    }
    true
}

/// Sends the body back as it comes.
pub async fn echo(mut call: Call) {
    let Ok(mut stream) = call.respond.send_response(Response::new(()), false) else { return };
    while let Some(Ok(piece)) = call.body.data().await {
        let _ = call.body.flow_control().release_capacity(piece.len());
        if !send(&mut stream, piece).await {
            return;
        }
    }
    let _ = stream.send_data(Bytes::new(), true);
}

/// A running member; it ends with the process of the test.
pub struct Member {
    pub address: SocketAddr,
    told: Told,
}

type Answering = Pin<Box<dyn Future<Output = ()>>>;

impl Member {
    pub fn start<F: Future<Output = ()> + 'static>(
        answer: impl Fn(Call) -> F + Send + 'static,
    ) -> Member {
        Member::with(1_000, answer)
    }

    /// That takes so many streams at a time.
    pub fn with<F: Future<Output = ()> + 'static>(
        at_a_time: u32,
        answer: impl Fn(Call) -> F + Send + 'static,
    ) -> Member {
        Member::run(at_a_time, usize::MAX, answer)
    }

    /// That goes away after so many streams of a connection.
    pub fn going_after<F: Future<Output = ()> + 'static>(
        streams: usize,
        answer: impl Fn(Call) -> F + Send + 'static,
    ) -> Member {
        Member::run(1_000, streams, answer)
    }

    fn run<F: Future<Output = ()> + 'static>(
        at_a_time: u32,
        streams: usize,
        answer: impl Fn(Call) -> F + Send + 'static,
    ) -> Member {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let told = Told::default();
        let counts = told.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let answer = std::rc::Rc::new(move |call| Box::pin(answer(call)) as Answering);
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime.unwrap(), async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    counts.0.connections.fetch_add(1, Ordering::SeqCst);
                    let (answer, told) = (std::rc::Rc::clone(&answer), counts.clone());
                    tokio::task::spawn_local(async move {
                        let mut builder = server::Builder::new();
                        builder.max_concurrent_streams(at_a_time);
                        connection(builder, stream, streams, told, &*answer).await;
                    });
                }
            });
        });
        Member { address, told }
    }

    /// Connections accepted.
    pub fn connections(&self) -> usize {
        self.told.0.connections.load(Ordering::SeqCst)
    }

    /// Streams that were reset by the balancer.
    pub fn given_up(&self) -> usize {
        self.told.0.given_up.load(Ordering::SeqCst)
    }
}

async fn connection(
    builder: server::Builder,
    stream: TcpStream,
    streams: usize,
    told: Told,
    answer: &dyn Fn(Call) -> Answering,
) {
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut taken = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, body) = request.into_parts();
        let call = Call { head: Some(head), body, respond, told: told.clone() };
        tokio::task::spawn_local(answer(call));
        taken += 1;
        if taken == streams {
            connection.graceful_shutdown();
        }
    }
}
