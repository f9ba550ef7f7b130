//! What the sentry reports about itself, on its standard error.
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// The exit code of a sandbox that gives up.
const GAVE_UP: i32 = 128 + 6;
/// That of a sandbox which was killed.
const KILLED: i32 = 128 + 9;

/// Whether lines are JSON, as the log of the command line is that they go to.
static JSON: AtomicBool = AtomicBool::new(false);

/// Says how lines are written from now on.
pub(crate) fn set_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// A line of a report, with its end.
pub(crate) fn format_line(json: bool, level: &str, text: &str) -> String {
    if !json {
        return format!("{text}\n");
    }
    let time = crate::timestamp(SystemTime::now());
    let time = format!("{}Z", time.get(..19).unwrap_or_default());
    format!("{}\n", serde_json::json!({"level": level, "msg": text, "time": time}))
}

/// Writes a line.
pub(crate) fn line(text: &str) {
    leveled("warning", text);
}

fn leveled(level: &str, text: &str) {
    let line = format_line(JSON.load(Ordering::Relaxed), level, text);
    // There is no other place to report to.
    let _unread = std::io::stderr().write_all(line.as_bytes());
}

/// Reports why the sandbox cannot go on, and ends it.
pub(crate) fn die(why: &str) -> ! {
    leveled("error", &format!("runsc: sandbox ends: {why}"));
    crate::exit_now(GAVE_UP)
}

/// Reports that a process of the sandbox was killed, by the host for want of memory for one, and ends the sandbox.
pub(crate) fn killed(what: &str) -> ! {
    leveled("error", &format!("runsc: sandbox ends: {what}"));
    crate::exit_now(KILLED)
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
