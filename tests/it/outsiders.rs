//! Clients without proof: pages of other origins, rebound host names, visitors of widgets without tokens.

use serde_json::{Value, json};

use crate::{
    identity::handshake,
    support::{
        Edge, Stage,
        client::{Client, Session},
        frames::{answer_text, code},
        http::send,
    },
    widgets::{on_page, policies},
};

async fn open(client: &mut Client, fields: Value) -> Session {
    let mut action = json!({"action": "create_conversation_session", "agentId": "shop"});
    action.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let created = client.request(action).await;
    let text = |name: &str| created["data"][name].as_str().unwrap_or_else(|| panic!("{created:#}")).to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

async fn expect_nothing(client: &mut Client, victim: &Session, who: &str) {
    let page = client.request(json!({"action": "list_conversations", "limit": 200})).await;
    assert_eq!(page["data"]["conversations"], json!([]), "{who}");
    let rename = json!({"action": "rename_conversation", "conversationId": victim.conversation, "title": "mine"});
    assert_eq!(code(&client.request(rename).await), "CONVERSATION_NOT_FOUND", "{who}");
    let joined = client
        .request(json!({
            "action": "create_conversation_session", "agentId": "shop", "conversationId": victim.conversation,
        }))
        .await;
    assert_ne!(joined["data"]["conversationId"], victim.conversation.as_str(), "{who}");
}

/// Without tokens, policies decide: an anonymous visitor lists nothing, and reaches a conversation only by its session.
#[tokio::test]
async fn a_widget_without_tokens_shows_no_visitor_foreign_messages() {
    let stage = Stage::start().await;
    let (_folder, path) = policies();
    let strict = [("WIDGET_AUTH_FILE", path.as_str()), ("WIDGET_AUTH_STRICT", "1")];
    let mild = [("WIDGET_AUTH_FILE", path.as_str())];
    let wide = [("SMOOTH_AGENT_BIND", "0.0.0.0")];
    for (name, variables) in [("strict", &strict[..]), ("mild", &mild[..]), ("other machines", &wide[..])] {
        let (edge, worker) = tokio::join!(stage.edge_with(variables), stage.worker());
        let edge = Edge { address: edge.address.replace("0.0.0.0", "127.0.0.1"), ..edge };
        const SHOP: Option<&str> = Some("https://shop.example");
        let mut visitor = on_page(&edge, SHOP, "").await;
        let own = open(&mut visitor, json!({})).await;
        assert_eq!(answer_text(&visitor.ask(&own, "r1", "a secret").await), "ok");

        for origin in [SHOP, Some("https://evil.example"), None] {
            let mut stranger = on_page(&edge, origin, "").await;
            expect_nothing(&mut stranger, &own, &format!("{name}: {origin:?} without a session")).await;
            if origin == SHOP {
                open(&mut stranger, json!({})).await;
                expect_nothing(&mut stranger, &own, &format!("{name}: with a session of its own")).await;
            }
        }
        // A page that no policy admits can't use a session either.
        if name != "other machines" {
            let mut thief = on_page(&edge, Some("https://evil.example"), "").await;
            let get = json!({"action": "get_session", "sessionId": own.id});
            assert_eq!(code(&thief.request(get).await), "SESSION_NOT_FOUND", "{name}");
            let probe = json!({"agentId": "shop", "sessionId": own.id, "email": "a@example.org"});
            let from = [("origin", "https://evil.example")];
            let refused = send(&edge, "POST", "/internal/identity/resolve", &from, Some(&probe)).await;
            assert_eq!(refused.status(), 403, "{name}");
        }
        // The visitor comes back with the session, alone or beside the conversation's id.
        let mut back = on_page(&edge, SHOP, "").await;
        assert_eq!(back.history(&own).await, ["a secret", "ok"], "{name}");
        assert_eq!(
            open(&mut back, json!({"conversationId": own.conversation})).await.conversation,
            own.conversation,
            "{name}: the page has shown its session"
        );
        let mut both = on_page(&edge, SHOP, "").await;
        let fields = json!({"conversationId": own.conversation, "sessionId": own.id});
        assert_eq!(open(&mut both, fields).await.conversation, own.conversation, "{name}");
        let rename = json!({"action": "rename_conversation", "conversationId": own.conversation, "title": "mine"});
        assert_eq!(both.request(rename).await["status"], 200, "{name}");
        drop(worker);
    }
}

/// Sharing all conversations with all visitors is a setting, and off where it matters.
#[tokio::test]
async fn shared_conversations_need_a_setting() {
    let stage = Stage::start().await;
    let (_folder, path) = policies();
    let said = [("WIDGET_AUTH_FILE", path.as_str()), ("SMOOTH_AGENT_EVERYBODY_SEES_ALL", "true")];
    let unsaid = [("SMOOTH_AGENT_EVERYBODY_SEES_ALL", "false")];
    let (open_edge, closed, _worker) = tokio::join!(stage.edge_with(&said), stage.edge_with(&unsaid), stage.worker());
    let mut visitor = on_page(&open_edge, Some("https://shop.example"), "").await;
    let own = open(&mut visitor, json!({})).await;
    visitor.ask(&own, "r1", "hello").await;
    let mut other = on_page(&open_edge, Some("https://shop.example"), "").await;
    assert_eq!(open(&mut other, json!({"conversationId": own.conversation})).await.conversation, own.conversation);
    let mut local = Client::connect(&closed).await;
    expect_nothing(&mut local, &own, "a loopback edge with the setting").await;
}

async fn page(edge: &Edge, host: Option<&str>, origin: Option<&str>) -> Result<Client, u16> {
    let mut handshake = handshake(edge, "", None);
    for (name, value) in [("host", host), ("origin", origin)] {
        if let Some(value) = value {
            handshake.headers_mut().insert(name, value.parse().unwrap());
        }
    }
    Client::try_connect(handshake).await
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_by_a_local_edge() {
    let stage = Stage::start().await;
    let allowed =
        [("SMOOTH_AGENT_ALLOWED_ORIGINS", "https://*.shop.example"), ("SMOOTH_AGENT_ALLOWED_HOSTS", "dev.example")];
    let none = [("SMOOTH_AGENT_AUTH_MODE", "none")];
    let (edge, configured, open) = tokio::join!(stage.edge(), stage.edge_with(&allowed), stage.edge_with(&none));
    for edge in [&edge, &configured] {
        for origin in [None, Some("http://localhost:3000"), Some("http://127.0.0.1:8787"), Some("https://[::1]")] {
            page(edge, None, origin).await.unwrap().ping().await;
        }
        for origin in ["https://evil.example", "null", "http://localhost.evil.example", "http://localhost:3000/", ""] {
            assert_eq!(page(edge, None, Some(origin)).await.err(), Some(403), "{origin}");
        }
        for host in ["evil.example", "evil.example:8787", "127.0.0.1.evil.example"] {
            assert_eq!(page(edge, Some(host), None).await.err(), Some(403), "{host}");
        }
    }
    page(&configured, Some("dev.example:8787"), Some("https://a.shop.example")).await.unwrap().ping().await;
    assert_eq!(page(&edge, Some("dev.example"), None).await.err(), Some(403));

    // A page in a developer's browser is no administrator.
    let me = async |headers: &[(&str, &str)]| {
        let headers = [headers, &[("authorization", "Bearer anything")]].concat();
        send(&open, "GET", "/admin/me", &headers, None).await.status().as_u16()
    };
    assert_eq!(me(&[]).await, 200);
    assert_eq!(me(&[("origin", "http://localhost:8787")]).await, 200);
    assert_eq!(me(&[("origin", "https://evil.example")]).await, 403);
    assert_eq!(me(&[("host", "evil.example")]).await, 403);
    for path in ["/", "/audit", "/internal/resume-by-fingerprint"] {
        let refused = send(&edge, "GET", path, &[("host", "evil.example")], None).await;
        assert_eq!(refused.status(), 403, "{path}");
    }
    // Load balancers ask under any host name.
    assert_eq!(send(&edge, "GET", "/health", &[("host", "10.0.0.7")], None).await.status(), 200);
}
