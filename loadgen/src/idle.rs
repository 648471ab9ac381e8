//! `loadgen idle`: opens many connections, inside TLS or not, of HTTP/1.1, HTTP/2 or what else the
//! scheme says, makes one request on each, holds them, and says what each costs the target in
//! resident memory. Called by `commands`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Poll, Waker};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_core::rt::{self, SendBuf, ShardConfig};
use weir_core::time::clock::mono;

use crate::client::{Client, Failure, Observer, Opening, late};
use crate::control::Control;
use crate::cpu::Process;
use crate::engine::{RunError, check_descriptors};
use crate::gate::{Flag, Permits};
use crate::h2::single::Single;
use crate::limits;
use crate::machine::{Limits, Reading};
use crate::plan::{Plan, Reuse};
use crate::seed::Rng;
use crate::units;
use crate::wire::Wire;

/// What holding connections cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdleReport {
    /// Name and version of this form.
    pub schema: String,
    /// The URL as it was given.
    pub url: String,
    /// The address it stands for.
    pub address: SocketAddr,
    /// They speak HTTP/2.
    #[serde(default)]
    pub http2: bool,
    /// Connections asked for.
    pub connections: usize,
    /// Connections that got an answer and then were kept open by the target.
    pub held: u64,
    /// Of these, still open after the hold.
    pub open_after_hold: u64,
    /// The first error, if there was one: of a connection, or that the process of `pid` is gone.
    pub error: Option<String>,
    /// Seconds it took to open them all, the request on each included.
    pub opening: f64,
    /// Seconds they were held.
    pub hold: f64,
    /// Somebody stopped it before its end.
    #[serde(default)]
    pub stopped_early: bool,
    /// Limits of this host that connections can run into.
    #[serde(default)]
    pub limits: Limits,
    /// The target's resident memory before, bytes.
    pub rss_before: Option<u64>,
    /// With all of them idle, at the end of the hold, bytes.
    pub rss_held: Option<u64>,
    /// The difference for each held connection, bytes; may be negative.
    pub bytes_per_connection: Option<f64>,
    /// What the reader of these numbers should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Counts of the shard, shared by its tasks.
struct Shared {
    opening: Permits,
    left: Cell<usize>,
    all_opened: Flag,
    release: Flag,
    held: Cell<u64>,
    quiet: Cell<u64>,
    leaving: Cell<usize>,
    all_left: Flag,
    error: RefCell<Option<String>>,
    stop: Stop,
    /// Connects that found no free port, no free descriptor; SYNs that were sent again.
    out_of_ports: Cell<u64>,
    out_of_files: Cell<u64>,
    syns_again: Cell<u64>,
}

/// Whether to give up, and who is to be woken then, by connection slot.
#[derive(Default)]
struct Stop {
    asked: Cell<bool>,
    waiting: RefCell<BTreeMap<usize, Waker>>,
}

impl Stop {
    fn ask(&self) {
        self.asked.set(true);
        // Woken outside of the borrow: a waker may poll at once.
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_values().for_each(Waker::wake);
    }

    /// What comes of `work`, which slot `slot` does; `None` once it is to be given up.
    async fn unless<T>(&self, slot: usize, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let done = poll_fn(|cx| {
            if self.asked.get() {
                return Poll::Ready(None);
            }
            let done = work.as_mut().poll(cx).map(Some);
            if done.is_pending() {
                self.waiting.borrow_mut().insert(slot, cx.waker().clone());
            }
            done
        });
        let done = done.await;
        self.waiting.borrow_mut().remove(&slot);
        done
    }
}

/// Counts what the openings of one slot tell.
struct Counted(Rc<Shared>);

impl Observer for Counted {
    fn opened(&self, how: Opening) {
        add(&self.0.syns_again, u64::from(how.syns_again));
    }

