//! A small machine for the tests: memory, one task, a zone.

use alloc::boxed::Box;
use alloc::vec;

use crate::{Buddy, FRAME_SIZE, FrameEntry, SingleTask, Watermarks, Zone};

pub(crate) struct Machine {
    pub(crate) zone: Zone<'static>,
    pub(crate) task: &'static SingleTask,
}

/// `frames` frames with a `min` mark of 8; everything is leaked, so that lifetimes do not matter.
pub(crate) fn machine(frames: usize) -> Machine {
    let memory = Box::leak(vec![0xa5u8; (frames + 1) * FRAME_SIZE].into_boxed_slice());
    let skip = memory.as_ptr().align_offset(FRAME_SIZE);
    let memory = &mut memory[skip..skip + frames * FRAME_SIZE];
    let table = Box::leak(vec![FrameEntry::EMPTY; frames].into_boxed_slice());
    let source: &'static Buddy<'static> = Box::leak(Box::new(Buddy::new(memory, table).unwrap()));
    let task: &'static SingleTask = Box::leak(Box::new(SingleTask::new()));
    let marks = Watermarks {
        min: 8,
        low: 10,
        high: 12,
    };
    Machine {
        zone: Zone::new(source, task, marks).unwrap(),
        task,
    }
}
