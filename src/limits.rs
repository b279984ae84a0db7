//! Every cap and timeout that is not configuration, with its unit and its reason.

mod mcp;

pub use mcp::*;

/// Largest client frame without attachments. Messages fit with room.
pub const CLIENT_FRAME_MAX_BYTES: usize = 256 * 1024;
/// Largest client frame: attachments of [`ATTACHMENTS_MAX_BYTES`] in base64, and a message.
pub const LARGE_FRAME_MAX_BYTES: usize = ATTACHMENTS_MAX_BYTES / 3 * 4 + CLIENT_FRAME_MAX_BYTES;
/// Bytes of large frames that one edge holds at once; what comes beyond them waits. While a frame is read it takes this twice.
pub const LARGE_FRAMES_BYTES: usize = 4 * LARGE_FRAME_MAX_BYTES;
/// How long a client may take to send a large frame, waiting included: 8 MiB over 2 Mbit/s.
pub const LARGE_FRAME_MS: u64 = 60_000;
/// The least that must come of a large frame in so much time: 100 kbit/s, a tenth of a slow phone's.
pub const LARGE_FRAME_PACE_BYTES: u64 = 64 * 1024;
pub const LARGE_FRAME_PACE_MS: u64 = 5_000;
/// How long a client may take to send any other frame.
pub const SMALL_FRAME_MS: u64 = 20_000;
/// Bytes of unfinished other frames that one edge holds at once, beyond the first of each: an ordinary message never waits.
pub const SMALL_FRAMES_BYTES: usize = 16 * 1024 * 1024;
pub const FRAME_FREE_BYTES: usize = 16 * 1024;
/// Largest attachment, and all of one message: pictures of cameras and ordinary documents. They are held in memory.
pub const ATTACHMENT_MAX_BYTES: usize = 8 * 1024 * 1024;
pub const ATTACHMENTS_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of images that one worker holds at once on their way to the model; what comes later waits. As text, and as text in a
/// request, they take three times as much.
pub const IMAGES_BYTES: usize = 4 * ATTACHMENTS_MAX_BYTES;
/// Largest object: an attachment, sealed.
pub const OBJECT_MAX_BYTES: usize = ATTACHMENT_MAX_BYTES + 16;
/// Sealed entries of a list that are opened at a time: each may need its conversation's key read.
pub const LIST_OPEN_PARALLEL: usize = 32;
/// How long a process goes on with a conversation's key that it has read: when it hears nothing of an erasure, what was erased
/// is readable for so long at most. And how many keys it keeps, of about 700 bytes each.
pub const KEYS_FRESH_SECS: u64 = 5;
pub const KEYS_CACHED: u64 = 50_000;
/// How often a process looks for new entries of the ledger of erasures: the word on core NATS is faster, and can be missed.
pub const ERASURES_EVERY_MS: u64 = 2_000;
/// How long a process goes on with clear text that it has read, of folds and of session records.
pub const CLEAR_TEXT_SECS: u64 = 600;
/// Conversations that one entry of the ledger of erasures names, of 40 bytes each; and how many are erased at a time.
pub const ERASE_BATCH: usize = 5_000;
pub const ERASE_PARALLEL: usize = 16;
/// Conversations that a retention sweep reads before it erases them: what is in them is held meanwhile. And conversations whose last
/// events are asked for at once; the server gives the last event of each kind.
pub const RETAIN_BATCH: usize = 500;
pub const RETAIN_LOOKUP: usize = 64;
/// Conversations per request for keys: each has one key for each class.
pub const RETAIN_KEYS: usize = 400;
/// Images, and files, of one message.
pub const ATTACHMENTS_MAX: usize = 8;
/// Longest URL of an attachment, and name of a file: both are stored with the message and go out with every tool call.
pub const ATTACHMENT_URL_MAX_BYTES: usize = 2_048;
/// How long the name in an attachment's URL may take to be looked up, and how many may be at once.
pub const ATTACHMENT_LOOKUP_MS: u64 = 2_000;
pub const ATTACHMENT_LOOKUPS: usize = 16;
pub const ATTACHMENT_NAME_MAX_CHARS: usize = 255;
/// Chunk of an object, as the client libraries cut them.
pub const OBJECT_CHUNK_BYTES: usize = 128 * 1024;
/// An object that is older than this is written again when it comes again: half of the 30 days that the stream keeps it.
pub const OBJECT_FRESH_SECS: i64 = 15 * 24 * 3600;
/// How long after its last chunk an upload may be joined: half of the time in which the stream knows chunks that it has.
pub const OBJECT_UPLOAD_SECS: i64 = 60;
/// Longest user message, from the protocol.
pub const MESSAGE_MAX_CHARS: usize = 10_000;
/// Longest requestId: it is stored with the turn and echoed in every frame of it.
pub const REQUEST_ID_MAX_BYTES: usize = 256;
/// Longest token: the head of a request, which carries it, is bounded too.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// How much the clocks of an issuer and of this server may differ.
pub const CLOCK_SKEW_SECS: u64 = 30;
/// Longest organisation and user of a token: they become parts of subjects, of which a server takes 4 KiB in all.
pub const ORG_MAX_BYTES: usize = 128;
pub const USER_MAX_BYTES: usize = 256;
/// Longest token of a subject. Every name that is bounded at its entrance is shorter.
pub const SUBJECT_TOKEN_MAX_BYTES: usize = 2_500;
/// How long an issuer's keys count without being read again; after how long nobody gets one before they were; and how often they
/// are read for tokens that name unknown ones.
pub const JWKS_FRESH_SECS: u64 = 300;
pub const JWKS_STALE_SECS: u64 = 1_200;
pub const JWKS_RETRY_MS: u64 = 10_000;
/// How long an issuer may take to tell its keys, and how large the answer may be.
pub const JWKS_TIMEOUT_MS: u64 = 5_000;
pub const JWKS_MAX_BYTES: usize = 256 * 1024;
/// How old a host's word about its user may be, or how far in the future, from the protocol.
pub const CONTEXT_AGE_MAX_SECS: u64 = 60;
/// How long the service of widget policies may take, from the protocol; how large its answer may be; and how many are kept.
pub const WIDGET_POLICY_MS: u64 = 5_000;
pub const WIDGET_POLICY_MAX_BYTES: usize = 64 * 1024;
pub const WIDGET_POLICIES_CACHED: u64 = 10_000;
/// How long the last policy of a service holds while the service fails: an outage that takes longer is noticed.
pub const WIDGET_POLICY_HOLDS_SECS: u64 = 3_600;
/// Groups of a principal that are kept with its requests.
pub const GROUPS_MAX: usize = 256;
/// Longest name or e-mail of a participant that is kept.
pub const NAME_MAX_CHARS: usize = 200;
/// Longest title that is kept, and how much of a first message is one, from the protocol.
pub const TITLE_MAX_CHARS: usize = 60;
/// Largest `metadata` object of a session, as JSON.
pub const METADATA_MAX_BYTES: usize = 16 * 1024;
/// Most `supports` entries that are kept, and the longest of them.
pub const SUPPORTS_MAX: usize = 32;
pub const SUPPORTS_MAX_CHARS: usize = 64;

