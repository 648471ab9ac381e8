//! One shard's life: obeys orders, applies what control tells it to its replica of the backend
//! table and to its listening sockets (`doors`), and takes over what other shards hand to it. Owns
//! no protocol and no decision about the process; the server's `fleet` starts it and reads its
//! reports.

mod accept;
mod doors;
mod neighbours;
mod order;
mod passing;
mod post;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir_core::acl::Share;
use weir_core::control::Change;
use weir_core::net::Place;
use weir_core::pool::ramp;
use weir_core::rt::{self, Receiver, RingStats, ShardConfig, ShardError, ShardHandle, TcpStream};
use weir_core::table::View;
use weir_l4::{Tcp, Udp};
use weir_l7::Service;

pub use self::neighbours::Neighbours;
pub use self::order::{DoorChange, News, Order, REPORTS_PER_SHARD, Report, Reports, Update};
pub use self::passing::Outlet;
pub use self::post::Gone;
use accept::{Entrance, Services};
use doors::{Door, each};
use neighbours::Handed;
use post::Post;

/// What the names of all shards' threads begin with.
pub const THREAD_PREFIX: &str = "weir-shard-";
/// Orders that may wait in a shard's mailbox: one update (the next is sent when it has been
/// acknowledged), a drain, a stop, and questions. More wait in front of it (`post`).
const ORDERS: usize = 16;
/// How often a draining shard looks whether its accept queues are empty.
const DRAIN_TICK: Duration = Duration::from_millis(5);
/// How long an accept queue has to stay empty before a listener that was removed is closed: the
/// last ACK of a handshake that was under way comes within a round trip.
pub const QUIET: Duration = Duration::from_millis(250);

/// What a shard is started with.
#[derive(Debug)]
pub struct Plan {
    /// Number of the shard, from 0.
    pub index: usize,
    /// The core that it is pinned to.
    pub core: usize,
    /// How long it polls without work before it sleeps.
    pub spin: Duration,
    /// Seed of its random choices.
    pub seed: u64,
}

/// A running shard, as control holds it.
#[derive(Debug)]
pub struct Shard {
    post: Post<Order>,
    handle: ShardHandle<()>,
}

/// Starts the thread; a first report says that it runs.
///
/// # Errors
/// The thread could not be made. A ring that could not be made shows in the report
/// [`News::Ended`] and in [`Shard::join`].
pub fn start(
    plan: Plan,
    neighbours: Neighbours,
    ring: Arc<RingStats>,
    reports: Reports,
) -> Result<Shard, ShardError> {
    let (orders, mailbox) = rt::mailbox(ORDERS);
    let config = ShardConfig {
        name: format!("{THREAD_PREFIX}{}", plan.index),
        core: Some(plan.core),
        spin: plan.spin,
        stats: ring,
        ..ShardConfig::default()
    };
    // Made here, so that a shard whose ring could not be made reports its end too.
    let ended = EndedOnDrop { shard: plan.index, reports };
    let handle = rt::start_shard(config, move || life(plan, neighbours, mailbox, ended))?;
    Ok(Shard { post: Post::by(orders), handle })
}

impl Shard {
    /// Gives an order. One for which the shard has no room now waits, until [`Shard::deliver`] or
    /// a later order finds some; another one of its kind then takes its place.
    ///
    /// # Errors
    /// The shard is gone.
    pub fn order(&mut self, order: Order) -> Result<(), Gone> {
        self.post.give(order)
    }

    /// Asks for something that may be left undone when the shard is busy.
    ///
    /// # Errors
    /// Gives it back when the shard is gone, or has no room.
    pub fn ask(&self, question: Order) -> Result<(), Order> {
        self.post.ask(question)
    }

    /// Gives orders again that the shard had no room for. Returns whether some still wait.
    pub fn deliver(&mut self) -> bool {
        self.post.deliver()
    }

    /// Waits for the thread's end; after [`News::Ended`] that is soon.
    ///
    /// # Errors
    /// The shard could not start, or panicked.
    pub fn join(self) -> Result<(), ShardError> {
        self.handle.join()
    }
}

