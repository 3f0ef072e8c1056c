//! What each method takes: the fields of the original's schemas (`openclaw` 2026.9.6). Whoever teaches a method
//! a further field changes it here first.

use crate::ws::{
    chat::AGENT,
    params::{Field, Kind, Params, closed, may, must, open},
};

use Kind::{Any, Count, Flag, Id, Ids, Lacking, Moot, Text, Within, Word};

pub(super) static NOTHING: Params = closed(&[]);
pub(super) static ANYTHING: Params = open(&[]);

/// The one agent there is, by its name here and by the original's.
const AGENT_ID: Field = may("agentId", Word(&[AGENT, "main"]));

pub(super) static CHAT_SEND: Params = closed(&[
    must("sessionKey", Id),
    must("message", Text),
    must("idempotencyKey", Id),
    may("timeoutMs", Count),
    may("attachments", Any),
    AGENT_ID,
    // Hints on how to answer, and where the words came from.
    may("sessionId", Moot),
    may("mentions", Moot),
    may("workContext", Moot),
    may("intent", Moot),
    may("thinking", Moot),
    may("fastMode", Moot),
    may("fastAutoOnSeconds", Moot),
    may("queueMode", Moot),
    may("deliver", Moot),
    may("originatingChannel", Moot),
    may("originatingTo", Moot),
    may("originatingAccountId", Moot),
    may("originatingThreadId", Moot),
    may("systemInputProvenance", Moot),
    may("systemProvenanceReceipt", Moot),
    may("suppressCommandInterpretation", Moot),
    // Conditions, and what the agent may use.
    may("replyToId", Lacking),
    may("toolBindings", Lacking),
    may("expectedLeafEntryId", Lacking),
    may("expectedSessionRoutingContract", Lacking),
    may("expectedPermissionMode", Lacking),
    may("expectedToolOverrides", Lacking),
]);

pub(super) static CHAT_HISTORY: Params = closed(&[
    must("sessionKey", Id),
    may("limit", Count),
    AGENT_ID,
    may("maxBytes", Moot),
    may("maxChars", Moot),
    may("sessionId", Moot),
    may("inputRunIds", Moot),
    may("pendingBefore", Moot),
    may("cursor", Lacking),
    may("offset", Lacking),
    may("messageId", Lacking),
]);

pub(super) static CHAT_ABORT: Params = closed(&[
    must("sessionKey", Id),
    may("runId", Id),
    AGENT_ID,
    may("preserveSideRuns", Moot),
]);

/// By its id; older clients say `jobId`.
pub(super) static CRON_BY_ID: Params = closed(&[may("id", Id), may("jobId", Id)]);

pub(super) static CRON_LIST: Params = closed(&[
    may("includeDisabled", Flag),
    may("limit", Count),
    may("offset", Count),
    may("query", Text),
    may("enabled", Word(&["all", "enabled", "disabled"])),
    may(
        "scheduleKind",
        Word(&["all", "at", "every", "cron", "on-exit", "stream"]),
    ),
    may(
        "lastRunStatus",
        Word(&["all", "ok", "error", "skipped", "unknown"]),
    ),
    may("sortBy", Word(&["nextRunAtMs", "updatedAtMs", "name"])),
    may("sortDir", Word(&["asc", "desc"])),
    AGENT_ID,
    may("includeDeliveryPreviews", Moot),
    may("compact", Lacking),
    may("trigger", Lacking),
    may("sessionKey", Lacking),
    may("sessionAgentId", Lacking),
]);

pub(super) static CRON_RUN: Params = closed(&[
    may("id", Id),
    may("jobId", Id),
    may("mode", Word(&["due", "force", "if-enabled"])),
    may("expectedProcessInstanceId", Lacking),
]);

pub(super) static CRON_RUNS: Params = closed(&[
    may("id", Id),
    may("jobId", Id),
    may("runId", Id),
    may("scope", Word(&["job", "all"])),
    may("limit", Count),
    may("offset", Count),
    may("status", Word(&["all", "ok", "error", "skipped"])),
    may("statuses", Ids),
    may("query", Text),
    may("sortDir", Word(&["asc", "desc"])),
    AGENT_ID,
    may("deliveryStatus", Lacking),
    may("deliveryStatuses", Lacking),
]);

static SCHEDULE_FIELDS: Params = closed(&[
    must("kind", Word(&["at", "every", "cron"])),
    may("at", Text),
    may("atMs", Count),
    may("everyMs", Count),
    may("anchorMs", Count),
    may("expr", Text),
    may("tz", Text),
    may("staggerMs", Lacking),
]);
const SCHEDULE: Kind = Within(&SCHEDULE_FIELDS);

