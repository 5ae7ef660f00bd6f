//! The header of an area on its way from the store.

use core::task::Poll;

use crate::{
    AddressSpace, ErrorKind, Geometry, HeaderError, Instant, IoClass, IoOp, PageFrame, Slot,
    SpaceError, SubmitError, SwapHeader, SwapIo,
};

/// A frame for the header, and where it is.
pub(super) struct HeaderPage<F> {
    /// `None` while it is out with the request.
    frame: Option<F>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Idle,
    /// To be asked for, from a space that is active.
    Wanted(Geometry),
    Reading(Geometry),
    Read(Geometry, Result<(), ErrorKind>),
}

impl<F: PageFrame> HeaderPage<F> {
    pub(super) fn new(frame: F) -> Self {
        HeaderPage {
            frame: Some(frame),
            stage: Stage::Idle,
        }
    }

    /// The shape of the space whose header is being fetched.
    pub(super) fn fetching(&self) -> Option<Geometry> {
        match self.stage {
            Stage::Idle => None,
            Stage::Wanted(geometry) | Stage::Reading(geometry) | Stage::Read(geometry, _) => {
                Some(geometry)
            }
        }
    }

    /// Gets the page from an active space; call it again while it is pending.
    pub(super) fn fetch<A: AddressSpace<F>>(
        &mut self,
        space: &mut A,
        geometry: Geometry,
        now: Instant,
    ) -> Poll<Result<(), ErrorKind>> {
        if let Stage::Idle | Stage::Wanted(_) = self.stage {
            self.stage = Stage::Wanted(geometry);
            self.request(space, geometry, now);
        }
        self.collect(space, now);
        match self.stage {
            Stage::Read(_, result) => {
                self.stage = Stage::Idle;
                Poll::Ready(result)
            }
            _ => Poll::Pending,
        }
    }

    fn request<A: AddressSpace<F>>(&mut self, space: &mut A, geometry: Geometry, now: Instant) {
        let frames = self.frame.take().into_iter().collect();
        let io = SwapIo::new(IoOp::Read, Slot(0), IoClass::Demand, frames);
        self.stage = match space.submit(io, now) {
            Ok(_) => Stage::Reading(geometry),
            Err(mut refused) => {
                self.frame = refused.io.frames.pop();
                match refused.error {
                    SubmitError::Busy => Stage::Wanted(geometry),
                    _ => Stage::Read(geometry, Err(ErrorKind::Gone)),
                }
            }
        };
    }

    /// Takes the completion, if the request is out and finished. Nothing else is in flight then.
    pub(super) fn collect<A: AddressSpace<F>>(&mut self, space: &mut A, now: Instant) {
        if let Stage::Reading(geometry) = self.stage
            && let Some(mut completion) = space.poll(now)
        {
            self.frame = completion.io.frames.pop();
            let result = completion.result.map_err(|error| error.kind());
            self.stage = Stage::Read(geometry, result);
        }
    }

    /// Whether the request is out: whatever completes is its completion.
    pub(super) fn is_out(&self) -> bool {
        matches!(self.stage, Stage::Reading(_))
    }

    /// Forgets the outcome of what was fetched.
    pub(super) fn reset(&mut self) {
        if !self.is_out() {
            self.stage = Stage::Idle;
        }
    }

    /// Makes sense of the page.
    pub(super) fn read(&self, slots: u32) -> Result<SwapHeader<'_>, HeaderError> {
        let frame = self.frame.as_ref().ok_or(HeaderError::NoMagic)?;
        SwapHeader::read(frame.as_ref(), slots)
    }
}