/// Largest configuration of an agent, as JSON, and of one tool's settings in it, which ride in a header of each call.
pub const AGENT_CONFIG_MAX_BYTES: usize = 64 * 1024;
pub const TOOL_SETTINGS_MAX_BYTES: usize = 4 * 1024;
/// Longest persona or greeting: a few pages.
pub const PERSONA_MAX_CHARS: usize = 20_000;
/// How often edges look for changed configurations: well below the promised second.
pub const AGENTS_EVERY_MS: u64 = 300;
/// How far back an edge that starts reads the changes of configurations again, for a copy of their bucket may lag behind; and agents
/// whose configurations are asked for at once.
pub const AGENTS_LAG_SECS: i64 = 60;
pub const AGENTS_LOOKUP: usize = 500;
/// Longest secret.
pub const SECRET_MAX_BYTES: u64 = 16 * 1024;
/// Versions of configurations that one process keeps in memory.
pub const AGENT_VERSIONS_CACHED: u64 = 1_000;
/// Longest body of a skill: it is stored with each turn that names it.
pub const SKILL_MAX_BYTES: usize = 64 * 1024;
/// How long the host's service for one-time passwords may take.
pub const OTP_MS: u64 = 10_000;
/// How much later a service may still send the password of a request that was given up: until then no other one is asked for.
pub const OTP_LATE_MS: u64 = 5_000;
/// One-time passwords in an hour: of a session, and of those who come from one group of addresses to one mailbox or number. Then
/// those that a mailbox or number gets from everybody, in a time so short that strangers can't keep its owner out for long.
pub const CODES_SESSION_MAX: u64 = 5;
pub const CODES_PAIR_MAX: u64 = 5;
pub const CODES_CONTACT_MAX: u64 = 10;
pub const CODES_CONTACT_SECS: i64 = 600;
/// How often a password may be entered: the service may allow fewer.
pub const CODE_TRIES_MAX: u64 = 5;
/// Longest one-time password that is passed on.
pub const OTP_CODE_MAX_BYTES: usize = 64;
/// How long the judge of a workflow may take before its step counts as not done.
pub const JUDGE_MS: u64 = 15_000;
/// Longest sentence that is shown while the answer is awaited, and how many tokens its model may write.
pub const PREAMBLE_MAX_CHARS: usize = 300;
pub const PREAMBLE_TOKENS: u32 = 60;
pub const JUDGE_TOKENS: u32 = 200;
/// Replies that are suggested for one answer.
pub const SUGGESTED_REPLIES: usize = 4;

