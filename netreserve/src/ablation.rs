//! Switches that turn one mechanism off, to show what it is there for.

mempool::__mechanisms! {
    /// Of a [`SkbPool`](crate::SkbPool). Off: while the reserve is open skbs are charged to it
    /// first, and stay emergency skbs wherever their memory came from.
    OrdinaryFirst = "ordinary-first", "N1";
    /// Of a [`SkbPool`](crate::SkbPool). Off: the reserve is open without a VMIO flow.
    FlowGate = "flow-gate", "N1";
    /// Of a [`SkbPool`](crate::SkbPool). Off: the charge ends as soon as the skb is made, which is
    /// no emergency skb then.
    ChargeWithSkb = "charge-with-skb", "N3";
    /// Of a [`SkbPool`](crate::SkbPool), for the skbs that it allocates from then on. Off: the charge
    /// stays with the skb that was cloned or split, and ends with it; the others look ordinary.
    ChargeWithClone = "charge-with-clone", "N3";
    /// Of a [`SkbPool`](crate::SkbPool). Off: an skb stays charged though ordinary memory came free
    /// for it.
    RetryOrdinary = "retry-ordinary", "M6";
    /// Of a [`SkbPool`](crate::SkbPool). Off: what is to be ordinary memory comes out of the
    /// reserve, uncharged, if the caller is in a memalloc scope.
    BestEffort = "best-effort", "M7";
    /// Of an [`Ingress`](crate::Ingress). Off: emergency skbs go to any socket, as on a system that
    /// has a reserve but does not look at what fills it.
    VmioFilter = "vmio-filter", "N2";
    /// Of an [`Ingress`](crate::Ingress). Off: emergency skbs for nobody here are left to other
    /// stacks, as ordinary ones are.
    EmergencyUnclaimed = "emergency-unclaimed", "N2";
    /// Of an [`Ingress`](crate::Ingress). Off: emergency skbs are sent with anything in them.
    EgressFilter = "egress-filter", "N2";
    /// Of a [`SocketTable`](crate::SocketTable). Off: queues are bounded by their entries alone.
    SocketLimits = "socket-limits", "N4";
    /// Of a [`SocketTable`](crate::SocketTable). Off: a socket may have sent as much as it likes.
    SendLimits = "send-limits", "N4";
    /// Of a [`SocketTable`](crate::SocketTable). Off: VMIO sockets are held to the limits of all, and
    /// the others may take every entry.
    VmioRoom = "vmio-room", "N7";
    /// Of a [`SocketTable`](crate::SocketTable). Off: what a socket holds when VMIO is cleared stays,
    /// whatever its memory and its limits.
    VmioSettle = "vmio-settle", "N7";
    /// Of a [`SocketTable`](crate::SocketTable). Off: the backlogs of VMIO sockets are processed in
    /// no memalloc scope.
    BacklogScope = "backlog-scope", "M1";
    /// Of a [`SocketTable`](crate::SocketTable). Off: a backlog takes on what comes in while it is
    /// being processed, as long as the queue has room.
    BacklogBound = "backlog-bound", "N4";
    /// Of a [`NeighbourCache`](crate::NeighbourCache). Off: entries of peers make room as all others do.
    PinnedNeighbours = "pinned-neighbours", "N8";
    /// Of a [`Reassembly`](crate::Reassembly). Off: fragments are bounded by their slots alone.
    ReassemblyBudget = "reassembly-budget", "N4";
    /// Of a [`Reassembly`](crate::Reassembly). Off: datagrams of VMIO are evicted with everybody's.
    ReassemblyVmio = "reassembly-vmio", "N8";
    /// Of [`RxLimits`](crate::RxLimits). Off: a holder may hold more though the reserve could not grow.
    GrowFirst = "grow-first", "N4";
    /// Of a `Reserved` device. Off: a received frame is handed up without a transmit skb in hand.
    /// If none can be had for the answer, or the ring is full, the answer is lost, and counted as a
    /// frame dropped. It is written to 16 KiB of stack then, which bounds the frames of the card.
    TransmitInHand = "transmit-in-hand", "N5";
    /// Of a `Reserved` device. Off: a transmit skb of the reserve is not exchanged for an ordinary
    /// one.
    SpareExchange = "spare-exchange", "N6";
    /// Of an [`Ingress`](crate::Ingress). Off: VMIO is dropped when the sockets of its protocol
    /// hold as much as they may.
    VmioBypass = "vmio-bypass", "N7";
    /// Of a `Reserved` device. Off: the swap stack advertises the window it likes, however few receive
    /// buffers are posted.
    PostedWindow = "posted-window", "N7";
    /// Of an [`Ingress`](crate::Ingress). Off: in an emergency skb the control plane of VMIO is
    /// dropped as a stranger's is.
    ControlPlane = "control-plane", "N8";
    /// Of an [`Ingress`](crate::Ingress). Off: everybody's ARP and neighbour discovery goes to the swap
    /// stack.
    ForeignArp = "foreign-arp", "N8";
    /// Of an [`Ingress`](crate::Ingress). Off: fragments of VMIO are dropped, or left to others, as all
    /// other fragments are.
    Fragments = "fragments", "N8";
    /// Of an [`Ingress`](crate::Ingress). Off: the renewal of our lease is anybody's UDP.
    Dhcp = "dhcp", "N8";
    /// Of an [`Ingress`](crate::Ingress). Off: consumers that keep what serves the VM are registered,
    /// and see, and take, emergency skbs as well.
    TapRefusal = "tap-refusal", "N2";
}
