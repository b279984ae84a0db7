//! Caps and timeouts that are not configuration, each with its unit and its reason.

mod mcp;

pub use mcp::*;

/// Largest client frame without attachments. Messages fit with room.
pub const CLIENT_FRAME_MAX_BYTES: usize = 256 * 1024;
/// Largest client frame: attachments of [`ATTACHMENTS_MAX_BYTES`] in base64, and a message.
pub const LARGE_FRAME_MAX_BYTES: usize = ATTACHMENTS_MAX_BYTES / 3 * 4 + CLIENT_FRAME_MAX_BYTES;
/// Bytes of large frames that one edge buffers at once; further ones wait. A frame takes twice its size while it is read.
pub const LARGE_FRAMES_BYTES: usize = 4 * LARGE_FRAME_MAX_BYTES;
/// Time for a client to send a large frame, waiting included: 8 MiB over 2 Mbit/s.
pub const LARGE_FRAME_MS: u64 = 60_000;
/// Minimum pace of a large frame, in bytes per interval: 100 kbit/s, a tenth of a slow phone's.
pub const LARGE_FRAME_PACE_BYTES: u64 = 64 * 1024;
pub const LARGE_FRAME_PACE_MS: u64 = 5_000;
/// Time for a client to send any other frame.
pub const SMALL_FRAME_MS: u64 = 20_000;
/// Bytes of other unfinished frames that one edge buffers, beyond the first [`FRAME_FREE_BYTES`] of each: ordinary messages never wait.
pub const SMALL_FRAMES_BYTES: usize = 16 * 1024 * 1024;
pub const FRAME_FREE_BYTES: usize = 16 * 1024;
/// Largest attachment, and total of one message: camera pictures and ordinary documents fit. They are held in memory.
pub const ATTACHMENT_MAX_BYTES: usize = 8 * 1024 * 1024;
pub const ATTACHMENTS_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of images that one worker holds on their way to the model; later ones wait. Encoded as text, in a request, they take three
/// times as much.
pub const IMAGES_BYTES: usize = 4 * ATTACHMENTS_MAX_BYTES;
/// Largest object: an encrypted attachment.
pub const OBJECT_MAX_BYTES: usize = ATTACHMENT_MAX_BYTES + 16;
/// List entries that are decrypted in parallel: each may need a read of its conversation's key.
pub const LIST_OPEN_PARALLEL: usize = 32;
/// Time for which a process trusts a cached conversation key: without notice of an erasure, erased content stays readable for at most
/// this time. And cached keys, of about 700 bytes each.
pub const KEYS_FRESH_SECS: u64 = 5;
pub const KEYS_CACHED: u64 = 50_000;
/// Poll interval of the erasure ledger: the notice on core NATS is faster, but can be missed.
pub const ERASURES_EVERY_MS: u64 = 2_000;
/// Time for which a process keeps clear text that it has read, of folds and of session records.
pub const CLEAR_TEXT_SECS: u64 = 600;
/// Conversations that one entry of the erasure ledger names, of 40 bytes each; and those erased in parallel.
pub const ERASE_BATCH: usize = 5_000;
pub const ERASE_PARALLEL: usize = 16;
/// Conversations that a retention sweep reads, and holds in memory, before it erases them. And conversations per request for last
/// events; the server returns the last event of each kind.
pub const RETAIN_BATCH: usize = 500;
pub const RETAIN_LOOKUP: usize = 64;
/// Conversations per request for keys: each has one key per class.
pub const RETAIN_KEYS: usize = 400;
/// Images of one message, and files of one message.
pub const ATTACHMENTS_MAX: usize = 8;
/// Longest URL of an attachment, and name of a file: both are stored with the message and sent with every tool call.
pub const ATTACHMENT_URL_MAX_BYTES: usize = 2_048;
/// Time for the name lookup of an attachment's URL, and lookups in parallel.
pub const ATTACHMENT_LOOKUP_MS: u64 = 2_000;
pub const ATTACHMENT_LOOKUPS: usize = 16;
pub const ATTACHMENT_NAME_MAX_CHARS: usize = 255;
/// Chunk size of an object, as in the client libraries.
pub const OBJECT_CHUNK_BYTES: usize = 128 * 1024;
/// Age after which a re-sent object is written again: half of the 30 days that the stream keeps it.
pub const OBJECT_FRESH_SECS: i64 = 15 * 24 * 3600;
/// Time after its last chunk in which an upload can be joined: half of the stream's deduplication window for chunks.
pub const OBJECT_UPLOAD_SECS: i64 = 60;
/// Longest user message, from the protocol.
pub const MESSAGE_MAX_CHARS: usize = 10_000;
/// Longest requestId: it is stored with the turn and echoed in every frame of it.
pub const REQUEST_ID_MAX_BYTES: usize = 256;
/// Longest token: the head of the request that carries it is bounded too.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// Largest clock difference between a token issuer and this server.
pub const CLOCK_SKEW_SECS: u64 = 30;
/// Longest organisation and user of a token: they become parts of subjects, which a server limits to 4 KiB.
pub const ORG_MAX_BYTES: usize = 128;
pub const USER_MAX_BYTES: usize = 256;
/// Longest token of a subject. Every name that is bounded on input is shorter.
pub const SUBJECT_TOKEN_MAX_BYTES: usize = 2_500;
/// Time for which an issuer's keys are fresh; age at which no caller gets them unrefreshed; and the interval between reads caused by
/// tokens with an unknown key.
pub const JWKS_FRESH_SECS: u64 = 300;
pub const JWKS_STALE_SECS: u64 = 1_200;
pub const JWKS_RETRY_MS: u64 = 10_000;
/// Time for an issuer to return its keys, and size of the answer.
pub const JWKS_TIMEOUT_MS: u64 = 5_000;
pub const JWKS_MAX_BYTES: usize = 256 * 1024;
/// Largest age of a host's signed user context, or distance in the future, from the protocol.
pub const CONTEXT_AGE_MAX_SECS: u64 = 60;
/// Time for the widget policy service, from the protocol; size of its answer; and cached policies.
pub const WIDGET_POLICY_MS: u64 = 5_000;
pub const WIDGET_POLICY_MAX_BYTES: usize = 64 * 1024;
pub const WIDGET_POLICIES_CACHED: u64 = 10_000;
/// Time for which a service's last policy holds while the service fails: a longer outage is noticed.
pub const WIDGET_POLICY_HOLDS_SECS: u64 = 3_600;
/// Groups of a principal that are stored with its requests.
pub const GROUPS_MAX: usize = 256;
/// Longest stored name or e-mail of a participant.
pub const NAME_MAX_CHARS: usize = 200;
/// Longest stored title, and length of a title derived from a first message, from the protocol.
pub const TITLE_MAX_CHARS: usize = 60;
/// Largest `metadata` object of a session, as JSON.
pub const METADATA_MAX_BYTES: usize = 16 * 1024;
/// Most `supports` entries that are stored, and the longest of them.
pub const SUPPORTS_MAX: usize = 32;
pub const SUPPORTS_MAX_CHARS: usize = 64;

