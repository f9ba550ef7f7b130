//! Events for containerd, in the order in which they happen.
use std::sync::mpsc::{Receiver, Sender, channel};

use containerd_shim::Context;
use containerd_shim::event::Event;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::warn;

/// What an event is told as.
type Message = (String, Box<dyn Send + FnOnce(&RemotePublisher, &str, &str) -> containerd_shim::Result<()>>);

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
    pub(crate) fn new(publisher: RemotePublisher, namespace: &str) -> Self {
        let (sender, receiver) = channel();
        let namespace = namespace.to_owned();
        let thread = std::thread::Builder::new().name("events".to_owned());
        let started = thread.spawn(move || publish(&receiver, &publisher, &namespace));
        if let Err(error) = started {
            warn!("no events: {error}");
        }
        Self(sender)
    }

    /// Publishes.
    pub(crate) fn send<E: Event + Send>(&self, event: E) {
        let topic = event.topic();
        let tell = move |publisher: &RemotePublisher, topic: &str, namespace: &str| {
            publisher.publish(Context::default(), topic, namespace, Box::new(event))
        };
        // Without the thread nothing is published, as was said.
        let _unheard = self.0.send((topic, Box::new(tell)));
    }
}

fn publish(events: &Receiver<Message>, publisher: &RemotePublisher, namespace: &str) {
    for (topic, tell) in events {
        if let Err(error) = tell(publisher, &topic, namespace) {
            warn!("publish {topic}: {error}");
        }
    }
}
