//! Switches that turn one mechanism off, to show what it is there for.

mempool::__mechanisms! {
    /// Of a [`Client`](crate::Client). Off: a WRITE that is not stable completes without a COMMIT.
    Stability = "stability", "S2";
    /// Of a [`Client`](crate::Client). Off: a new verifier is taken for the old one.
    Verifier = "verifier", "S2";
    /// Of a [`Client`](crate::Client). Off: a WRITE that moved less than it was to counts as
    /// complete.
    ShortCounts = "short-counts", "S2";
    /// Of a [`Client`](crate::Client). Off: no write is reported as
    /// [stray](swapspace::Completion::stray), whatever became of its first copy.
    StrayWrites = "stray-writes", "S3";
    /// Of a [`Client`](crate::Client). Off: a READ that met the end of the file counts as complete.
    FileEnd = "file-end", "S4";
    /// Of a [`Client`](crate::Client). Off: requests wait for ever.
    Deadline = "deadline", "S4";
    /// Of a [`SwapFile`](crate::SwapFile). Off: type, size and holes of the file are not looked at.
    FileCheck = "file-check", "S6";
    /// Of a [`SwapFile`](crate::SwapFile). Off: the first deactivation ends every activation.
    Nesting = "nesting", "S6";
    /// Of a `SmoltcpTcp` transport. Off: a connection is tagged VMIO only when it is up.
    TagBeforeSyn = "tag-before-syn", "S7";
    /// Of a [`Client`](crate::Client). Off: requests that were in flight when the connection was
    /// lost are not sent again, and wait for their deadline.
    Resend = "resend", "S7";
    /// Of a [`Client`](crate::Client). Off: records start oldest first, whatever their class.
    DemandFirst = "demand-first", "S8";
}

/// The crates' own tests look at one crate each.
#[cfg(all(test, feature = "ablation", feature = "smoltcp"))]
mod suite {
    extern crate std;

    use std::collections::BTreeSet;

    #[test]
    fn no_two_mechanisms_of_the_suite_have_the_same_name() {
        let ours = super::Mechanism::ALL.map(super::Mechanism::name);
        let memory = mempool::Mechanism::ALL.map(mempool::Mechanism::name);
        let network = netreserve::Mechanism::ALL.map(netreserve::Mechanism::name);
        let paging = swapspace::Mechanism::ALL.map(swapspace::Mechanism::name);
        let all = [&ours[..], &memory, &network, &paging].concat();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