/// Largest stored event. NATS allows 1 MiB a message by default; headers and JSON escapes need room.
pub const EVENT_MAX_BYTES: usize = 512 * 1024;
/// Largest tool result that is kept; longer ones are cut and say so.
pub const TOOL_RESULT_MAX_BYTES: usize = 64 * 1024;
/// Largest message of a document: a passage with its vector.
pub const KNOWLEDGE_MESSAGE_MAX_BYTES: usize = 512 * 1024;
/// How often a document is tried to be written while the server does not answer or has too many batches open.
pub const KNOWLEDGE_WRITE_TRIES: u32 = 8;
/// How often a worker looks for new documents: well below the promised second.
pub const KNOWLEDGE_EVERY_MS: u64 = 200;
/// How often it is checked that the stream of knowledge is still the same one.
pub const KNOWLEDGE_CHECK_EVERY_MS: u64 = 5_000;
/// How long an embedding of a query, a rerank or a foreign search may take before the answer does without.
pub const RETRIEVE_MS: u64 = 2_000;
/// Passages that are ranked by each method before they are fused, and of those, how many are ranked once more.
pub const CANDIDATES: usize = 50;
pub const RERANKED: usize = 20;
/// Memory for what the text index has not written into a segment yet.
pub const INDEX_WRITER_BYTES: usize = 32 * 1024 * 1024;
/// Largest reply text of one model call, so that its event stays below [`EVENT_MAX_BYTES`].
pub const REPLY_MAX_BYTES: usize = 256 * 1024;
/// How a model call was shown is kept with its reply: frames at 2 to 4 bytes each (those of an answer of 8,192 tokens take 16
/// KiB), the text beside the answer, and text that no reply holds because the call brought none. A third more for base64 and
/// all, they fit into an event with a reply of [`REPLY_MAX_BYTES`]; where they don't, the event goes without them.
pub const SHOWN_FRAMES_MAX_BYTES: usize = 64 * 1024;
pub const SHOWN_ASIDE_MAX_BYTES: usize = 64 * 1024;
pub const SHOWN_REST_MAX_BYTES: usize = 128 * 1024;
/// Longest pause between two moments of a replay on a page: who watches need not wait as long as people once did.
pub const REPLAY_PAUSE_MAX_MS: u64 = 3_000;
/// Largest word of a replay's page to its server.
pub const REPLAY_WORD_MAX_BYTES: usize = 1_024;
/// Largest history page on the wire (clients take 1 MiB a frame).
pub const PAGE_MAX_BYTES: usize = 900 * 1024;
/// Recent messages that the fold keeps with their text: what a model call and a history page need.
pub const FOLD_MESSAGES: usize = 50;
/// Text bytes that the fold keeps in all, so that its cached form stays below 256 KiB.
pub const FOLD_TEXT_MAX_BYTES: usize = 128 * 1024;
/// Sessions of which the fold keeps what their visitors told: more than have a running form or password at once.
pub const FOLD_SESSIONS: usize = 32;
/// Finished turns whose requestId the fold remembers, so that a late retry is recognised.
pub const FOLD_REQUESTS: usize = 64;
/// Sequences of older messages that the fold keeps: the reach of `get_conversation_messages`.
pub const FOLD_OLDER: usize = 20_000;
/// Messages of a conversation that are given to the model, from the protocol.
pub const MODEL_MESSAGES: usize = 50;

