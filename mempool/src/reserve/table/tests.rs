use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::*;
use crate::testbed::machine;
use crate::{ChargeError, ReserveError};

type Node<'t> = ReserveNode<'t>;

const HEAD: &str =
    "reserve                       limit        usage         peak    pages   failures";

fn table(node: &Node<'_>) -> String {
    let table = node.to_string();
    let rows = table.strip_prefix(HEAD).expect("the head comes first");
    String::from(rows)
}

fn names(node: &Node<'_>) -> Vec<(usize, &'static str)> {
    node.walk()
        .map(|(depth, node)| (depth, node.name))
        .collect()
}

#[test]
fn the_whole_tree_is_shown_and_follows_every_change() {
    let m = machine(64);
    let root = Node::root("total", &m.zone);
    let [net, rx, tx, frag, swap] = ["network", "rx", "tx", "reassembly", "swap"].map(Node::new);
    rx.set_limit(16_128, 4).unwrap();
    tx.set_limit(8064, 2).unwrap();
    frag.set_limit(4096, 3).unwrap();
    swap.set_limit(7, 1).unwrap();

    // From below, before there is a root.
    rx.connect(&net).unwrap();
    tx.connect(&net).unwrap();
    net.connect(&root).unwrap();
    frag.connect(&net).unwrap();
    swap.connect(&root).unwrap();
    let charge = rx.charge(16_000).unwrap();
    assert_eq!(rx.charge(129).unwrap_err(), ChargeError::OverLimit);
    assert_eq!(
        table(&root),
        "
total                             0            0            0       10          0
  network                         0            0            0        9          0
    rx                        16128        16000        16000        4          1
    tx                         8064            0            0        2          0
    reassembly                 4096            0            0        3          0
  swap                            7            0            0        1          0"
    );
    drop(charge);

    // The first child, and one in the middle, leave; one comes back, and is the last.
    tx.disconnect().unwrap();
    rx.disconnect().unwrap();
    tx.connect(&net).unwrap();
    assert_eq!(
        table(&root),
        "
total                             0            0            0        6          0
  network                         0            0            0        5          0
    reassembly                 4096            0            0        3          0
    tx                         8064            0            0        2          0
  swap                            7            0            0        1          0"
    );
    assert_eq!(names(&rx), [(0, "rx")]);

    // A subtree goes, and is whole by itself.
    net.disconnect().unwrap();
    assert_eq!(names(&root), [(0, "total"), (1, "swap")]);
    assert_eq!(names(&net), [(0, "network"), (1, "reassembly"), (1, "tx")]);
    net.connect(&swap).unwrap();
    assert_eq!(
        names(&root),
        [
            (0, "total"),
            (1, "swap"),
            (2, "network"),
            (3, "reassembly"),
            (3, "tx")
        ]
    );
    // From the middle of a tree it is what lies below, and not the siblings.
    swap.disconnect().unwrap();
    assert_eq!(names(&root), [(0, "total")]);
    assert_eq!(names(&tx), [(0, "tx")]);
}

#[test]
fn m5_what_is_rolled_back_is_not_in_the_table() {
    let m = machine(64);
    let root = Node::root("total", &m.zone);
    let [net, big] = ["network", "big"].map(Node::new);
    net.connect(&root).unwrap();
    big.set_limit(1, 1000).unwrap();
    assert!(matches!(big.connect(&net), Err(ReserveError::Backing(_))));
    assert_eq!(names(&root), [(0, "total"), (1, "network")]);
    assert_eq!(net.connect(&big), Err(ReserveError::Connected));
    assert_eq!(names(&big), [(0, "big")]);
    assert_eq!(root.stats().pages, 0);
    big.set_limit(1, 10).unwrap();
    big.connect(&net).unwrap();
    assert!(big.set_limit(1, 1000).is_err());
    assert_eq!(root.walk().last().unwrap().1, big.stats());
    assert_eq!((root.stats().pages, big.stats().pages), (10, 10));
}

