//! Panics of simulated processes. A runtime catches them; a run must not go on as if nothing had been.

use std::cell::RefCell;
use std::sync::Once;

#[derive(Default)]
struct Here {
    now: u64,
    name: String,
    panic: Option<String>,
}

thread_local! {
    static HERE: RefCell<Here> = RefCell::default();
}

/// From now on panics of simulated machines are remembered by their thread rather than printed.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !env::simulation::is_on() {
                return before(panic);
            }
            let trace = std::backtrace::Backtrace::capture();
            HERE.with_borrow_mut(|here| {
                here.panic.get_or_insert_with(|| format!("{panic}\n{trace}"));
            });
        }));
    });
}

/// The world's time, for those who print.
pub fn at(now: u64) {
    HERE.with_borrow_mut(|here| here.now = now);
}

/// Whose turn it is.
pub fn of(name: &str) {
    HERE.with_borrow_mut(|here| {
        here.name.clear();
        here.name.push_str(name);
    });
}

/// The first panic since the last question.
pub fn take() -> Option<String> {
    HERE.with_borrow_mut(|here| here.panic.take())
}

/// Time and place, as log lines begin.
pub fn place() -> String {
    HERE.with_borrow(|here| format!("{:>7} {:<10}", here.now, here.name))
}