/// Largest configuration of an agent, as JSON, and of one tool's settings in it, which are sent in a header of each call.
pub const AGENT_CONFIG_MAX_BYTES: usize = 64 * 1024;
pub const TOOL_SETTINGS_MAX_BYTES: usize = 4 * 1024;
/// Longest persona or greeting: a few pages.
pub const PERSONA_MAX_CHARS: usize = 20_000;
/// Poll interval of edges for changed configurations: well below the promised second.
pub const AGENTS_EVERY_MS: u64 = 300;
/// Overlap with which a starting edge rereads configuration changes, because a replica of the bucket may lag; and agents per request
/// for configurations.
pub const AGENTS_LAG_SECS: i64 = 60;
pub const AGENTS_LOOKUP: usize = 500;
pub const SECRET_MAX_BYTES: u64 = 16 * 1024;
/// Configuration versions that one process caches.
pub const AGENT_VERSIONS_CACHED: u64 = 1_000;
/// Longest body of a skill: it is stored with each turn that names the skill.
pub const SKILL_MAX_BYTES: usize = 64 * 1024;
/// Time for the host's one-time password service.
pub const OTP_MS: u64 = 10_000;
/// Time after an abandoned request in which the service may still send its password: no other password is requested before its end.
pub const OTP_LATE_MS: u64 = 5_000;
/// One-time passwords per hour: of a session, and of one client address group to one mailbox or number. Then those to a mailbox or
/// number from all sources, in a window too short for strangers to keep its owner out for long.
pub const CODES_SESSION_MAX: u64 = 5;
pub const CODES_PAIR_MAX: u64 = 5;
pub const CODES_CONTACT_MAX: u64 = 10;
pub const CODES_CONTACT_SECS: i64 = 600;
/// Tries to enter a one-time password: the service may allow fewer.
pub const CODE_TRIES_MAX: u64 = 5;
/// Longest one-time password that is forwarded.
pub const OTP_CODE_MAX_BYTES: usize = 64;
/// Time for the workflow judge before its step counts as not done.
pub const JUDGE_MS: u64 = 15_000;
/// Longest preamble that is shown while the answer is awaited, its model's token limit, and the judge's.
pub const PREAMBLE_MAX_CHARS: usize = 300;
pub const PREAMBLE_TOKENS: u32 = 60;
pub const JUDGE_TOKENS: u32 = 200;
/// Suggested replies of one answer.
pub const SUGGESTED_REPLIES: usize = 4;