/// Whatever writes a row may ask the tree: no lock is held meanwhile. (The lock of these nodes panics when
/// its holder takes it again.)
#[test]
fn a_row_is_written_without_a_lock() {
    struct Asks<'n, 't>(&'n [Node<'t>], String);

    impl fmt::Write for Asks<'_, '_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for node in self.0 {
                node.set_limit(node.limit(), 1).unwrap();
            }
            self.1.push_str(text);
            Ok(())
        }
    }

    let m = machine(64);
    let root = Node::root("total", &m.zone);
    let nodes = ["a", "b", "c"].map(Node::new);
    let [a, b, c] = &nodes;
    b.connect(a).unwrap();
    c.connect(a).unwrap();
    a.connect(&root).unwrap();
    let mut asks = Asks(&nodes, String::new());
    fmt::write(&mut asks, format_args!("{root}")).unwrap();
    assert_eq!(asks.1.lines().count(), 5);
}

/// Who moves a node while the table is made may cost rows; not the end of it, nor wrong ones.
#[test]
fn a_node_that_moves_under_the_walk_does_not_mislead_it() {
    let m = machine(64);
    let root = Node::root("total", &m.zone);
    let other = Node::new("other");
    let [a, b, c, d] = ["a", "b", "c", "d"].map(Node::new);
    other.connect(&root).unwrap();
    a.connect(&other).unwrap();
    b.connect(&other).unwrap();
    c.connect(&root).unwrap();

    let mut walk = root.walk();
    assert!(walk.by_ref().any(|(_, node)| node.name == "other"));
    // The walk has looked ahead: it is at `a`, which leaves.
    a.disconnect().unwrap();
    let rest: Vec<_> = walk.map(|(depth, node)| (depth, node.name)).collect();
    assert_eq!(rest, [(2, "a"), (2, "b"), (1, "c")]);

    let mut walk = root.walk();
    assert!(walk.by_ref().any(|(_, node)| node.name == "b"));
    c.disconnect().unwrap();
    c.connect(&a).unwrap();
    d.connect(&a).unwrap();
    let rest: Vec<_> = walk.map(|(depth, node)| (depth, node.name)).collect();
    assert_eq!(rest, [(1, "c"), (1, "d")], "where it went, and no further");
}

/// A snapshot in the middle of a charge: the backing is called with the nodes locked.
#[test]
fn a_snapshot_of_a_node_takes_no_lock() {
    use core::sync::atomic::{AtomicUsize, Ordering};

    struct Backing(AtomicUsize, std::sync::OnceLock<&'static Node<'static>>);

    impl crate::ReserveBacking for Backing {
        fn grow(&self, _: usize) -> Result<(), crate::BackingError> {
            if let Some(node) = self.1.get() {
                assert!(node.state.try_lock().is_none(), "it is locked");
                self.0.fetch_add(node.stats().pages, Ordering::Relaxed);
                assert_eq!(
                    (node.usage(), node.limit(), node.peak(), node.pages()),
                    (0, 0, 0, 3)
                );
            }
            Ok(())
        }

        fn shrink(&self, _: usize) {}
    }

    let leak = |node| &*alloc::boxed::Box::leak(alloc::boxed::Box::new(node));
    let backing = alloc::boxed::Box::leak(alloc::boxed::Box::new(Backing(
        AtomicUsize::new(0),
        std::sync::OnceLock::new(),
    )));
    let (root, rx): (&Node<'_>, &Node<'_>) =
        (leak(Node::root("total", backing)), leak(Node::new("rx")));
    rx.connect(root).unwrap();
    rx.set_limit(0, 3).unwrap();
    backing.1.set(rx).unwrap();
    rx.set_limit(0, 5).unwrap();
    assert_eq!(backing.0.load(Ordering::Relaxed), 3);
}
