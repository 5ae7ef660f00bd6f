//! An element that is out.

use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::PoolElement;

/// An element handed out by a [`Pool`](crate::Pool), and given back to it on drop.
///
/// It dereferences to what its element does: the bytes of a buffer or of a frame.
#[must_use = "the element goes back when the guard is dropped"]
pub struct Pooled<'a, E: PoolElement> {
    /// Present until the guard is dropped.
    element: Option<E>,
    keeper: &'a dyn Keeper<E>,
}

/// Takes an element back when its guard is dropped: a pool, without its type parameters.
pub(super) trait Keeper<E>: Sync {
    fn returned(&self, element: E);
}

const OUT: &str = "an element stays with its guard";

impl<'a, E: PoolElement> Pooled<'a, E> {
    pub(super) fn new(element: E, keeper: &'a dyn Keeper<E>) -> Self {
        Pooled {
            element: Some(element),
            keeper,
        }
    }

    /// Whether the element lies in reserve memory: only the entitled get such a one, and it does not
    /// stay in the pool (M4).
    #[must_use]
    pub fn from_reserve(&self) -> bool {
        self.element().reserve_derived()
    }

    /// The element itself, to look at.
    #[must_use]
    pub fn element(&self) -> &E {
        self.element.as_ref().expect(OUT)
    }
}

impl<E: PoolElement> Drop for Pooled<'_, E> {
    fn drop(&mut self) {
        if let Some(element) = self.element.take() {
            self.keeper.returned(element);
        }
    }
}

impl<E: PoolElement> Deref for Pooled<'_, E> {
    type Target = E::Target;

    fn deref(&self) -> &E::Target {
        self.element()
    }
}

impl<E: PoolElement> DerefMut for Pooled<'_, E> {
    fn deref_mut(&mut self) -> &mut E::Target {
        self.element.as_mut().expect(OUT)
    }
}

impl<E: PoolElement<Target = [u8]>> AsRef<[u8]> for Pooled<'_, E> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<E: PoolElement<Target = [u8]>> AsMut<[u8]> for Pooled<'_, E> {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl<E: PoolElement + fmt::Debug> fmt::Debug for Pooled<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pooled").field(self.element()).finish()
    }
}