/// Locks for conversations that are read for the first time: so many that two rarely share one.
pub const COLD_LOADS: usize = 1_024;
/// Events, and bytes of their payloads, of a chain that is followed back and held until it is folded: more than comes between two
/// cached folds. A longer one is read in the log's order and folded as it comes.
pub const CHAIN_EVENTS: usize = 1_000;
pub const CHAIN_BYTES: usize = 8 * 1024 * 1024;
/// Memory for the folds that one process keeps. One fold counts as a quarter of it at most: a running turn with large results may
/// take more, and its worker holds them anyway.
pub const FOLDS_CACHED_BYTES: u64 = 48 * 1024 * 1024;
/// Sessions whose record one edge keeps in memory.
pub const SESSIONS_CACHED: u64 = 200_000;
/// Cached folds larger than this are compressed, and larger than that they are not cached: the bucket takes 512 KiB.
pub const FOLD_PLAIN_MAX_BYTES: usize = 128 * 1024;
pub const FOLD_CACHED_MAX_BYTES: usize = 480 * 1024;
/// Largest fold, as JSON, that is read from the bucket: a running turn with large results.
pub const FOLD_READ_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Events since the last cached fold after which a worker writes it again.
pub const FOLD_CACHE_EVERY_EVENTS: u64 = 12;

/// How long one try of an append waits for its ack. An R3 leader change takes several seconds; tries repeat.
pub const APPEND_TRY_MS: u64 = 2_500;
/// How long an append is tried in all: longer than a leader's re-election (5–7 s measured), shorter than a client's 30 s.
pub const APPEND_DEADLINE_MS: u64 = 12_000;
/// First and largest pause between two tries of a storage operation.
pub const RETRY_FIRST_MS: u64 = 50;
pub const RETRY_MAX_MS: u64 = 1_000;
/// How long one read request waits, and a whole load with its repeats.
pub const READ_TRY_MS: u64 = 2_000;
pub const READ_DEADLINE_MS: u64 = 10_000;
/// How often a decision is taken again after a lost race before the caller is told that storage is busy.
pub const DECIDE_TRIES: u32 = 50;
/// An event that a person's act makes and that is stored later than this folds to nothing: its client is told of an error, and
/// not before that time is over. As long as an append is tried.
pub const ACT_NOT_AFTER_MS: i64 = 12_000;
/// How much longer the client waits for that error: what the measured offset of the server's clock may be wrong by.
pub const ACT_DOUBT_MS: i64 = 500;
/// Largest difference between the clocks of a process and of the log's server: beyond it the process is not ready, for the
/// times that it writes are wrong.
pub const CLOCK_OFFSET_MAX_MS: i64 = 5_000;

