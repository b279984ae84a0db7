//! Caps and timeouts of MCP servers as tools.

/// How long an MCP server may take to start and initialise: one that a package manager fetches first takes that long.
pub const MCP_OPEN_MS: u64 = 60_000;
/// How long a starting worker waits for each server before it takes work without its tools.
pub const MCP_FIRST_MS: u64 = 5_000;
/// How long a connection over HTTP, and one page of tools, may take.
pub const MCP_CONNECT_MS: u64 = 5_000;
pub const MCP_LIST_MS: u64 = 10_000;
/// First and largest pause before a server that is away is tried again. A broken one must not cost a process every second.
pub const MCP_RETRY_FIRST_MS: u64 = 500;
pub const MCP_RETRY_MAX_MS: u64 = 30_000;
/// How often a broken stream of answers is taken up again.
pub const MCP_STREAM_TRIES: usize = 3;
/// How often a server behind HTTP is asked whether it is there, and how long one question may take.
pub const MCP_PING_EVERY_MS: u64 = 15_000;
pub const MCP_PING_MS: u64 = 5_000;
/// How long a server may take to end when its connection is closed.
pub const MCP_CLOSE_MS: u64 = 2_000;
/// Largest message of a server: results are cut to [`TOOL_RESULT_MAX_BYTES`], but images come with them.
pub const MCP_MESSAGE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Calls of one server over HTTP at once.
pub const MCP_HTTP_PARALLEL: usize = 64;
/// Largest schema of a tool, and the most of its description that is passed on: both are paid for with every request.
pub const MCP_SCHEMA_MAX_BYTES: usize = 32 * 1024;
pub const MCP_DESCRIPTION_MAX_BYTES: usize = 4 * 1024;
/// Piece of a server's standard error that is logged at once.
pub const MCP_STDERR_PIECE_BYTES: usize = 2 * 1024;

/// Connections of one server that each belong to one call: such a call may ask its visitor, and no other one.
pub const MCP_ALONE_PARALLEL: usize = 8;
/// How long the question of a server waits until the calls that it can't be told from have been given up.
pub const MCP_UNTANGLE_MS: u64 = 1_000;
/// Answers of one call that ask for more before it is given up, in one go: a server without an end must not hold a turn.
pub const MCP_ROUNDS_MAX: u32 = 10;
/// Pause before a call is repeated because its server asked for patience.
pub const MCP_ROUND_PAUSE_MS: u64 = 250;
/// Questions that one call may put to its visitor, over all its repetitions.
pub const ELICITED_QUESTIONS_MAX: u32 = 8;
/// Largest question, all its fields included, and the state that goes back to its server: both are kept with the turn.
pub const ELICITED_FORM_MAX_BYTES: usize = 16 * 1024;
pub const ELICITED_STATE_MAX_BYTES: usize = 32 * 1024;
/// Most that the questions of the calls of one step take in their event, and those of a call that waits over the end of its turn.
pub const ELICITED_PARK_MAX_BYTES: usize = 192 * 1024;
pub const ELICITED_WAITING_MAX_BYTES: usize = 64 * 1024;
/// Largest arguments of a call with a question asked in words: they are kept with the conversation until it is answered.
pub const ELICITED_ARGUMENTS_MAX_BYTES: usize = 16 * 1024;
/// Longest message above a form, and the most fields and options that a person reads.
pub const ELICITED_MESSAGE_MAX_CHARS: usize = 2_000;
pub const ELICITED_FIELDS_MAX: usize = 16;
pub const ELICITED_OPTIONS_MAX: usize = 50;
/// Longest name or label of a field or an option, and longest description.
pub const ELICITED_LABEL_MAX_CHARS: usize = 100;
pub const ELICITED_DESCRIPTION_MAX_CHARS: usize = 500;
/// Longest text that is entered into a field.
pub const ELICITED_TEXT_MAX_CHARS: usize = 2_000;
/// How often a task is asked for when its server names no time, and the least and the most that a server may name.
pub const MCP_TASK_POLL_MS: u64 = 1_000;
pub const MCP_TASK_POLL_MIN_MS: u64 = 250;
pub const MCP_TASK_POLL_MAX_MS: u64 = 60_000;
/// How long one question for a task may take.
pub const MCP_TASK_LOOK_MS: u64 = 10_000;
/// Longest id of a task that is kept.
pub const MCP_TASK_ID_MAX_BYTES: usize = 1_024;
/// The least time that a turn is parked for a task: each look is a few events.
pub const MCP_TASK_PARK_MIN_MS: u64 = 5_000;
/// The most: so late may a task be noticed to be over that has taken an hour.
pub const MCP_TASK_PARK_MAX_MS: u64 = 300_000;
