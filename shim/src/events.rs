//! Events for containerd, in the order in which they happen.
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use containerd_shim::Context;
use containerd_shim::event::Event;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::warn;

/// What an event is told as.
type Message = (String, Box<dyn Send + Fn(&RemotePublisher, &str, &str) -> containerd_shim::Result<()>>);

/// Where containerd tells its shims that it takes events.
const ADDRESS: &str = "TTRPC_ADDRESS";
/// How often an event is offered to a containerd that does not answer, which may be starting again.
const ATTEMPTS: u64 = 5;

/// Takes events; never waits.
#[derive(Clone)]
pub(crate) struct Events(Sender<Message>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// Starts to publish.
    pub(crate) fn new(namespace: &str) -> Self {
        let (sender, receiver) = channel();
        let namespace = namespace.to_owned();
        let thread = std::thread::Builder::new().name("events".to_owned());
        let started = thread.spawn(move || publish(&receiver, &namespace));
        if let Err(error) = started {
            warn!("no events: {error}");
        }
        Self(sender)
    }

    /// Publishes.
    pub(crate) fn send<E: Event + Clone + Send>(&self, event: E) {
        let topic = event.topic();
        let tell = move |publisher: &RemotePublisher, topic: &str, namespace: &str| {
            publisher.publish(Context::default(), topic, namespace, Box::new(event.clone()))
        };
        // Without the thread nothing is published, as was said.
        let _unheard = self.0.send((topic, Box::new(tell)));
    }
}

/// Publishes what comes. A connection looks a hundred times a second whether something has come, so there is none while there is
/// nothing to say.
fn publish(events: &Receiver<Message>, namespace: &str) {
    let address = std::env::var(ADDRESS).unwrap_or_default();
    while let Ok(first) = events.recv() {
        let mut connection = None;
        for (topic, tell) in std::iter::once(first).chain(events.try_iter()) {
            for attempt in 1..=ATTEMPTS {
                let told = offer(&mut connection, &address, |publisher| tell(publisher, &topic, namespace));
                let Err(error) = told else { break };
                warn!("publish {topic}: {error}");
                connection = None;
                if attempt < ATTEMPTS {
                    std::thread::sleep(Duration::from_secs(attempt));
                }
            }
        }
    }
}

/// Says something over the connection, which is made if there is none.
fn offer(
    connection: &mut Option<RemotePublisher>,
    address: &str,
    tell: impl FnOnce(&RemotePublisher) -> containerd_shim::Result<()>,
) -> containerd_shim::Result<()> {
    match connection {
        Some(publisher) => tell(publisher),
        None => tell(connection.insert(RemotePublisher::new(address)?)),
    }
}