/// Largest body of a widget's request, and how long it or one over MCP may take to come.
pub const INTERNAL_BODY_MAX_BYTES: usize = 16 * 1024;
pub const INTERNAL_BODY_MS: u64 = 10_000;
/// Conversations that are opened for a visitor who has proved an address.
pub const RESTORED_MAX: usize = 10;
/// Addresses whose writing one edge counts at once.
pub const ADDRESSES_COUNTED: u64 = 100_000;
/// When a client that was refused may try again: a connection, and a turn of an organisation that has as many as it may.
pub const CONNECTION_RETRY_SECS: u64 = 30;
pub const TURN_RETRY_SECS: u64 = 5;
/// How long a number of connections counts that an edge has said; it says it again after a third of that.
pub const CONNECTIONS_TTL_SECS: u64 = 60;
/// Conversations that are looked at at once when it is counted which turns run.
pub const QUOTA_PARALLEL: usize = 16;

/// Conversations that one connection watches at once: each is a subscription for as long as the connection lives.
pub const CONNECTION_WATCHED: usize = 500;
/// Conversations that a connection is known to have reached by a session: more than a client has open.
pub const REACHED_MAX: usize = 64;
/// Bytes of frames that may always wait for one connection: 500 of a flat-out model's, or eight long results.
pub const CONNECTION_QUEUE_BYTES: usize = 256 * 1024;
/// Bytes that may wait for one connection while there is room: several turns with long answers at once, on a busy machine.
pub const CONNECTION_QUEUE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that may wait for all connections of a process before those that hold more than their own share are closed.
pub const QUEUES_BYTES: usize = 16 * 1024 * 1024;
/// Largest result of a tool in a frame, as JSON text: eight of them are what always may wait for a connection. A control character
/// takes six bytes there. The log keeps the whole.
pub const SHOWN_RESULT_MAX_BYTES: usize = 32 * 1024;
/// Frames that are written to a socket in one go.
pub const WRITE_BATCH_BYTES: usize = 32 * 1024;
/// How long one write to a socket may take before the client counts as gone.
pub const SOCKET_WRITE_MS: u64 = 10_000;
/// Read buffer of one connection; the WebSocket library allocates it eagerly.
pub const SOCKET_READ_BUFFER_BYTES: usize = 2 * 1024;
/// Largest head of a request, and most headers in it: a token and a browser's cookies fit with room.
pub const HEAD_MAX_BYTES: usize = 16 * 1024;
pub const HEADERS_MAX: usize = 100;
/// How long a client may take to send the head of its HTTP request.
pub const HEAD_READ_MS: u64 = 10_000;
/// Pings that a client may leave unanswered.
pub const PINGS_MISSED: u32 = 2;
/// How long a closing handshake may take.
pub const CLOSE_WAIT_MS: u64 = 1_000;
/// NATS subscription queue of one live subject; beyond it async-nats drops, which the frame numbers show.
pub const NATS_SUBSCRIPTION_FRAMES: usize = 1_024;
/// After this silence an attached turn is checked against the log.
pub const SILENCE_CHECK_MS: u64 = 5_000;
/// After this silence a client with a running turn gets a keepalive (30 s at most, from the protocol).
pub const KEEPALIVE_MS: u64 = 25_000;
/// How long a repair may read the LIVE stream.
pub const REPAIR_MS: u64 = 1_000;

/// Messages of one batched read: below the server's 1,024, and below the queue of a subscription.
pub const READ_BATCH: usize = 1_000;
/// Events of the index's consumer that are asked for in one pull, and conversations that are brought up to date at once.
pub const INDEX_BATCH: usize = 256;
pub const INDEX_PARALLEL: usize = 8;
/// How long a counter is sure to know what it was told under an id: its stream's window is two minutes.
pub const COUNTED_ONCE_SECS: i64 = 100;
/// Entries that are looked at for one page of a list that is filtered, before the page is given as it is.
pub const LIST_SCAN_MAX: usize = 5_000;
/// Conversations of one day that are listed, the newest ones: they are sorted in memory.
pub const LIST_DAY_MAX: usize = 20_000;
/// How long a model may take to name a conversation, and how much of the message it is given.
pub const TITLE_TIMEOUT_MS: u64 = 20_000;
pub const TITLE_MESSAGE_CHARS: usize = 2_000;
pub const TITLE_MAX_TOKENS: u32 = 256;