    fn closed(&self) {}
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

/// What the shard has seen.
struct Seen {
    held: u64,
    quiet: u64,
    error: Option<String>,
    opening: f64,
    hold: f64,
    rss: Result<Option<u64>, String>,
    stopped: bool,
    out_of_ports: u64,
    out_of_files: u64,
    syns_again: u64,
}

/// Opens `plan.connections` connections to `plan.target` from one shard, holds them for `hold`,
/// and reads the memory of process `pid` before and at the end. Blocks; `control` stops it, with
/// what was seen until then. Of the plan, rate, length and reuse don't matter.
///
/// # Errors
/// As a run; connections that fail are counted as long as one succeeds.
pub fn run(
    plan: &Plan,
    hold: Duration,
    pid: Option<u32>,
    control: &Control,
) -> Result<IdleReport, RunError> {
    let plan = Plan { reuse: Reuse::KeepAlive, rate: None, ..plan.clone() };
    plan.check()?;
    check_descriptors(&plan)?;
    let addr = plan.target.resolve().map_err(RunError::Resolve)?;
    // The one that has the number now: who gets it later is somebody else.
    let watched = pid.map(Process::find).transpose();
    let watched = watched.map_err(|error| RunError::View(format!("--pid: {error}")))?;
    let resident = move || watched.map(Process::resident).transpose();
    let rss_before = resident().ok().flatten();
    let before = Reading::take();
    let wire = Arc::new(Wire::new(&plan, addr).map_err(RunError::Tls)?);
    let (count, stop) = (plan.connections, control.stop_flag());
    let config = ShardConfig {
        name: "loadgen-idle".to_string(),
        core: plan.cores.first().copied(),
        ..ShardConfig::default()
    };
    let shard = rt::start_shard(config, move || async move {
        let resident = || resident().map_err(|error| error.to_string());
        all(&wire, count, hold, stop, resident).await
    })?;
    let seen = shard.join()?;
    if seen.held == 0 && seen.stopped {
        return Err(RunError::Stopped);
    }
    if seen.held == 0 {
        let cause = seen.error.unwrap_or_else(|| "the target closed every connection".to_string());
        return Err(RunError::NoAnswer { addr, tried: count as u64, cause });
    }
    let limits = Limits {
        out_of_ports: seen.out_of_ports,
        out_of_files: seen.out_of_files,
        own_syn_retransmits: seen.syns_again,
        ..Limits::between(before, Reading::take())
    };
    Ok(report(&plan, addr, seen, (rss_before, limits)))
}

fn report(
    plan: &Plan,
    addr: SocketAddr,
    seen: Seen,
    (rss_before, limits): (Option<u64>, Limits),
) -> IdleReport {
    let pid_lost =
        seen.rss.as_ref().err().map(|why| format!("the process of --pid is gone: {why}"));
    let rss_held = seen.rss.ok().flatten();
    let grown = rss_before.zip(rss_held).map(|(before, held)| held as f64 - before as f64);
    let mut notes = Vec::new();
    if seen.stopped {
        notes.push("stopped early: the numbers are of what was held until then".to_string());
    } else if seen.held < plan.connections as u64 {
        let (held, asked) = (units::count(seen.held), units::count(plan.connections as u64));
        notes.push(format!("only {held} of {asked} connections were held"));
    }
    notes.extend(limits.notes());
    IdleReport {
        schema: "weir-loadgen-idle/1".to_string(),
        url: plan.target.url.clone(),
        address: addr,
        http2: plan.http2,
        connections: plan.connections,
        held: seen.held,
        open_after_hold: seen.quiet,
        error: seen.error.or(pid_lost),
        opening: seen.opening,
        hold: seen.hold,
        stopped_early: seen.stopped,
        limits,
        rss_before,
        rss_held,
        bytes_per_connection: grown.map(|bytes| bytes / seen.held as f64),
        notes,
    }
}

/// The shard's part.
async fn all(
    wire: &Arc<Wire>,
    count: usize,
    hold: Duration,
    asked: Arc<AtomicBool>,
    resident: impl Fn() -> Result<Option<u64>, String>,
) -> Seen {
    let begun = mono();
    let shared = open_all(wire, count, asked).await;
    let opened = mono();
    if shared.held.get() > 0 {
        // No connection slot has this number.
        shared.stop.unless(usize::MAX, rt::sleep(hold)).await;
    }
    let (held_for, rss) = (mono().since(opened), resident());
    shared.release.open();
    shared.all_left.wait().await;
    Seen {
        held: shared.held.get(),
        quiet: shared.quiet.get(),
        error: shared.error.take(),
        opening: opened.since(begun).as_secs_f64(),
        hold: held_for.as_secs_f64(),
        rss,
        stopped: shared.stop.asked.get(),
        out_of_ports: shared.out_of_ports.get(),
        out_of_files: shared.out_of_files.get(),
        syns_again: shared.syns_again.get(),
    }
}

async fn open_all(wire: &Arc<Wire>, count: usize, asked: Arc<AtomicBool>) -> Rc<Shared> {
    let shared = Rc::new(Shared {
        opening: Permits::new(limits::OPENING),
        left: Cell::new(count),
        all_opened: Flag::default(),
        release: Flag::default(),
        held: Cell::new(0),
        quiet: Cell::new(0),
        leaving: Cell::new(count),
        all_left: Flag::default(),
        error: RefCell::default(),
        stop: Stop::default(),
        out_of_ports: Cell::new(0),
        out_of_files: Cell::new(0),
        syns_again: Cell::new(0),
    });
    rt::spawn(look(Rc::clone(&shared), asked));
    let secure = wire.secure().map(Rc::new);
    for slot in 0..count {
        let (secure, rng) = (secure.clone(), Rng::new(1, slot as u64));
        let observer = Counted(Rc::clone(&shared));
        let client = Client::new(Arc::clone(wire), secure, observer, slot, rng);
        rt::spawn(hold_one(Rc::clone(&shared), slot, client));
    }
    shared.all_opened.wait().await;
    shared
}

/// Hands on that somebody asked to stop, until nobody has to hear of it any more.
async fn look(shared: Rc<Shared>, asked: Arc<AtomicBool>) {
    while shared.leaving.get() > 0 {
        if asked.load(Relaxed) {
            shared.stop.ask();
            return;
        }
        rt::sleep(limits::TICK).await;
    }
}

async fn hold_one(shared: Rc<Shared>, slot: usize, mut client: Client<Counted>) {
    let still_open = match client.line.wire.http2 {
        true => Box::pin(hold_http2(&shared, slot, &mut client)).await,
        false => hold(&shared, slot, &mut client).await,
    };
    if still_open {
        shared.quiet.set(shared.quiet.get() + 1);
    }
    if count_down(&shared.leaving) {
        shared.all_left.open();
    }
}

/// A connection with one exchange at a time; true when it is open after the hold.
async fn hold(shared: &Shared, slot: usize, client: &mut Client<Counted>) -> bool {
    let opening = shared.stop.unless(slot, async {
        let _permit = shared.opening.acquire().await;
        let now = mono();
        client.exchange(now, now).await.map(|_| client.is_open())
    });
    let opened = opening.await;
    let given_up = opened.is_none();
    shared.opened(opened.unwrap_or(Ok(false)));
    if given_up {
        return false;
    }
    shared.release.wait().await;
    client.is_quiet()
}

/// The same of HTTP/2, where the target may ask something at any time.
async fn hold_http2(shared: &Shared, slot: usize, client: &mut Client<Counted>) -> bool {
    let (line, _, talk) = client.parts();
    let open = async {
        let mut single = Single::new(line.connect(&mut talk.rng).await?);
        let request = line.wire.choose(&mut talk.rng);
        let request = request.ok_or_else(|| Failure::closed("there is nothing to send"))?;
        let mut block = SendBuf::new();
        talk.write_block(&mut block, &line.wire, request);
        single.exchange(request, &block).await?;
        Ok::<_, Failure>(single)
    };
    let opening = shared.stop.unless(slot, async {
        let _permit = shared.opening.acquire().await;
        rt::timeout(line.wire.timeout, open).await.unwrap_or_else(|rt::Elapsed| Err(late()))
    });
    match opening.await {
        Some(Ok(mut single)) => {
            shared.opened(Ok(true));
            single.hold(shared.release.wait()).await
        }
        Some(Err(failure)) => {
            shared.opened(Err(failure));
            shared.release.wait().await;
            false
        }
        None => {
            shared.opened(Ok(false));
            false
        }
    }
}

impl Shared {
    /// A connection was opened, and can be held, or can't.
    fn opened(&self, opened: Result<bool, Failure>) {
        match opened {
            Ok(true) => self.held.set(self.held.get() + 1),
            Ok(false) => {}
            Err(failure) => {
                match failure.errno() {
                    Some(libc::EADDRNOTAVAIL) => add(&self.out_of_ports, 1),
                    Some(libc::EMFILE | libc::ENFILE) => add(&self.out_of_files, 1),
                    _ => {}
                }
                self.error.borrow_mut().get_or_insert_with(|| failure.to_string());
            }
        }
        if count_down(&self.left) {
            self.all_opened.open();
        }
    }
}

/// Takes one away; true when none is left.
fn count_down(cell: &Cell<usize>) -> bool {
    cell.set(cell.get().saturating_sub(1));
    cell.get() == 0
}

impl IdleReport {
    /// The report as text.
    pub fn to_text(&self) -> String {
        let n = |n| units::count(n);
        let mut text = format!(
            "{}  {} connections{} held for {}\n\n  held         {:>12}  of {}, opened in {}\n  \
             still open   {:>12}  after the hold\n",
            self.url,
            n(self.held),
            if self.http2 { " of HTTP/2" } else { "" },
            units::seconds(self.hold),
            n(self.held),
            n(self.connections as u64),
            units::seconds(self.opening),
            n(self.open_after_hold),
        );
        if let (Some(before), Some(held), Some(each)) =
            (self.rss_before, self.rss_held, self.bytes_per_connection)
        {
            text.push_str(&format!(
                "  memory       {:>12}  a connection ({} before, {} with all idle)\n",
                format!("{each:.0} B"),
                units::bytes(before as f64),
                units::bytes(held as f64),
            ));
        }
        if let Some(error) = &self.error {
            text.push_str(&format!("\n! first error: {error}\n"));
        }
        self.notes.iter().for_each(|note| text.push_str(&format!("\n! {note}\n")));
        text
    }
}
