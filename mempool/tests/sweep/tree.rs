//! The reserve tree: what is refused has changed nothing, at any depth.

use mempool::{Frame, ReserveBacking, ReserveError, ReserveNode};

use crate::inject::{Run, sweep};
use crate::machine::{Machine, RESERVE, machine};

type Node<'t> = ReserveNode<'t>;

/// All that a tree says of itself.
fn books(m: &Machine, nodes: &[&Node<'_>]) -> Vec<[usize; 4]> {
    let line = |node: &&Node<'_>| [node.pages(), node.limit(), node.usage(), node.peak()];
    let zone = m.zone.stats();
    let last = [zone.reserve, zone.free, zone.reserve_in_use, 0];
    nodes.iter().map(line).chain([last]).collect()
}

#[test]
fn m5_a_tree_is_what_it_was_whichever_step_cannot_be_backed() {
    let m = machine(128);
    let scenario = |run: &Run<'_>| {
        let root = Node::root("total", m.frames);
        let [net, rx, tx] = ["network", "rx", "tx"].map(Node::new);
        let nodes = [&root, &net, &rx, &tx];
        // Does it, or leaves everything as it was.
        let try_to = |step, change: &dyn Fn() -> Result<(), ReserveError>| {
            run.step(step);
            let before = books(&m, &nodes);
            let result = run.need(change());
            assert!(result.is_some() || books(&m, &nodes) == before, "{step}");
            result.is_some()
        };
        try_to("limit of nobody's", &|| rx.set_limit(800, 8));
        try_to("leaf to loose parent", &|| rx.connect(&net));
        try_to("subtree to root", &|| net.connect(&root));
        try_to("limit of the root", &|| root.set_limit(0, 2));
        try_to("limit below", &|| tx.set_limit(400, 4));
        let connected = try_to("leaf to root", &|| tx.connect(&net));
        if try_to("limit rises", &|| tx.set_limit(600, 6)) {
            assert_eq!(tx.limit(), 600);
        } else if !connected {
            assert_eq!(tx.limit(), 400);
        }
        if let Ok(charge) = tx.charge(400) {
            assert_eq!(tx.set_limit(399, 3), Err(ReserveError::InUse));
            try_to("limit falls, charged", &|| tx.set_limit(400, 4));
            drop(charge);
        }
        let hog: Vec<Frame<'_>> = m.exhaust();
        let before = books(&m, &nodes);
        run.step("in want");
        if root.pages() > 2 && net.pages() > 0 {
            assert!(rx.set_limit(10_000, 60).is_err(), "nothing can back it");
            assert_eq!(books(&m, &nodes), before);
        }
        drop(hog);
        try_to("limit falls", &|| rx.set_limit(100, 1));
        let sum = root.pages() + RESERVE;
        assert_eq!(
            m.zone.stats().reserve,
            sum,
            "the root's frames are the zone's"
        );
        for node in [&tx, &rx, &net] {
            node.disconnect().unwrap();
        }
        root.set_limit(0, 0).unwrap();
        assert_eq!(root.pages(), 0);
    };
    sweep("reserve tree", m.injector, scenario, || m.at_rest());
    m.zone.grow(1).unwrap();
    m.zone.shrink(1);
}
