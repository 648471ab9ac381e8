//! A listener that runs out of descriptors, with the kernel's own EMFILE. A program of its own,
//! since the limit is the whole process'.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use weir_core::rt::{self, ListenOptions, RingStats, ShardConfig, TcpListener};

const DEADLINE: Duration = Duration::from_secs(60);

/// Descriptors on /dev/null: the listener's spare one is among them.
fn null_descriptors() -> Vec<u64> {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let null = all.filter(|e| std::fs::read_link(e.path()).is_ok_and(|to| to == *"/dev/null"));
    null.map(|e| e.file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Sets the soft limit: numbers from `limit` on cannot be had.
#[allow(unsafe_code, reason = "there is no safe setrlimit")]
fn set_limit(limit: u64) {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid rlimit.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut old), 0);
        let new = libc::rlimit { rlim_cur: limit.min(old.rlim_max), ..old };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const new), 0);
    }
}

/// Serves every connection with one word.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        rt::spawn(async move {
            stream.send(&b"served"[..]).await.unwrap();
            stream.shutdown_write().await.unwrap();
        });
    }
}

/// Connects a socket that was made before, and tells what comes until FIN. On a thread, since this
/// one is the shard's.
async fn ask(mut socket: Socket, to: SocketAddr) -> String {
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let thread = std::thread::spawn(move || {
        socket.connect(&to.into()).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    });
    until(|| thread.is_finished()).await;
    thread.join().unwrap()
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        rt::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn out_of_descriptors_one_client_is_told_and_the_rest_wait() {
    let stats = Arc::new(RingStats::default());
    let config = ShardConfig { stats: Arc::clone(&stats), ..ShardConfig::default() };
    let shard = rt::start_shard(config, move || async move {
        let others = null_descriptors();
        let options = ListenOptions { backlog: 64, reuse_port: false };
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let to = listener.local_addr().unwrap();
        let with_spare = null_descriptors();
        let spare = *with_spare.iter().find(|fd| !others.contains(fd)).unwrap();
        let server = rt::spawn(serve(listener));
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let [shed, waiting, last] = [socket(), socket(), socket()];
        let failures = || stats.accept_failures.get();

        // Every number up to the spare's is taken: the spare one is all that helps.
        let holes: Vec<_> = std::iter::repeat_with(|| std::fs::File::open("/dev/zero").unwrap())
            .take_while(|file| std::os::fd::AsRawFd::as_raw_fd(file) < spare as i32)
            .collect();
        set_limit(spare + 1);
        assert_eq!(ask(shed, to).await, "");
        assert!(failures() > 0);

        // Not even the spare one's number can be had again: it is lost, as when another shard is
        // quicker to take it.
        set_limit(3);
        let before = failures();
        rt::spawn(async move { assert_eq!(ask(waiting, to).await, "served") });
        until(|| failures() > before + 1).await;
        set_limit(u64::MAX);
        drop(holes);

        // When there are descriptors again the waiting client is served, and there is a spare one.
        assert_eq!(ask(last, to).await, "served");
        until(|| stats.tasks.get() == 2).await;
        assert_eq!(null_descriptors().len(), with_spare.len());
        server.abort();
        stats.task_panics.get()
    });
    assert_eq!(shard.unwrap().join().unwrap(), 0);
}