/// Turns that one worker runs at once.
pub const WORKER_TURNS: usize = 512;
/// Work items asked for in one pull.
pub const PULL_BATCH: usize = 64;
/// How long one pull waits at the server.
pub const PULL_EXPIRES_MS: u64 = 5_000;
/// Progress acks and looks at the log while a turn runs: a third of the consumer's `ack_wait` (6 s).
pub const PROGRESS_MS: u64 = 2_000;
/// How long a worker relies on what the log said about whose a turn is: less than the consumer's `ack_wait` (6 s), after which
/// another one may have it.
pub const LEASE_MS: u64 = 4_000;
/// The consumer's `ack_wait`: a delivery that is older is another worker's by now.
pub const ACK_WAIT_MS: u64 = 6_000;
/// When work is offered again that can't be done now for its conversation's sake, at first and at most: soon enough for a newer
/// worker that is being started, and thousands of such conversations cost little.
pub const PUT_OFF_FIRST_MS: u64 = 5_000;
pub const PUT_OFF_MAX_MS: u64 = 300_000;
pub const TURN_PUT_OFF_MAX_MS: u64 = 15_000;
/// How often an edge looks for turns in pools without a worker, and how many of those that it could not look at it keeps for the
/// next time.
pub const ABANDONED_EVERY_MS: u64 = 5_000;
pub const ABANDONED_AGAIN: usize = 1_000;
/// Due deadlines that one worker serves at once.
pub const DEADLINES_PARALLEL: usize = 16;
/// Claims of a turn without a step in between, after which it is given up as poison.
pub const CLAIMS_MAX: u32 = 5;
/// How long a stopping worker lets its turns finish before it hands them over.
pub const WORKER_DRAIN_MS: u64 = 5_000;
/// How long a worker that has handed its turns over waits for them and for its other tasks: a log that does not answer holds none
/// of them longer.
pub const WORKER_END_MS: u64 = 15_000;
/// How long a stopping edge waits for its connections to close, after the time that it gives their turns.
pub const EDGE_DRAIN_MS: u64 = 3_000;
/// How long one call of the NATS library may take: with many commands waiting it takes none, and has no timeout of its own.
pub const NATS_CALL_MS: u64 = 5_000;
/// How long a publish counts that the server has refused. One that is needed is tried, and refused, again.
pub const REFUSAL_SECS: u64 = 60;

/// A worker's advertisement: how often it is renewed, and after what silence it no longer counts.
pub const PRESENCE_EVERY_MS: u64 = 3_000;
pub const PRESENCE_TTL_SECS: u64 = 10;
/// How often edges look which workers there are.
pub const WORKERS_EVERY_MS: u64 = 500;

/// How long an edge goes on with what it was told of a pool, whether there is one.
pub const POOL_FRESH_SECS: u64 = 10;