static PAYLOAD_FIELDS: Params = closed(&[
    must("kind", Word(&["systemEvent", "agentTurn"])),
    may("text", Text),
    may("message", Text),
    may("timeoutSeconds", Count),
    // Of older clients: whether the summary is delivered.
    may("deliver", Flag),
    may("toolsAllowIsDefault", Moot),
    may("model", Lacking),
    may("fallbacks", Lacking),
    may("thinking", Lacking),
    may("toolsAllow", Lacking),
    may("lightContext", Lacking),
    may("channel", Lacking),
    may("to", Lacking),
    may("bestEffortDeliver", Lacking),
    may("allowUnsafeExternalContent", Lacking),
]);
const PAYLOAD: Kind = Within(&PAYLOAD_FIELDS);

static DELIVERY_FIELDS: Params = closed(&[
    may("mode", Word(&["none", "announce"])),
    may("channel", Word(&["last"])),
    may("to", Lacking),
    may("threadId", Lacking),
    may("accountId", Lacking),
    may("bestEffort", Lacking),
    may("failureDestination", Lacking),
    may("completionDestination", Lacking),
]);
const DELIVERY: Kind = Within(&DELIVERY_FIELDS);

/// There is no heartbeat to wait for.
const WAKE: Kind = Word(&["now"]);
const TARGET: Kind = Word(&["main", "isolated"]);

pub(super) static CRON_ADD: Params = closed(&[
    must("name", Text),
    must("schedule", SCHEDULE),
    must("sessionTarget", TARGET),
    must("payload", PAYLOAD),
    may("wakeMode", WAKE),
    may("description", Text),
    may("enabled", Flag),
    may("deleteAfterRun", Flag),
    may("delivery", DELIVERY),
    AGENT_ID,
    may("sessionKey", Lacking),
    may("declarationKey", Lacking),
    may("displayName", Lacking),
    may("owner", Lacking),
    may("pacing", Lacking),
    may("trigger", Lacking),
    may("failureAlert", Lacking),
]);

static PATCH: Params = closed(&[
    may("name", Text),
    may("schedule", SCHEDULE),
    may("sessionTarget", TARGET),
    may("payload", PAYLOAD),
    may("wakeMode", WAKE),
    may("description", Text),
    may("enabled", Flag),
    may("deleteAfterRun", Flag),
    may("delivery", DELIVERY),
    AGENT_ID,
    may("sessionKey", Lacking),
    may("displayName", Lacking),
    may("pacing", Lacking),
    may("trigger", Lacking),
    may("failureAlert", Lacking),
    may("state", Lacking),
]);

pub(super) static CRON_UPDATE: Params = closed(&[
    may("id", Id),
    may("jobId", Id),
    must("patch", Within(&PATCH)),
    may("expectedConfigRevision", Id),
]);

pub(super) static REQUEST: Params = closed(&[must("requestId", Id)]);
pub(super) static DEVICE: Params = closed(&[must("deviceId", Id)]);
pub(super) static DEVICE_RENAME: Params = closed(&[must("deviceId", Id), must("label", Id)]);
pub(super) static TOKEN: Params = closed(&[must("deviceId", Id), must("role", Id)]);
pub(super) static TOKEN_ROTATE: Params =
    closed(&[must("deviceId", Id), must("role", Id), may("scopes", Ids)]);

pub(super) static NODE: Params = closed(&[must("nodeId", Id)]);
pub(super) static NODE_RENAME: Params = closed(&[must("nodeId", Id), must("displayName", Id)]);

pub(super) static NODE_INVOKE: Params = closed(&[
    must("nodeId", Id),
    must("command", Id),
    must("idempotencyKey", Id),
    may("params", Any),
    may("timeoutMs", Count),
    // Whose turn asked: a node gets nothing of it here.
    may("sessionKey", Moot),
    may("turnSourceChannel", Moot),
    may("turnSourceTo", Moot),
    may("turnSourceAccountId", Moot),
    may("turnSourceThreadId", Moot),
]);

static NODE_ERROR: Params = open(&[may("code", Text), may("message", Text)]);

pub(super) static NODE_RESULT: Params = closed(&[
    must("id", Id),
    must("nodeId", Id),
    must("ok", Flag),
    may("payload", Any),
    may("payloadJSON", Text),
    may("error", Within(&NODE_ERROR)),
]);

pub(super) static NODE_EVENT: Params = open(&[must("event", Id)]);

pub(super) static SESSIONS: Params = open(&[may("limit", Count)]);
