//! A stack of objects that are out of their slabs and have no owner.

use core::mem::MaybeUninit;

use super::slab::SlabObject;

/// Up to `2 * ROUNDS` objects. Dropping it loses them.
pub(crate) struct Magazine<const ROUNDS: usize> {
    /// The first `len` are there.
    rounds: [[MaybeUninit<SlabObject>; ROUNDS]; 2],
    len: usize,
}

impl<const ROUNDS: usize> Magazine<ROUNDS> {
    pub(crate) const EMPTY: Self = Magazine {
        rounds: [const { [const { MaybeUninit::uninit() }; ROUNDS] }; 2],
        len: 0,
    };

    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) const fn is_full(&self) -> bool {
        self.len == 2 * ROUNDS
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Option<SlabObject> {
        let last = self.len.checked_sub(1)?;
        self.len = last;
        // SAFETY: `last` is an index, since the length was one; the object is taken out for good.
        Some(unsafe {
            self.rounds
                .as_flattened()
                .get_unchecked(last)
                .assume_init_read()
        })
    }

    /// # Errors
    ///
    /// It is full, and the object comes back.
    #[inline]
    pub(crate) fn put(&mut self, object: SlabObject) -> Result<(), SlabObject> {
        let Some(round) = self.rounds.as_flattened_mut().get_mut(self.len) else {
            return Err(object);
        };
        round.write(object);
        self.len += 1;
        Ok(())
    }
}