/// How often tool providers are asked to describe themselves: well below the promised second.
pub const TOOLS_EVERY_MS: u64 = 500;
/// When a worker starts: how long it waits for the first answer, and for the next one after each.
pub const TOOLS_FIRST_MS: u64 = 2_000;
pub const TOOLS_QUIET_MS: u64 = 250;
/// Time for one tool call when its provider names none, and the most that a provider may name.
pub const TOOL_TIMEOUT_MS: u64 = 30_000;
pub const TOOL_TIMEOUT_MAX_MS: u64 = 300_000;
/// How long a call of a service may wait for room on its connection, beyond its own time.
pub const CALL_GRACE_MS: u64 = 500;
/// Longest id of a call that goes out as it is; of a longer one, a hash does.
pub const CALL_ID_MAX_BYTES: usize = 128;
/// Tools offered to the model at once.
pub const TOOLS_MAX: usize = 128;
/// Tools of one service: no service can take the room of all others.
pub const TOOLS_PER_SERVICE: usize = 32;
/// Instances of services, and names and subjects of tools, that one worker remembers.
pub const SERVICES_MAX: usize = 4_096;
pub const TOOL_CLAIMS_MAX: usize = 16_384;
/// How long a name or a subject stays with a service that is away: longer than an outage, shorter than a move is planned for.
pub const TOOL_HELD_SECS: u64 = 3_600;
/// Largest schema of a service's tool, and the most of its description that is passed on: both are paid for with every request.
pub const TOOL_SCHEMA_MAX_BYTES: usize = 32 * 1024;
pub const TOOL_DESCRIPTION_MAX_BYTES: usize = 4 * 1024;
/// Refusals of tools that are logged, each once: a hostile service must not fill a disk.
pub const TOOL_REFUSALS_TOLD: usize = 1_000;
/// Files that one worker holds for running tools, a piece of one in an answer (messages have 1 MiB), and answers at once.
pub const FILES_LENT_BYTES: usize = 4 * ATTACHMENTS_MAX_BYTES;
pub const FILE_PIECE_BYTES: usize = 512 * 1024;
pub const FILES_PARALLEL: usize = 16;
/// Longest description of a call that a person can be asked to approve: they would have to read it.
pub const APPROVAL_MAX_BYTES: usize = 32 * 1024;
/// Longest name of a tool that models' interfaces take.
pub const TOOL_NAME_MAX_CHARS: usize = 64;

/// Longest URL that is fetched: browsers and servers agree up to about this.
pub const FETCH_URL_MAX_BYTES: usize = 2_048;
/// Largest content that is fetched: a long manual as PDF fits; it is held in memory.
pub const FETCH_MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long one fetch may take with all its redirects, below a tool call's 30 s; and the first connection of it.
pub const FETCH_TIMEOUT_MS: u64 = 20_000;
pub const FETCH_CONNECT_MS: u64 = 5_000;
/// Redirects that are followed: ordinary chains (http, www, language) are three or four long.
pub const FETCH_REDIRECTS_MAX: u32 = 5;

/// Largest file that is read for its text: as much as is fetched.
pub const DOCUMENT_MAX_BYTES: usize = FETCH_MAX_BYTES;
/// Deepest element of a page that is read: walking it recurses, and real pages stay below 100.
pub const HTML_DEPTH_MAX: usize = 400;
/// What the reader of one document may use: a page of 8 MiB in small elements takes half of the memory. The time is more than
/// the processor's, since readers wait for each other.
pub const READER_MEMORY_BYTES: u64 = 1024 * 1024 * 1024;
pub const READER_CPU_SECS: u64 = 20;
pub const READER_MS: u64 = 60_000;
/// Readers of documents at once.
pub const READERS: usize = 4;
/// Largest answer of a reader: the text twice, whole and in passages, with what JSON adds.
pub const READ_ANSWER_MAX_BYTES: usize = 8 * DOCUMENT_MAX_BYTES;
/// Texts up to this size are read in this process: nothing in them can be deep or unfold.
pub const READ_HERE_MAX_BYTES: usize = 256 * 1024;
/// Text that is cut into passages at once.
pub const CUT_AT_ONCE_BYTES: usize = 32 * 1024;
/// Longest passage of a document: a few paragraphs, which embedding models take whole.
pub const PASSAGE_CHARS: usize = 1_000;
/// Passages of one document: ten times what the largest readable file has.
pub const DOCUMENT_CHUNKS_MAX: usize = 100_000;
/// Documents that are read, embedded and written at once: more than one so that waits overlap, few enough for strange servers.
pub const INGEST_PARALLEL: usize = 8;
/// Files or pages of one run, and sitemaps that an index of sitemaps may name.
pub const INGEST_ITEMS_MAX: usize = 200_000;
pub const SITEMAPS_MAX: usize = 100;
/// How often a watched folder is looked at. Polling sees changes on every file system, shared ones too.
pub const WATCH_EVERY_MS: u64 = 1_000;
/// Passages in one request for embeddings.
pub const EMBED_BATCH: usize = 64;