/// Largest stored event. NATS allows 1 MiB per message by default; headers and JSON escapes need room.
pub const EVENT_MAX_BYTES: usize = 512 * 1024;
/// Largest stored tool result; longer ones are cut and marked.
pub const TOOL_RESULT_MAX_BYTES: usize = 64 * 1024;
/// Largest message of a document: a passage with its vector.
pub const KNOWLEDGE_MESSAGE_MAX_BYTES: usize = 512 * 1024;
/// Tries to write a document while the server does not answer or has too many batches open.
pub const KNOWLEDGE_WRITE_TRIES: u32 = 8;
/// Poll interval of workers for new documents: well below the promised second.
pub const KNOWLEDGE_EVERY_MS: u64 = 200;
/// Interval of the check that the knowledge stream is still the same one.
pub const KNOWLEDGE_CHECK_EVERY_MS: u64 = 5_000;
/// Time for a query's embedding, a rerank or an external search before the answer continues without it.
pub const RETRIEVE_MS: u64 = 2_000;
/// Passages ranked by each method before fusion, and those of them that are reranked.
pub const CANDIDATES: usize = 50;
pub const RERANKED: usize = 20;
/// Memory of the text index for documents not yet written to a segment.
pub const INDEX_WRITER_BYTES: usize = 32 * 1024 * 1024;
/// Largest reply text of one model call, so that its event stays below [`EVENT_MAX_BYTES`].
pub const REPLY_MAX_BYTES: usize = 256 * 1024;
/// Parts of a frame trace, which is stored with its reply: frames at 2 to 4 bytes each (an answer of 8,192 tokens takes 16 KiB), the
/// text beside the answer, and text that no reply holds because the call brought none. With a third more for base64 they fit into an event
/// with a reply of [`REPLY_MAX_BYTES`]; if not, the event is stored without them.
pub const SHOWN_FRAMES_MAX_BYTES: usize = 64 * 1024;
pub const SHOWN_ASIDE_MAX_BYTES: usize = 64 * 1024;
pub const SHOWN_REST_MAX_BYTES: usize = 128 * 1024;
/// Longest pause between two moments of a replay on a page: a viewer need not wait as long as the participants did.
pub const REPLAY_PAUSE_MAX_MS: u64 = 3_000;
/// Largest message of a replay's page to its server.
pub const REPLAY_WORD_MAX_BYTES: usize = 1_024;
/// Largest history page on the wire (clients take 1 MiB a frame).
pub const PAGE_MAX_BYTES: usize = 900 * 1024;
/// Recent messages that the fold keeps with their text: enough for a model call and a history page.
pub const FOLD_MESSAGES: usize = 50;
/// Text bytes of the fold in total, so that its snapshot stays below 256 KiB.
pub const FOLD_TEXT_MAX_BYTES: usize = 128 * 1024;
/// Sessions with visitor facts in the fold: more than have a running form or password at once.
pub const FOLD_SESSIONS: usize = 32;
/// Finished turns in the fold, by which a late retry's requestId is recognised.
pub const FOLD_REQUESTS: usize = 64;
/// Sequences of older messages in the fold: the reach of `get_conversation_messages`.
pub const FOLD_OLDER: usize = 20_000;
/// Messages of a conversation in a model request, from the protocol.
pub const MODEL_MESSAGES: usize = 50;

