//! Two streams of ours with each other.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use weir_core::rt::{self, ConnectOptions, Payload, TcpStream};
use weir_core::tls::{self, Client, Server, Stream};

use crate::support::listener;

/// A connection, with TLS over it.
pub async fn pair(server: &Server, client: &Client) -> (Stream, Stream) {
    let (listener, address) = listener();
    let outside = TcpStream::connect(address, &ConnectOptions::default()).await.unwrap();
    let (inside, _) = listener.accept().await.unwrap();
    let accepted = Rc::new(RefCell::new(None));
    let (put, server) = (Rc::clone(&accepted), server.clone());
    rt::spawn(async move {
        *put.borrow_mut() = Some(tls::accept(inside, &server).await);
    });
    let outside = tls::connect(outside, client).await.unwrap();
    loop {
        if let Some(inside) = accepted.borrow_mut().take() {
            return (outside, inside.unwrap());
        }
        rt::yield_now().await;
    }
}

/// Sends `payload` once there is room for it.
pub async fn post(stream: &Stream, payload: impl Into<Payload>) {
    poll_fn(|cx| stream.poll_send_ready(cx)).await.unwrap();
    stream.post(payload).unwrap();
}
