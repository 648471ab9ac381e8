//! Connections that are held, by the weights of least connections.

use crate::process::until;
use crate::{Plan, address, connect, echo, read};

/// R2.1-4: of connections that are held each member has its weight's share, over all
/// shards; what one has lost it gets first, and weight 0 gets none.
#[test]
fn held_connections_follow_the_weights() {
    let members = ["a", "b", "c"].map(|name| echo(name, "127.0.0.1:0"));
    let plan = |weights: [u8; 3]| {
        let members: Vec<_> = members.into_iter().zip(weights).collect();
        let least = "lb_algorithm = \"LEAST_CONNECTIONS\"";
        Plan::new(1).listener("web", 0, "app", "").pool("app", least, &members)
    };
    let server = plan([1, 3, 0]).start();
    let web = address(&server, "web");
    let open = |count: usize| {
        let one = |_| {
            let mut stream = connect(web);
            (read::<1>(&mut stream), stream)
        };
        (0..count).map(one).collect::<Vec<_>>()
    };
    let count = |all: &[(String, _)], name: &str| all.iter().filter(|(at, _)| at == name).count();
    let mut held = open(32);
    assert_eq!(["a", "b", "c"].map(|name| count(&held, name)), [8, 24, 0]);
    let mut freed = 0;
    held.retain(|(name, _)| {
        let goes = name == "b" && freed < 12;
        freed += usize::from(goes);
        !goes
    });
    until("their ends", || server.sum("weir_member_active_connections") == held.len() as f64);
    let again = open(12);
    assert_eq!(count(&again, "b"), 12, "it has far less than its share");
    held.extend(again);
    // Now the share of another.
    let (code, out, err) = server.reload(plan([1, 3, 4]).text());
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(count(&open(32), "c"), 32);
}
