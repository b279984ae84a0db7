//! Hosts' events: their target connections, and the one subscription that brings them.
//!
//! A host names a connection, a session, a user, an agent or its organisation; its event reaches only connections of
//! its own organisation. An edge answers with the number of connections that took the event.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    limits,
    nats::{
        connection::soon,
        core::{Client, Subscriber},
    },
    subjects::{self, PushTo},
    wire::presence::PushReceipt,
};

type Target = (PushTo, String, String);

/// The connections of this edge, by the names that hosts use.
#[derive(Clone, Default)]
pub struct PushRegistry(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    connections: HashMap<Uuid, mpsc::Sender<Bytes>>,
    targets: HashMap<Target, HashSet<Uuid>>,
}

impl Table {
    fn take_out(&mut self, target: &Target, connection: Uuid) {
        let Some(ids) = self.targets.get_mut(target) else { return };
        ids.remove(&connection);
        if ids.is_empty() {
            self.targets.remove(target);
        }
    }
}

/// A connection's entry in the table, removed on drop.
pub struct PushRegistration {
    pushes: PushRegistry,
    id: Uuid,
    targets: HashSet<Target>,
}

impl PushRegistry {
    /// Registers a connection and returns the queue of its events.
    pub fn register(&self) -> (PushRegistration, mpsc::Receiver<Bytes>) {
        let (sender, queue) = mpsc::channel(limits::CONNECTION_PUSHES);
        let id = Uuid::new_v4();
        self.0.lock().expect("no panic happens under this lock").connections.insert(id, sender);
        (PushRegistration { pushes: self.clone(), id, targets: HashSet::new() }, queue)
    }

    /// Gives an event to all connections of a target; returns the number that took it.
    fn give(&self, target: &Target, event: &Bytes) -> u64 {
        let table = self.0.lock().expect("no panic happens under this lock");
        let ids = table.targets.get(target).into_iter().flatten();
        let queues = ids.filter_map(|id| table.connections.get(id));
        queues.filter(|queue| queue.try_send(event.clone()).is_ok()).count() as u64
    }

    /// Subscribes to the events of the region.
    pub async fn subscribe(client: &Client, region: &str) -> Result<Subscriber, String> {
        soon(client.subscribe(subjects::push_all(region))).await
    }

    /// Distributes events until the subscription ends; the replies name `edge`.
    pub async fn serve(self, client: Client, mut events: Subscriber, edge: Uuid) {
        while let Some(event) = events.next().await {
            let Some(target) = subjects::parse_push(&event.subject) else { continue };
            let delivered = self.give(&target, &event.payload);
            let Some(reply) = event.reply else { continue };
            let pushed = serde_json::to_vec(&PushReceipt { edge, delivered }).expect("a map with string keys");
            if let Err(error) = soon(client.publish(reply, pushed.into())).await {
                tracing::debug!(error, "a host did not get the number of connections that its event reached");
            }
        }
    }
}

impl PushRegistration {
    /// Adds a name by which hosts may reach the connection.
    pub fn called(&mut self, to: PushTo, org: &str, id: &str) {
        let target = (to, org.to_string(), id.to_string());
        if self.targets.insert(target.clone()) {
            let mut table = self.pushes.0.lock().expect("no panic happens under this lock");
            table.targets.entry(target).or_default().insert(self.id);
        }
    }

    /// Removes a name by which hosts may reach the connection.
    pub fn no_longer_called(&mut self, to: PushTo, org: &str, id: &str) {
        let target = (to, org.to_string(), id.to_string());
        if self.targets.remove(&target) {
            self.pushes.0.lock().expect("no panic happens under this lock").take_out(&target, self.id);
        }
    }

    /// Adds the connection to an organisation.
    pub fn belongs_to(&mut self, org: &str) {
        self.called(PushTo::Connection, org, &self.id.to_string());
        self.called(PushTo::Org, org, org);
    }
}

impl Drop for PushRegistration {
    fn drop(&mut self) {
        let mut table = self.pushes.0.lock().expect("no panic happens under this lock");
        table.connections.remove(&self.id);
        self.targets.iter().for_each(|target| table.take_out(target, self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_gets_events_for_its_targets_while_it_is_open() {
        let pushes = PushRegistry::default();
        let target = |org: &str| (PushTo::User, org.to_string(), "ada".to_string());
        let (mut a, mut queue) = pushes.register();
        a.called(PushTo::User, "acme", "ada");
        a.called(PushTo::User, "acme", "ada");
        assert_eq!(pushes.give(&target("acme"), &"hello".into()), 1);
        assert_eq!(pushes.give(&target("globex"), &"hello".into()), 0);
        assert_eq!(queue.try_recv().unwrap(), "hello");
        assert!(queue.try_recv().is_err());
        for _ in 0..limits::CONNECTION_PUSHES {
            assert_eq!(pushes.give(&target("acme"), &"more".into()), 1);
        }
        assert_eq!(pushes.give(&target("acme"), &"too much".into()), 0);
        drop(a);
        let table = pushes.0.lock().unwrap();
        assert!(table.connections.is_empty() && table.targets.is_empty());
    }
}
