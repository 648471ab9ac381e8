//! `loadgen idle`: opens many connections, inside TLS or not, of HTTP/1.1, HTTP/2 or what else the
//! scheme says, makes one request on each, holds them, and says what each costs the target in
//! resident memory. Called by `commands`.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_core::rt::{self, SendBuf, ShardConfig};
use weir_core::time::clock::mono;

use crate::client::{Client, Failure, Observer, Opening, late};
use crate::cpu::Process;
use crate::engine::{RunError, check_descriptors};
use crate::gate::{Flag, Permits};
use crate::h2::single::Single;
use crate::limits;
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
    /// The target's resident memory before, bytes.
    pub rss_before: Option<u64>,
    /// With all of them idle, at the end of the hold, bytes.
    pub rss_held: Option<u64>,
    /// The difference for each held connection, bytes; may be negative.
    pub bytes_per_connection: Option<f64>,
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
}

struct Unwatched;

impl Observer for Unwatched {
    fn opened(&self, _: Opening) {}
    fn closed(&self) {}
}

/// Opens `plan.connections` connections to `plan.target` from one shard, holds them for `hold`,
/// and reads the memory of process `pid` before and at the end. Blocks. Of the plan, rate, length
/// and reuse don't matter.
///
/// # Errors
/// As a run; connections that fail are counted as long as one succeeds.
pub fn run(plan: &Plan, hold: Duration, pid: Option<u32>) -> Result<IdleReport, RunError> {
    let plan = Plan { reuse: Reuse::KeepAlive, rate: None, ..plan.clone() };
    plan.check()?;
    check_descriptors(&plan)?;
    let addr = plan.target.resolve().map_err(RunError::Resolve)?;
    // The one that has the number now: who gets it later is somebody else.
    let watched = pid.map(Process::find).transpose();
    let watched = watched.map_err(|error| RunError::View(format!("--pid: {error}")))?;
    let resident = move || watched.map(Process::resident).transpose();
    let rss_before = resident().ok().flatten();
    let wire = Arc::new(Wire::new(&plan, addr).map_err(RunError::Tls)?);
    let count = plan.connections;
    let config = ShardConfig {
        name: "loadgen-idle".to_string(),
        core: plan.cores.first().copied(),
        ..ShardConfig::default()
    };
    let shard = rt::start_shard(config, move || async move {
        let begun = mono();
        let shared = open_all(&wire, count).await;
        let opening = mono().since(begun).as_secs_f64();
        if shared.held.get() > 0 {
            rt::sleep(hold).await;
        }
        let rss_held = resident().map_err(|error| error.to_string());
        shared.release.open();
        shared.all_left.wait().await;
        (shared.held.get(), shared.quiet.get(), shared.error.take(), opening, rss_held)
    })?;
    let (held, quiet, error, opening, rss_held) = shard.join()?;
    if held == 0 {
        let cause = error.unwrap_or_else(|| "the target closed every connection".to_string());
        return Err(RunError::NoAnswer { addr, tried: count as u64, cause });
    }
    let pid_lost =
        rss_held.as_ref().err().map(|why| format!("the process of --pid is gone: {why}"));
    let rss_held = rss_held.ok().flatten();
    let grown = rss_before.zip(rss_held).map(|(before, held)| held as f64 - before as f64);
    Ok(IdleReport {
        schema: "weir-loadgen-idle/1".to_string(),
        url: plan.target.url.clone(),
        address: addr,
        http2: plan.http2,
        connections: count,
        held,
        open_after_hold: quiet,
        error: error.or(pid_lost),
        opening,
        hold: hold.as_secs_f64(),
        rss_before,
        rss_held,
        bytes_per_connection: grown.map(|bytes| bytes / held as f64),
    })
}

async fn open_all(wire: &Arc<Wire>, count: usize) -> Rc<Shared> {
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
    });
    let secure = wire.secure().map(Rc::new);
    for slot in 0..count {
        let (secure, rng) = (secure.clone(), Rng::new(1, slot as u64));
        let client = Client::new(Arc::clone(wire), secure, Unwatched, slot, rng);
        rt::spawn(hold_one(Rc::clone(&shared), client));
    }
    shared.all_opened.wait().await;
    shared
}

async fn hold_one(shared: Rc<Shared>, mut client: Client<Unwatched>) {
    let still_open = match client.line.wire.http2 {
        true => Box::pin(hold_http2(&shared, &mut client)).await,
        false => hold(&shared, &mut client).await,
    };
    if still_open {
        shared.quiet.set(shared.quiet.get() + 1);
    }
    if count_down(&shared.leaving) {
        shared.all_left.open();
    }
}

/// A connection with one exchange at a time; true when it is open after the hold.
async fn hold(shared: &Shared, client: &mut Client<Unwatched>) -> bool {
    let permit = shared.opening.acquire().await;
    let now = mono();
    let opened = client.exchange(now, now).await.map(|_| client.is_open());
    drop(permit);
    shared.opened(opened);
    shared.release.wait().await;
    client.is_quiet()
}

/// The same of HTTP/2, where the target may ask something at any time.
async fn hold_http2(shared: &Shared, client: &mut Client<Unwatched>) -> bool {
    let permit = shared.opening.acquire().await;
    let (line, _, talk) = client.parts();
    let opened = rt::timeout(line.wire.timeout, async {
        let mut single = Single::new(line.connect(&mut talk.rng).await?);
        let request = line.wire.choose(&mut talk.rng);
        let request = request.ok_or_else(|| Failure::closed("there is nothing to send"))?;
        let mut block = SendBuf::new();
        talk.write_block(&mut block, &line.wire, request);
        single.exchange(request, &block).await?;
        Ok::<_, Failure>(single)
    });
    let opened = opened.await.unwrap_or_else(|rt::Elapsed| Err(late()));
    drop(permit);
    match opened {
        Ok(mut single) => {
            shared.opened(Ok(true));
            single.hold(shared.release.wait()).await
        }
        Err(failure) => {
            shared.opened(Err(failure));
            shared.release.wait().await;
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
        text
    }
}
