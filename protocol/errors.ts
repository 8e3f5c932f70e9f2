// Every refusal has a stable code, a sentence that names the culprit, and a remedy.
// Bad input (flag, file, frame, peer, config) raises a LockstepError; our own bugs raise plain assertions instead.

/** Stable codes: tests, launch scripts and metrics match on them, never on the sentence. Add, never rename. */
export type ErrorCode =
  // usage and bad input: exit 2
  | 'E_USAGE' // an unknown flag, command or value
  | 'E_NODE_VERSION' // a Node too old
  | 'E_BATCH_SIZE' // a batch that the microbatches do not divide
  | 'E_JOB_NOT_FOUND'
  | 'E_JOB_INVALID' // a job file that throws or does not define a job
  | 'E_JOB_CHANGED' // job source differs between coordinator, worker or checkpoint
  | 'E_RUN_DIR_IN_USE'
  | 'E_RUN_DIR_NOT_EMPTY'
  | 'E_RUN_NOT_FOUND'
  | 'E_PORT_IN_USE'
  | 'E_NATS_UNREACHABLE'
  | 'E_NATS_REFUSED' // a NATS server that refuses credentials or is too small
  | 'E_RUN_IN_USE' // another coordinator has the run's name on the NATS server
  | 'E_HOSTS' // a list of hosts that can't be used, or a host in it
  | 'E_LISTEN' // an address that can't be listened on, or not without a token
  | 'E_TLS' // a certificate or key that can't be used, or one that isn't trusted
  | 'E_TOOL_MISSING' // pip, a compiler
  | 'E_ENGINE_UNAVAILABLE'
  | 'E_TRACE' // a model that cannot be traced into a graph
  | 'E_NOT_SUPPORTED' // a contract flag whose capability is absent
  // files and downloads
  | 'E_DOWNLOAD' // every source failed
  | 'E_HASH' // bytes that differ from their published hash
  | 'E_DISK' // too little room
  | 'E_DATA_CORRUPT'
  | 'E_CHECKPOINT_CORRUPT'
  | 'E_NO_CHECKPOINT'
  | 'E_RECORD_VERSION' // a checkpoint, journal or report of another version's format
  // what `lockstep verify` finds in a run's record
  | 'E_RECORD_DAMAGED' // a line or file of it that can't be read
  | 'E_RECORD_STEPS' // steps that are not consecutive, or not done exactly once
  | 'E_RECORD_GENERATION' // a generation's number that is used twice or unknown, or members that can't be
  | 'E_RECORD_SAMPLES' // samples that are not used exactly once an epoch
  | 'E_RECORD_DIGEST' // two places that disagree about weights or a loss
  | 'E_RECORD_REPLAY' // a step that comes to other bits when it is computed again
  // between processes
  | 'E_FRAME' // a malformed frame
  | 'E_MESSAGE' // a malformed control message
  | 'E_PROTOCOL' // a well-formed message at the wrong time
  | 'E_PROTOCOL_VERSION'
  | 'E_UNAUTHORIZED'
  | 'E_TOKEN_EXPIRED'
  | 'E_FORBIDDEN' // a token whose scope does not cover what is asked
  | 'E_ORIGIN' // a web page of another origin
  | 'E_HOST' // a request to loopback by a name that is none of this machine's
  | 'E_HANDSHAKE' // a peer that shows nothing in time
  | 'E_TOO_MANY' // more connections than there may be
  | 'E_TOO_LARGE' // a head or message over its limit
  | 'E_TOO_FAST' // more messages than a peer may send
  | 'E_REPLAYED' // a handshake that has been seen before
  | 'E_REQUEST' // what is no HTTP request
  | 'E_FINGERPRINT' // an engine that computes other bits
  | 'E_DIGEST' // replicas whose weights differ
  | 'E_PEER_LOST'
  | 'E_STALLED' // a worker whose engine hangs: the others wait for it
  | 'E_COORDINATOR_LOST'
  | 'E_FENCED' // a coordinator that another one has replaced
  | 'E_NATS_LOST' // the connection to the NATS server ended
  // in running
  | 'E_HOST_LOST' // a host that can't be reached, or whose workers can't be kept alive
  | 'E_TOO_FEW_WORKERS' // fewer than --min-workers for longer than --wait-limit
  | 'E_WORKER_FAILED'
  | 'E_NOT_FINITE' // a loss or gradient that is not finite
  | 'E_TRAINING';

export class LockstepError extends Error {
  readonly code: ErrorCode;
  /** What the reader can do about it, as an imperative sentence. */
  readonly remedy: string | undefined;

  constructor(code: ErrorCode, message: string, options: { remedy?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'LockstepError';
    this.code = code;
    this.remedy = options.remedy;
  }
}

const USAGE_CODES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'E_USAGE',
  'E_NODE_VERSION',
  'E_BATCH_SIZE',
  'E_JOB_NOT_FOUND',
  'E_JOB_INVALID',
  'E_JOB_CHANGED',
  'E_RUN_DIR_IN_USE',
  'E_RUN_DIR_NOT_EMPTY',
  'E_RUN_NOT_FOUND',
  'E_PORT_IN_USE',
  'E_NATS_UNREACHABLE',
  'E_NATS_REFUSED',
  'E_RUN_IN_USE',
  'E_HOSTS',
  'E_LISTEN',
  'E_TLS',
  'E_TOKEN_EXPIRED',
  'E_TOOL_MISSING',
  'E_ENGINE_UNAVAILABLE',
  'E_TRACE',
  'E_NOT_SUPPORTED',
  'E_NO_CHECKPOINT',
  'E_RECORD_VERSION',
]);

/** Exit code of the contract: 2 for usage and bad input, 1 for everything that failed in running. */
export function exitCodeOf(error: unknown): 1 | 2 {
  return error instanceof LockstepError && USAGE_CODES.has(error.code) ? 2 : 1;
}
