//! What the sentry reports about itself, on its standard error.
use std::fmt::Write as _;
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// The exit code of a sandbox that gives up.
const GAVE_UP: i32 = 128 + 6;

/// Writes a line.
pub(crate) fn line(text: &str) {
    // There is no other place to report to.
    let _unread = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Reports why the sandbox cannot go on, and ends it.
pub(crate) fn die(why: &str) -> ! {
    line(&format!("runsc: sandbox ends: {why}"));
    crate::exit_now(GAVE_UP)
}

/// From now on a panic in any thread ends the sandbox with a report, and events of the code are reported as wanted.
pub(super) fn install(debug: bool) {
    std::panic::set_hook(Box::new(|info| die(&info.to_string().replace('\n', " "))));
    let level = if debug { Level::DEBUG } else { Level::ERROR };
    // Another one would be there only in a test.
    let _first = tracing::subscriber::set_global_default(Lines { level });
}

/// Writes events as lines; knows no spans.
struct Lines {
    level: Level,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = Text(format!("{} {}:", event.metadata().level(), event.metadata().target()));
        event.record(&mut text);
        line(&text.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string cannot fail.
        let _done = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