/// Locks for first reads of conversations: so many that two conversations rarely share one.
pub const COLD_LOADS: usize = 1_024;
/// Events, and their payload bytes, of a chain that is followed back and held until it is folded: more than lies between two snapshots.
/// A longer chain is read and folded in stream order.
pub const CHAIN_EVENTS: usize = 1_000;
pub const CHAIN_BYTES: usize = 8 * 1024 * 1024;
/// Memory for the folds that one process caches. One fold counts as a quarter of it at most: a running turn with large results may take
/// more, and its worker holds them anyway.
pub const FOLDS_CACHED_BYTES: u64 = 48 * 1024 * 1024;
/// Session records that one edge caches.
pub const SESSIONS_CACHED: u64 = 200_000;
/// Snapshots larger than the first limit are compressed, and larger than the second not stored: the bucket takes 512 KiB.
pub const FOLD_PLAIN_MAX_BYTES: usize = 128 * 1024;
pub const FOLD_CACHED_MAX_BYTES: usize = 480 * 1024;
/// Largest snapshot, as JSON, that is read from the bucket: a running turn with large results.
pub const FOLD_READ_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Events since the last snapshot after which a worker writes the next one.
pub const FOLD_CACHE_EVERY_EVENTS: u64 = 12;

/// Time for the ack of one try of an append. An R3 leader change takes several seconds; tries repeat.
pub const APPEND_TRY_MS: u64 = 2_500;
/// Time for all tries of an append: longer than a leader's re-election (5–7 s measured), shorter than a client's 30 s.
pub const APPEND_DEADLINE_MS: u64 = 12_000;
/// First and largest pause between two tries of a storage operation.
pub const RETRY_FIRST_MS: u64 = 50;
pub const RETRY_MAX_MS: u64 = 1_000;
/// Time for one read request, and for a whole load with its retries.
pub const READ_TRY_MS: u64 = 2_000;
pub const READ_DEADLINE_MS: u64 = 10_000;
/// Tries of a decision after lost races, before the caller is told that storage is busy.
pub const DECIDE_TRIES: u32 = 50;
/// Time after which the event of a person's action, if stored only then, folds to nothing: its client is told of an error, and not
/// before that time. As long as an append is tried.
pub const ACT_NOT_AFTER_MS: i64 = 12_000;
/// Extra wait of the client for that error: the possible error of the measured clock offset.
pub const ACT_DOUBT_MS: i64 = 500;
/// Largest difference between the clocks of a process and of the log's server: beyond it the process is not ready, because the times
/// that it writes are wrong.
pub const CLOCK_OFFSET_MAX_MS: i64 = 5_000;