/// The shard's main task. When it ends the runtime drops all other tasks and closes their sockets.
async fn life(plan: Plan, neighbours: Neighbours, mut orders: Receiver<Order>, ended: EndedOnDrop) {
    let reports = &ended.reports;
    let tell = |news| reports(Report { shard: plan.index, news });
    let desk = Rc::new(Desk {
        view: View::new(plan.index, plan.seed),
        entrance: Entrance {
            services: Services { http: Service::start(), tcp: Tcp::start(), udp: Udp::start() },
            outbox: Rc::new(neighbours.outbox),
            accepting: Rc::default(),
        },
        doors: RefCell::default(),
        growing: Cell::new(false),
        draining: Cell::new(None),
    });
    let (shard, suspects) = (plan.index, Arc::clone(reports));
    desk.view.on_suspects(move |one| suspects(Report { shard, news: News::Suspect(one) }));
    rt::spawn(take_over(Rc::clone(&desk), neighbours.inbox));
    tell(News::Ready);
    while let Some(order) = orders.recv().await {
        match order {
            Order::Update(update) => {
                let (version, trouble) = desk.follow(update);
                desk.grow();
                if let Some(quiet) = desk.draining.get() {
                    // A reload was on its way when the drain began: its doors let nobody in.
                    desk.close_all(quiet);
                }
                tell(News::Applied(version, trouble));
            }
            Order::Drain { quiet } => {
                desk.drain(quiet, plan.index, reports);
            }
            Order::Lend(reply) => {
                // Who asked may have gone.
                let _unheard = reply.send((plan.index, desk.lend()));
            }
            Order::PassFlows { places, outlet } => desk.pass_flows(plan.index, &places, outlet),
            Order::GoOn => desk.serve_on(),
            Order::HandOver { taken, quiet } => {
                desk.hand_over(&taken);
                desk.drain(quiet, plan.index, reports);
            }
            Order::GiveBack => {
                desk.give_back();
                desk.drain(Duration::ZERO, plan.index, reports);
            }
            Order::Show(reply) => {
                // Who asked may have gone.
                let _unheard = reply.send((plan.index, desk.describe()));
            }
            Order::Stop => break,
        }
    }
}

/// What one shard has.
struct Desk {
    view: View,
    entrance: Entrance,
    /// Several of one place where a process with more shards has handed over.
    doors: RefCell<HashMap<Place, Vec<Door>>>,
    /// A task looks after slow starts.
    growing: Cell<bool>,
    /// It drains: how long an accept queue has to stay empty.
    draining: Cell<Option<Duration>>,
}

/// Does it change who gets traffic, and nothing else?
fn is_health(change: &Change) -> bool {
    matches!(change, Change::Health { .. } | Change::Ejected { .. })
}

impl Desk {
    fn services(&self) -> &Services {
        &self.entrance.services
    }

    /// Goes the way of an update within this turn. Returns the version that is in effect now, and
    /// what could not be done. The update is dropped here, before control hears of it, so that the
    /// last reference to what it replaces is control's.
    fn follow(&self, update: Update) -> (u64, Vec<String>) {
        let Update { diff, board, doors, settled } = update;
        let unusable = self.view.apply(&diff, &board, rt::now(), settled);
        self.services().http.retire(&unusable);
        if diff.changes.iter().any(|change| !is_health(change)) {
            self.services().tcp.follow();
            self.services().udp.follow();
        }
        let keepalive = self.follow_keepalive();
        let failed = |(place, why): (Place, io::Error)| format!("{place}: {why}");
        let trouble = doors.into_iter().filter_map(|change| self.change(change)).chain(keepalive);
        let trouble = trouble.map(failed).collect();
        if let Some(share) = self.entrance.outbox.share() {
            share.follows(diff.to);
        }
        (diff.to, trouble)
    }

    /// Looks after slow starts, as long as there are some.
    fn grow(self: &Rc<Self>) {
        if self.growing.get() || !self.view.step(rt::now()) {
            return;
        }
        self.growing.set(true);
        let desk = Rc::clone(self);
        rt::spawn(async move {
            while desk.view.step(rt::now()) {
                rt::sleep(ramp::STEP).await;
            }
            desk.growing.set(false);
        });
    }

    /// The table and the doors, in words.
    fn describe(&self) -> Vec<String> {
        let mut lines = self.view.describe();
        let doors = self.doors.borrow();
        let door =
            |(place, door): (&Place, &Door)| format!("door {place}: listener {}", door.name());
        let mut doors: Vec<String> = doors.iter().flat_map(each).map(door).collect();
        doors.sort();
        lines.extend(doors);
        lines
    }

    /// Takes no new connections, and has control told when the last one has ended.
    fn drain(self: &Rc<Self>, quiet: Duration, index: usize, reports: &Reports) {
        if self.draining.replace(Some(quiet)).is_some() {
            return;
        }
        self.close_all(quiet);
        if let Some(share) = self.entrance.outbox.share() {
            share.close();
        }
        self.services().http.begin_drain();
        rt::spawn(drained(index, Rc::clone(self), Arc::clone(reports)));
    }
}

/// Serves what other shards have accepted and hand over, as if it had been accepted here.
async fn take_over(desk: Rc<Desk>, mut inbox: Receiver<Handed>) {
    while let Some(Handed { socket, peer, listener, place }) = inbox.recv().await {
        // The state may have changed meanwhile: the client fares as one who came a moment later.
        match desk.view.site(listener).or_else(|| desk.site_at(place)) {
            Some(site) => desk.entrance.let_in(&site, socket, peer),
            None => TcpStream::from_fd(socket).reset(),
        }
        if let Some(share) = desk.entrance.outbox.share() {
            share.arrived();
        }
    }
}

