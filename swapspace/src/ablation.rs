//! Switches that turn one mechanism off, to show what it is there for.

mempool::__mechanisms! {
    /// Of a [`Pager`](crate::Pager). Off: when the space refuses a page-out, its slots are lost.
    Admission = "admission", "S1";
    /// Of a [`Pager`](crate::Pager). Off: a page whose write failed counts as clean, and goes.
    FailedWriteDirty = "failed-write-dirty", "S3";
    /// Of a [`Pager`](crate::Pager). Off: a page that was written to while it was being written
    /// counts as clean afterwards.
    Redirty = "redirty", "S3";
    /// Of a [`Pager`](crate::Pager). Off: the slots of writes that may still be carried out later
    /// (without an answer, or stray) are used again.
    RetireLate = "retire-late", "S3";
    /// Of a [`Pager`](crate::Pager). Off: pages stay writable while they are written, and their
    /// frames are written as they are: a table of copies does not bring them up to date.
    WriteProtect = "write-protect", "S3";
    /// Of a [`Pager`](crate::Pager). Off: a page is mapped though it could not be read.
    FailedRead = "failed-read", "S4";
    /// Of a [`Pager`](crate::Pager). Off: page-outs may take the last request.
    ReadCredit = "read-credit", "S8";
    /// Of a [`Pager`](crate::Pager). Off: page frames come out of the reserve if the caller is in a
    /// memalloc scope.
    OrdinaryPages = "ordinary-pages", "M7";
    /// Of a [`SwapArea`](crate::SwapArea). Off: it is deactivated though slots are in use. To give
    /// them back after it was activated anew panics.
    SlotsInUse = "slots-in-use", "S6";
}