/// Largest body of a widget's request, and time for the body of such a request or of one over MCP.
pub const INTERNAL_BODY_MAX_BYTES: usize = 16 * 1024;
pub const INTERNAL_BODY_MS: u64 = 10_000;
/// Conversations restored for a visitor who has proved an address.
pub const RESTORED_MAX: usize = 10;
/// Client addresses with a message count on one edge.
pub const ADDRESSES_COUNTED: u64 = 100_000;
/// Retry hints for a refused client: a connection, and a turn of an organisation at its limit of turns.
pub const CONNECTION_RETRY_SECS: u64 = 30;
pub const TURN_RETRY_SECS: u64 = 5;
/// Lifetime of an edge's reported number of connections; the edge renews it after a third of that.
pub const CONNECTIONS_TTL_SECS: u64 = 60;
/// Conversations that are checked in parallel to count running turns.
pub const QUOTA_PARALLEL: usize = 16;

/// Conversations that one connection watches: each is a subscription for as long as the connection lives.
pub const CONNECTION_WATCHED: usize = 500;
/// Conversations that a connection has reached by a session: more than a client has open.
pub const REACHED_MAX: usize = 64;
/// Bytes of frames that may always queue for one connection: 500 of a flat-out model's, or eight long results.
pub const CONNECTION_QUEUE_BYTES: usize = 256 * 1024;
/// Bytes that may queue for one connection while there is room: several turns with long answers at once, on a busy machine.
pub const CONNECTION_QUEUE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bytes queued for all connections of a process, beyond which connections above their own share are closed.
pub const QUEUES_BYTES: usize = 16 * 1024 * 1024;
/// Largest tool result in a frame, as JSON text: eight of them fit the guaranteed queue of a connection. A control character takes six
/// bytes there. The log keeps the whole result.
pub const SHOWN_RESULT_MAX_BYTES: usize = 32 * 1024;
/// Bytes of frames that are written to a socket in one go.
pub const WRITE_BATCH_BYTES: usize = 32 * 1024;
/// Time for one write to a socket before the client counts as gone.
pub const SOCKET_WRITE_MS: u64 = 10_000;
/// Read buffer of one connection; the WebSocket library allocates it eagerly.
pub const SOCKET_READ_BUFFER_BYTES: usize = 2 * 1024;
/// Largest head of a request, and most headers in it: a token and a browser's cookies fit with room.
pub const HEAD_MAX_BYTES: usize = 16 * 1024;
pub const HEADERS_MAX: usize = 100;
/// Time for a client to send the head of its HTTP request.
pub const HEAD_READ_MS: u64 = 10_000;
/// Pings that a client may leave unanswered.
pub const PINGS_MISSED: u32 = 2;
/// Time for a closing handshake.
pub const CLOSE_WAIT_MS: u64 = 1_000;
/// NATS subscription queue of one live subject; async-nats drops frames beyond it, which the frame numbers reveal.
pub const NATS_SUBSCRIPTION_FRAMES: usize = 1_024;
/// Silence of an attached turn after which it is checked against the log.
pub const SILENCE_CHECK_MS: u64 = 5_000;
/// Silence towards a client with a running turn after which it gets a keepalive (30 s at most, from the protocol).
pub const KEEPALIVE_MS: u64 = 25_000;
/// Time for a repair to read the LIVE stream.
pub const REPAIR_MS: u64 = 1_000;

/// Messages of one batched read: below the server's 1,024, and below the queue of a subscription.
pub const READ_BATCH: usize = 1_000;
/// Events per pull of the index's consumer, and conversations that are updated in parallel.
pub const INDEX_BATCH: usize = 256;
pub const INDEX_PARALLEL: usize = 8;
/// Time for which a counter surely deduplicates an id: its stream's window is two minutes.
pub const COUNTED_ONCE_SECS: i64 = 100;
/// Entries that are scanned for one page of a filtered list, before the page is returned incomplete.
pub const LIST_SCAN_MAX: usize = 5_000;
/// Conversations of one day that are listed, the newest ones: they are sorted in memory.
pub const LIST_DAY_MAX: usize = 20_000;
/// Time for a model to name a conversation, the length of the message in its request, and its token limit.
pub const TITLE_TIMEOUT_MS: u64 = 20_000;
pub const TITLE_MESSAGE_CHARS: usize = 2_000;
pub const TITLE_MAX_TOKENS: u32 = 256;

