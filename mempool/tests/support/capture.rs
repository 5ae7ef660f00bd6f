//! A logger that keeps what its thread is told, and may call back.

// Named, since the tests of a `no_std` crate have no prelude with these.
use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::string::{String, ToString};
use std::sync::Once;
use std::vec::Vec;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Capture;

type Hook = Box<dyn Fn()>;

std::thread_local! {
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
    static HOOK: Cell<Option<&'static Hook>> = const { Cell::new(None) };
}

impl Log for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.args().to_string());
        LINES.with_borrow_mut(|lines| lines.push(line));
        if let Some(hook) = HOOK.get() {
            hook();
        }
    }

    fn flush(&self) {}
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Capture).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
}

/// Calls `hook` for every event of this thread, in the logger.
#[allow(dead_code)]
pub(crate) fn on_event(hook: Option<Hook>) {
    install();
    HOOK.set(hook.map(|hook| &*Box::leak(Box::new(hook))));
}

/// Takes what this thread was told since the last time.
pub(crate) fn lines() -> Vec<(Level, String)> {
    LINES.take()
}

/// Before anything is told: tests call it first.
#[allow(dead_code)]
pub(crate) fn listen() {
    install();
}
