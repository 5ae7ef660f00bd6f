//! Fail-the-Nth sweep: every allocation that can fail does, once by itself and once with all after
//! it. No frame, object or charge is lost by that, and nothing is stuck when memory is back.

mod frames;
mod heap;
mod inject;
mod machine;
mod slabs;
mod tree;