/// Work items per pull.
pub const PULL_BATCH: usize = 64;
/// Time that one pull waits at the server.
pub const PULL_EXPIRES_MS: u64 = 5_000;
/// Interval of progress acks and log checks while a turn runs: a third of the consumer's `ack_wait` (6 s).
pub const PROGRESS_MS: u64 = 2_000;
/// Time for which a worker relies on its last read of a turn's owner: less than the consumer's `ack_wait` (6 s), after which another
/// worker may own the turn.
pub const LEASE_MS: u64 = 4_000;
/// The consumer's `ack_wait`: an older delivery belongs to another worker by now.
pub const ACK_WAIT_MS: u64 = 6_000;
/// First and largest delay of work that its conversation's state prevents now: soon enough for a newer worker that is being started,
/// and cheap for thousands of such conversations.
pub const PUT_OFF_FIRST_MS: u64 = 5_000;
pub const PUT_OFF_MAX_MS: u64 = 300_000;
pub const TURN_PUT_OFF_MAX_MS: u64 = 15_000;
/// Interval of an edge's check for turns in pools without a worker, and the turns that it keeps for the next check because it could not
/// look at them.
pub const ABANDONED_EVERY_MS: u64 = 5_000;
pub const ABANDONED_AGAIN: usize = 1_000;
/// Due deadlines that one worker serves in parallel.
pub const DEADLINES_PARALLEL: usize = 16;
/// Claims of a turn without a step in between, after which the turn fails as poison.
pub const CLAIMS_MAX: u32 = 5;
/// Time for a stopping worker's turns to finish before it releases them.
pub const WORKER_DRAIN_MS: u64 = 5_000;
/// Time that a worker waits for its released turns and its other tasks: a log that does not answer delays the end no longer.
pub const WORKER_END_MS: u64 = 15_000;
/// Time for a stopping edge's connections to close, after the time for their turns.
pub const EDGE_DRAIN_MS: u64 = 3_000;
/// Time for one call of the NATS library: with a full command queue the library accepts none, and it has no timeout of its own.
pub const NATS_CALL_MS: u64 = 5_000;
/// Time in which a canary must be stored, and the pause before the next one: together less than the 10 s in which `/ready` has to
/// tell of a full disk or a lost quorum.
pub const CANARY_MS: u64 = 3_000;
/// Time for which a refused publish counts. A needed one is tried, and refused, again.
pub const REFUSAL_SECS: u64 = 60;

/// Renewal interval of a worker's advertisement, and the silence after which it no longer counts.
pub const PRESENCE_EVERY_MS: u64 = 3_000;
pub const PRESENCE_TTL_SECS: u64 = 10;
/// Poll interval of edges for the running workers.
pub const WORKERS_EVERY_MS: u64 = 500;

/// Time for which an edge trusts an answer on whether a pool exists.
pub const POOL_FRESH_SECS: u64 = 10;