/// Waits until no accept task and no connection is left, and none can come from another shard.
async fn drained(shard: usize, desk: Rc<Desk>, reports: Reports) {
    let entrance = &desk.entrance;
    let is_expecting = || entrance.outbox.share().is_some_and(Share::is_expecting);
    while entrance.accepting.get() > 0 || is_expecting() {
        rt::sleep(DRAIN_TICK).await;
    }
    desk.services().http.idle().await;
    desk.services().tcp.idle().await;
    desk.services().udp.idle().await;
    reports(Report { shard, news: News::Drained });
}

/// Reports the end of the main task, also when a panic unwinds it.
struct EndedOnDrop {
    shard: usize,
    reports: Reports,
}

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        (self.reports)(Report { shard: self.shard, news: News::Ended });
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc::{Receiver, channel};

    use weir_core::control::State;
    use weir_core::model::{Balancer, Config, Handles, Listener};
    use weir_core::net::Transport;
    use weir_core::obs::Board;
    use weir_core::time::clock;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn running() -> (Shard, Receiver<News>) {
        let (tell, told) = channel();
        let tell = std::sync::Mutex::new(tell);
        let reports: Reports = Arc::new(move |report: Report| {
            let _test_is_over = tell.lock().map(|tell| tell.send(report.news));
        });
        let core = weir_core::net::sys::allowed_cores().unwrap()[0];
        let plan = Plan { index: 0, core, spin: Duration::ZERO, seed: 1 };
        let neighbours = Neighbours::of(1, &Arc::default()).remove(0);
        let shard = start(plan, neighbours, Arc::default(), reports).unwrap();
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), News::Ready);
        (shard, told)
    }

    /// The way from nothing to one listener, with its socket.
    fn one_listener() -> (Update, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let balancer = Balancer { vip_address: vec![address.ip()], ..Balancer::default() };
        let listener =
            Listener { name: "web".into(), protocol_port: address.port(), ..Listener::default() };
        let config =
            Config { balancers: vec![balancer], listeners: vec![listener], ..Config::default() };
        let (empty, mut handles) = (State::default(), Handles::default());
        let state = empty.next(&config, &|_| vec![0], &mut handles);
        let listener = state.listeners().next().unwrap().0;
        let place = Place { transport: Transport::Tcp, address };
        let update = Update {
            diff: Arc::new(empty.diff(&state)),
            board: Arc::new(Board::default().next(1, [listener].into_iter(), [].into_iter())),
            doors: vec![DoorChange::Open { place, listener, socket: socket.into() }],
            settled: true,
        };
        (update, address)
    }

    /// Stops it. It may be gone by the moment when it is looked whether it still takes orders.
    fn end(mut shard: Shard) {
        let _gone_already = shard.order(Order::Stop);
        shard.join().unwrap();
    }

    /// Doors that are given back keep nobody out: another process accepts from the very same
    /// socket, and goes on to.
    #[test]
    fn doors_that_are_given_back_stay_open() {
        let (mut shard, told) = running();
        let (update, address) = one_listener();
        let same = update.doors.iter().find_map(|change| match change {
            DoorChange::Open { socket, .. } => socket.try_clone().ok(),
            _ => None,
        });
        let theirs = TcpListener::from(same.unwrap());
        shard.order(Order::Update(update)).unwrap();
        shard.order(Order::GiveBack).unwrap();
        while told.recv_timeout(LIMIT).unwrap() != News::Drained {}
        let client = std::net::TcpStream::connect_timeout(&address, LIMIT).unwrap();
        theirs.set_nonblocking(false).unwrap();
        let (_, peer) = theirs.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        end(shard);
    }

    /// A reload may reach a shard that drains already: control tells a shard that is busy later.
    /// What it opens takes nobody in; else the drain would never end.
    #[test]
    fn a_door_that_opens_while_it_drains_closes_again() {
        let (mut shard, told) = running();
        let (update, address) = one_listener();
        shard.order(Order::Drain { quiet: Duration::from_millis(50) }).unwrap();
        shard.order(Order::Update(update)).unwrap();
        let until = clock::mono().plus(LIMIT);
        while std::net::TcpStream::connect_timeout(&address, LIMIT).is_ok() {
            assert!(clock::mono() < until, "the door is still open");
        }
        let news: Vec<News> = (0..2).map(|_| told.recv_timeout(LIMIT).unwrap()).collect();
        assert!(news.contains(&News::Drained), "{news:?}");
        end(shard);
    }
}
