//! What a run found out, and how it is told: a table for the terminal, JSON for scripts, and a page
//! with the timeline for a browser.
//!
//! [`Outcome`] is all that the three know; none of them measures anything.

mod chart;
mod html;
mod json;
mod outcome;
mod table;

pub(crate) use html::page;
pub(crate) use json::{object, refusal};
pub(crate) use outcome::{
    Component, Deadlock, Emergency, Flood, Frames, Outcome, Percentiles, Sample, Setup, Timeline,
    Verdict, Wait, Wire,
};
pub(crate) use table::closing_table;

#[cfg(test)]
pub(crate) mod example;