/// Poll interval for tool providers' descriptions: well below the promised second.
pub const TOOLS_EVERY_MS: u64 = 500;
/// Time that a starting worker waits for the first description, and for each next one.
pub const TOOLS_FIRST_MS: u64 = 2_000;
pub const TOOLS_QUIET_MS: u64 = 250;
/// Time for one tool call if its provider sets none, and the most that a provider may set.
pub const TOOL_TIMEOUT_MS: u64 = 30_000;
pub const TOOL_TIMEOUT_MAX_MS: u64 = 300_000;
/// Extra time for a service call to get room on its connection, beyond its own timeout.
pub const CALL_GRACE_MS: u64 = 500;
/// Longest call id that is sent unchanged; a longer one is sent as a hash.
pub const CALL_ID_MAX_BYTES: usize = 128;
/// Tools offered to the model at once.
pub const TOOLS_MAX: usize = 128;
/// Tools of one service: no service can take the room of all others.
pub const TOOLS_PER_SERVICE: usize = 32;
/// Service instances, and tool names and subjects, that one worker remembers.
pub const SERVICES_MAX: usize = 4_096;
pub const TOOL_CLAIMS_MAX: usize = 16_384;
/// Time for which a name or subject stays with an absent service: longer than an outage, shorter than a move is planned for.
pub const TOOL_HELD_SECS: u64 = 3_600;
/// Largest schema of a service's tool, and most of its description that is forwarded: both are paid for with every request.
pub const TOOL_SCHEMA_MAX_BYTES: usize = 32 * 1024;
pub const TOOL_DESCRIPTION_MAX_BYTES: usize = 4 * 1024;
/// Tool refusals that are logged, each once: a hostile service must not fill a disk.
pub const TOOL_REFUSALS_TOLD: usize = 1_000;
/// Files that one worker holds for running tools, piece of a file in an answer (messages have 1 MiB), and parallel answers.
pub const FILES_LENT_BYTES: usize = 4 * ATTACHMENTS_MAX_BYTES;
pub const FILE_PIECE_BYTES: usize = 512 * 1024;
pub const FILES_PARALLEL: usize = 16;
/// Longest description of a call that a person is asked to approve: they have to read it.
pub const APPROVAL_MAX_BYTES: usize = 32 * 1024;
/// Longest tool name that model APIs accept.
pub const TOOL_NAME_MAX_CHARS: usize = 64;

/// Longest URL that is fetched: browsers and servers agree up to about this.
pub const FETCH_URL_MAX_BYTES: usize = 2_048;
/// Largest content that is fetched: a long manual as PDF fits; the content is held in memory.
pub const FETCH_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Time for one fetch with all its redirects, below a tool call's 30 s; and for its first connection.
pub const FETCH_TIMEOUT_MS: u64 = 20_000;
pub const FETCH_CONNECT_MS: u64 = 5_000;
/// Redirects that are followed: ordinary chains (http, www, language) are three or four long.
pub const FETCH_REDIRECTS_MAX: u32 = 5;

/// Largest document that is extracted: as much as is fetched.
pub const DOCUMENT_MAX_BYTES: usize = FETCH_MAX_BYTES;
/// Deepest element of a page that is read: the walk recurses, and real pages stay below 100.
pub const HTML_DEPTH_MAX: usize = 400;
/// Resources of one document's reader process: a page of 8 MiB in small elements takes half of the memory. The time exceeds the CPU
/// time, since readers wait for each other.
pub const READER_MEMORY_BYTES: u64 = 1024 * 1024 * 1024;
pub const READER_CPU_SECS: u64 = 20;
pub const READER_MS: u64 = 60_000;
/// Parallel readers of documents.
pub const READERS: usize = 4;
/// Largest answer of a reader: the text twice, whole and in passages, plus JSON's overhead.
pub const READ_ANSWER_MAX_BYTES: usize = 8 * DOCUMENT_MAX_BYTES;
/// Largest text that is extracted in this process: its form can neither nest deeply nor unfold.
pub const READ_HERE_MAX_BYTES: usize = 256 * 1024;
/// Text that is cut into passages in one step.
pub const CUT_AT_ONCE_BYTES: usize = 32 * 1024;
/// Longest passage of a document: a few paragraphs, which embedding models take whole.
pub const PASSAGE_CHARS: usize = 1_000;
/// Passages of one document: ten times those of the largest readable file.
pub const DOCUMENT_CHUNKS_MAX: usize = 100_000;
/// Documents that are read, embedded and written in parallel: more than one so that waits overlap, few enough for foreign servers.
pub const INGEST_PARALLEL: usize = 8;
/// Files or pages of one run, and sitemaps that an index of sitemaps may name.
pub const INGEST_ITEMS_MAX: usize = 200_000;
pub const SITEMAPS_MAX: usize = 100;
/// Poll interval of a watched folder. Polling sees changes on every file system, shared ones too.
pub const WATCH_EVERY_MS: u64 = 1_000;
/// Passages in one request for embeddings.
pub const EMBED_BATCH: usize = 64;