/// Longest path of a file connector, and longest name of a secret.
pub const CONNECTOR_PATH_MAX_BYTES: usize = 512;
pub const SECRET_NAME_MAX_BYTES: usize = 128;
/// Connectors of an organisation: each is listed whole.
pub const CONNECTORS_MAX: usize = 200;
/// Largest conversation that an edge reads whole for an auditor: some 1,600 turns, one read an event. `turnstream audit report` on
/// a machine of the auditor's own has no bound.
pub const AUDIT_EVENTS_MAX: usize = 5_000;
pub const AUDIT_READ_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Conversations that an edge reads whole at once; the others wait.
pub const AUDIT_PARALLEL: usize = 2;
/// Largest body of an administrator's request, and how long it may take to come.
pub const ADMIN_BODY_MAX_BYTES: usize = 128 * 1024;
pub const ADMIN_BODY_MS: u64 = 10_000;
/// Longest prompt of an organisation's settings, and most tools that they name.
pub const SETTINGS_TEXT_MAX_CHARS: usize = 20_000;
pub const SETTINGS_TOOLS_MAX: usize = 128;
/// Events of runs that are looked at for a list of runs, and runs that are shown.
pub const RUN_EVENTS_SHOWN: usize = 1_000;
pub const RUNS_SHOWN: usize = 200;
/// How long edges may take to say to how many clients they have given a host's event.
pub const PUSH_REPLIES_MS: u64 = 2_000;
/// Hosts' events that may wait for one connection; they are rare, and one that does not fit is not delivered.
pub const CONNECTION_PUSHES: usize = 32;
/// Largest event of a host: it is a client frame.
pub const PUSH_MAX_BYTES: usize = 64 * 1024;
/// How often a running ingest keeps its work item: a third of the consumer's `ack_wait` (30 s).
pub const INGEST_PROGRESS_MS: u64 = 10_000;

/// Results of a search that the model is given, and how much of each text.
pub const SEARCH_RESULTS: usize = 10;
pub const SEARCH_EXCERPT_CHARS: usize = 400;
/// Older messages that the model is given at once, how much of each, and how many pages are looked through for words.
pub const HISTORY_PAGE: usize = 20;
pub const HISTORY_TEXT_CHARS: usize = 2_000;
pub const HISTORY_PAGES: usize = 50;

/// Bytes of one batched read, about: large events must not add up to more than a process holds with ease.
pub const READ_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Heads in one part of a checkpoint: of at most 134 bytes each, so a part stays below 512 KiB.
pub const CHECKPOINT_PART_HEADS: usize = 3_500;
/// Events, and bytes before compression, of one part of an export: what is lost when it is interrupted.
pub const EXPORT_PART_EVENTS: u64 = 100_000;
pub const EXPORT_PART_BYTES: u64 = 256 * 1024 * 1024;
/// Rows, and bytes, that are held for a group of rows of a Parquet file.
pub const EXPORT_GROUP_ROWS: usize = 20_000;
pub const EXPORT_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Longest description of an agent: programs that use it as a tool pay for it with every request.
pub const AGENT_DESCRIPTION_MAX_CHARS: usize = 2_000;
/// Largest request over MCP: a message of any script, escaped, and more; and how much is read of one that is refused.
pub const MCP_REQUEST_MAX_BYTES: usize = 160 * 1024;
pub const MCP_REFUSED_MAX_BYTES: usize = 2 * 1024 * 1024;
/// Agents on one page of tools.
pub const MCP_TOOLS_PAGE: usize = 100;
