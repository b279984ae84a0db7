//! Access of clients without proof of identity, and of pages to an edge.
//!
//! Where widget policies are configured, or other machines reach the edge, a visitor reaches a conversation only by one of its
//! sessions. An edge on a loopback address that verifies nothing serves its own machine: pages of other origins, and foreign
//! host names that resolve to this machine (DNS rebinding), stay out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use url::{Host, Url};
use warp::http::{HeaderMap, HeaderValue, header};

use crate::{
    auth::{self, Principal, widget::origin},
    domain::{Command, Conversation, event::SessionIdentified},
    edge::Edge,
    live::relay::publish_owner,
    log::conversations::{ExecuteError, Freshness},
    nats::ReadError,
    subjects::ConversationKey,
    wire::stored::SessionRecord,
};

/// The page that a client runs in.
#[derive(Clone, Copy)]
pub enum ClientPage<'a> {
    /// Identified by its origin, if the handshake had one.
    Of(Option<&'a str>),
    /// Admitted to the same session before, on the same connection.
    Admitted,
}

/// A visitor's operation on a conversation that is named by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisitorRequest {
    Join,
    Rename,
}

/// The reason for refusing a request, worded for the author of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessRefusal {
    Origin,
    Host,
}

impl AccessRefusal {
    pub fn words(self) -> &'static str {
        match self {
            Self::Origin => {
                "pages of this origin may not connect: set SMOOTH_AGENT_ALLOWED_ORIGINS, tokens or widget policies"
            }
            Self::Host => {
                "this server is not known by this name: set SMOOTH_AGENT_ALLOWED_HOSTS, tokens or widget policies"
            }
        }
    }
}

impl Edge {
    /// Returns true if every visitor sees all conversations of the organisation.
    pub fn shows_all(&self) -> bool {
        let is_private = self.settings.is_loopback && !self.widgets.is_configured();
        !self.auth.is_on() && self.settings.access.everybody_sees_all.unwrap_or(is_private)
    }

    /// Returns true if a visitor needs a session of the conversation for an operation, not the conversation's id alone.
    ///
    /// With tokens on, ids are shown to owners only, and clients of the protocol join by them.
    pub fn wants_sessions(&self, wish: VisitorRequest) -> bool {
        match (self.auth.is_on(), wish) {
            (false, _) => !self.shows_all(),
            (true, VisitorRequest::Rename) => self.widgets.is_configured(),
            (true, VisitorRequest::Join) => false,
        }
    }

    /// Returns true if a client may use a session that it names.
    ///
    /// The client has proved its identity, or the agent's policy admits its page; and the conversation has gained no owner
    /// since, except one that the client or the session has proved to be.
    pub(in crate::edge) async fn may_use(
        &self,
        record: &SessionRecord,
        key: &ConversationKey,
        principal: Option<&Principal>,
        page: ClientPage<'_>,
    ) -> Result<bool, ReadError> {
        // A connection that was admitted once does not query the policy source again with every frame.
        if let (None, ClientPage::Of(origin)) = (principal, page)
            && self.widgets.is_configured()
            && !self.widgets.allows(&record.agent_id, origin).await
        {
            return Ok(false);
        }
        // An owner never changes.
        if !self.auth.is_on() || record.owner.is_some() {
            return Ok(true);
        }
        let state = self.conversations.load(key, Freshness::AtLeast(0)).await?;
        Ok(self.is_within(&state, record, principal))
    }

    /// Returns true if a client may still use a session of a conversation in this state.
    pub(in crate::edge) fn is_within(
        &self,
        state: &Conversation,
        record: &SessionRecord,
        principal: Option<&Principal>,
    ) -> bool {
        let proved = record.proved.as_deref().or_else(|| state.proved_by(record.session));
        !self.auth.is_on() || auth::may_reach(principal, &record.org, state.owner.as_deref(), proved)
    }

    /// Records that a session's user proved an address.
    ///
    /// If the proof makes an owner, the index learns it, and connections that watch the conversation check their access again.
    pub(in crate::edge) async fn identify(
        &self,
        key: &ConversationKey,
        state: Arc<Conversation>,
        identified: SessionIdentified,
    ) -> Result<(), ExecuteError> {
        let had_owner = state.owner.is_some();
        let executed = self.conversations.execute(key, state, &Command::Identify(identified), &self.author()).await?;
        if !had_owner && executed.state.owner.is_some() {
            self.owner_came(key, executed.recorded.seq).await;
        }
        Ok(())
    }

    /// Announces a conversation's new owner to the index and to its watchers.
    pub(in crate::edge) async fn owner_came(&self, key: &ConversationKey, seq: u64) {
        self.list_under_owner(key, seq);
        publish_owner(&self.client, key).await;
    }

    /// Checks that a request comes from a host and an origin that this edge serves.
    pub fn admits(&self, path: &str, headers: &HeaderMap) -> Result<(), AccessRefusal> {
        // Widget policies decide which pages may use agents; they do not cover administration.
        let decided = self.widgets.is_configured() && !path.starts_with("/admin");
        if !self.settings.is_loopback || self.auth.is_on() || decided {
            return Ok(());
        }
        let access = &self.settings.access;
        let text = |value: &HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
        let mut hosts = headers.get_all(header::HOST).iter().map(text);
        let is_known = |host: &String| is_loopback(host) || access.hosts.iter().any(|known| is_named(host, known));
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if is_known(&host) => {}
            _ => return Err(AccessRefusal::Host),
        }
        let may = |origin: String| {
            let own = origin::parse(&origin).is_some_and(|url| url.host().is_some_and(|host| is_loopback_host(&host)));
            own || origin::is_allowed(&access.origins, Some(&origin))
        };
        match headers.get_all(header::ORIGIN).iter().map(text).all(may) {
            true => Ok(()),
            false => Err(AccessRefusal::Origin),
        }
    }
}

/// Parses the host of a `Host` header, with or without a port.
fn host_of(authority: &str) -> Option<Url> {
    let url = Url::parse(&format!("http://{authority}/")).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.path() == "/" && url.query().is_none();
    is_bare.then_some(url)
}

fn is_loopback(authority: &str) -> bool {
    host_of(authority).and_then(|url| Some(is_loopback_host(&url.host()?))).unwrap_or(false)
}

/// Returns true if a `Host` header names a known host. A known host without a port matches every port.
fn is_named(authority: &str, known: &str) -> bool {
    let Some(url) = host_of(authority) else { return false };
    let name = url.host_str().unwrap_or_default();
    known == name || url.port().is_some_and(|port| known == format!("{name}:{port}"))
}

fn is_loopback_host(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
        }
        Host::Ipv4(address) => is_loopback_address(IpAddr::V4(*address)),
        Host::Ipv6(address) => is_loopback_address(IpAddr::V6(*address)),
    }
}

/// Returns true if an address is reachable from its own machine only.
pub fn is_loopback_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::is_loopback(&address),
        IpAddr::V6(address) => Ipv6Addr::is_loopback(&address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_name_is_told_from_a_lookalike() {
        for host in
            ["localhost", "localhost:8787", "LOCALHOST.:1", "app.localhost", "127.0.0.1:80", "127.8.9.1", "[::1]:8787"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example#localhost",
            "10.0.0.1",
            "localhost@evil.example",
            "evil.example/localhost",
            "[::2]",
            "0.0.0.0",
            "localhost:port",
            "notlocalhost",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
        assert!(is_named("Dev.Example:8787", "dev.example") && is_named("dev.example:8787", "dev.example:8787"));
        assert!(!is_named("dev.example:1", "dev.example:8787") && !is_named("x.dev.example", "dev.example"));
    }
}