/// Longest path of a file connector, and longest name of a secret.
pub const CONNECTOR_PATH_MAX_BYTES: usize = 512;
pub const SECRET_NAME_MAX_BYTES: usize = 128;
/// Connectors of an organisation: lists of them are not paged.
pub const CONNECTORS_MAX: usize = 200;
/// Largest conversation that an edge reads whole for an auditor: some 1,600 turns, one read per event. `turnstream audit report` on a
/// machine of the auditor's own has no bound.
pub const AUDIT_EVENTS_MAX: usize = 5_000;
pub const AUDIT_READ_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Conversations that an edge reads whole in parallel; further ones wait.
pub const AUDIT_PARALLEL: usize = 2;
/// Largest body of an administrator's request, and time for it to arrive.
pub const ADMIN_BODY_MAX_BYTES: usize = 128 * 1024;
pub const ADMIN_BODY_MS: u64 = 10_000;
/// Longest prompt of an organisation's settings, and most tools that they name.
pub const SETTINGS_TEXT_MAX_CHARS: usize = 20_000;
pub const SETTINGS_TOOLS_MAX: usize = 128;
/// Run events that are scanned for a list of runs, and runs that are listed.
pub const RUN_EVENTS_SHOWN: usize = 1_000;
pub const RUNS_SHOWN: usize = 200;
/// Time for edges to report the number of clients that received a host's event.
pub const PUSH_REPLIES_MS: u64 = 2_000;
/// Hosts' events that may queue for one connection; they are rare, and one beyond the limit is dropped.
pub const CONNECTION_PUSHES: usize = 32;
/// Largest event of a host: it becomes a client frame.
pub const PUSH_MAX_BYTES: usize = 64 * 1024;
/// Progress interval of a running ingest's work item: a third of the consumer's `ack_wait` (30 s).
pub const INGEST_PROGRESS_MS: u64 = 10_000;

/// Search results in a model request, and the length of each text.
pub const SEARCH_RESULTS: usize = 10;
pub const SEARCH_EXCERPT_CHARS: usize = 400;
/// Older messages that the model gets at once, the length of each, and pages that are scanned for search words.
pub const HISTORY_PAGE: usize = 20;
pub const HISTORY_TEXT_CHARS: usize = 2_000;
pub const HISTORY_PAGES: usize = 50;

/// Bytes of one batched read, about: large events must not add up to more than a process easily holds.
pub const READ_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Heads in one part of a checkpoint: of at most 134 bytes each, so a part stays below 512 KiB.
pub const CHECKPOINT_PART_HEADS: usize = 3_500;
/// Events, and bytes before compression, of one part of an export: the loss when an export is interrupted.
pub const EXPORT_PART_EVENTS: u64 = 100_000;
pub const EXPORT_PART_BYTES: u64 = 256 * 1024 * 1024;
/// Rows, and bytes, that are buffered for a row group of a Parquet file.
pub const EXPORT_GROUP_ROWS: usize = 20_000;
pub const EXPORT_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Longest description of an agent: programs that use the agent as a tool pay for it with every request.
pub const AGENT_DESCRIPTION_MAX_CHARS: usize = 2_000;
/// Largest request over MCP: a message of any script, escaped, and more; and the bytes that are read of a refused one.
pub const MCP_REQUEST_MAX_BYTES: usize = 160 * 1024;
pub const MCP_REFUSED_MAX_BYTES: usize = 2 * 1024 * 1024;
/// Agents on one page of tools.
pub const MCP_TOOLS_PAGE: usize = 100;
