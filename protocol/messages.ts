// Control messages between the coordinator and a worker, as values. Gradients never travel here: they go from peer to peer in
// frames (frame.ts). A message is parsed once, at the border, by `decode...`; inside it is trusted.
//
// Order on one control link: hello -> welcome -> ready, then for each generation that this worker is a member of: generation -> linked ->
// begin [-> state parts] -> report ... -> finished, or interrupted. A newer generation ends an older one at any point.

import { Packr, Unpackr } from 'msgpackr';
import { z } from 'zod';
import { LockstepError } from './errors.ts';
import { TRANSPORTS } from './link.ts';
import { runConfigSchema } from './run-config.ts';
import { areSpans } from './timeline.ts';

/** Refused when it differs. Raise it with every change that an older peer would misread. */
export const PROTOCOL_VERSION = 7;

/** Longest control message in bytes; state travels in parts below it. */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
/** Steps in one report. */
export const MAX_REPORTED_STEPS = 256;
/** Links of one worker: there are no more ranks than microbatches. */
const MAX_LINKS = 64;
/** Floats in one part of a state transfer (8 MiB). */
export const MAX_STATE_PART_FLOATS = 2 * 1024 * 1024;

const name = z.string().max(200);
const text = z.string().max(8192);
const count = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const seconds = z.number().min(0);
const digest = z.string().regex(/^[0-9a-f]{64}$/);
/** By keys.ts. */
const proof = z.string().regex(/^[\w-]{43}$/);

export const engineInfoSchema = z.strictObject({
  name,
  library: name,
  device: z.string().max(400),
  threads: z.int().min(1).max(4096),
  settings: z.record(name, z.string().max(400)),
});

/**
 * Where one step's wall time went, in seconds. `wait`: for peers that had not finished computing; who is waited for waits least itself.
 * `allreduce`: from then on until the sum was here.
 */
export const phaseSecondsSchema = z.strictObject({
  data: seconds,
  compute: seconds,
  allreduce: seconds,
  apply: seconds,
  wait: seconds,
});
export type PhaseSeconds = z.infer<typeof phaseSecondsSchema>;

/** Most microbatches of a step, so that a state's vectors are bounded. */
const MAX_MICROBATCHES = 64;
const MAX_SLOTS = 15;
const MAX_VECTORS = 1 + MAX_SLOTS + MAX_MICROBATCHES;

/** A part of a sender's state: the named vector's floats [offset, offset + bytes / 4), float32 little-endian. */
const statePart = z.strictObject({
  kind: z.literal('state'),
  /** Steps done by the state that this is a part of. */
  step: count,
  /** Digest of the whole weights. */
  digest,
  /** `weights`, `slot:<name>` of the optimizer, or `residual:<m>` of a microbatch where gradients are compressed. */
  vector: name,
  /** Place among the vectors that this sender has of the state: (0 .. vectors - 1). */
  vectorIndex: z
    .int()
    .min(0)
    .max(MAX_VECTORS - 1),
  vectors: z.int().min(1).max(MAX_VECTORS),
  offset: count,
  length: count,
  bytes: z.custom<Uint8Array>(
    (b) => b instanceof Uint8Array && b.byteLength <= 4 * MAX_STATE_PART_FLOATS,
    'no bytes, or too many',
  ),
});
export type StatePart = z.infer<typeof statePart>;

const RESIDUAL = 'residual:';

/** The name of a microbatch's residual among a state's vectors. */
export function residualName(microbatch: number): string {
  return `${RESIDUAL}${microbatch}`;
}

export function isResidual(vector: string): boolean {
  return vector.startsWith(RESIDUAL);
}

const hello = z.strictObject({
  kind: z.literal('hello'),
  protocol: z.int(),
  lockstep: name,
  node: name,
  host: name,
  pid: count,
  /** The launcher's own number of this process on its host; null when nobody numbers it. */
  localRank: z.int().min(0).nullable(),
  /** What a worker stands at that has lost its coordinator, or been lost by it; null for a newcomer. */
  rejoin: z
    .strictObject({
      /** Its name until now. */
      worker: name,
      /** The last generation that it served, and that one's world size; 0: none. */
      generation: count,
      worldSize: count,
      /** Steps done. */
      step: count,
      /** The last of the run's coordinators that it has joined, by its term. */
      term: count,
      /** What that coordinator, and the one that opened that generation, gave it to show: a run without a token has none. */
      termProof: proof.optional(),
      memberProof: proof.optional(),
    })
    .nullable(),
});

const weightEntry = z.strictObject({
  name,
  shape: z.array(count).max(16),
  offset: count,
  length: count,
  trainable: z.boolean(),
});

const ready = z.strictObject({
  kind: z.literal('ready'),
  engine: engineInfoSchema,
  fingerprint: digest,
  /** Digest of the initial weights of the run's seed, as this worker's engine makes them. */
  weightsDigest: digest,
  /** Where peers reach it. */
  peerUrl: z.string().max(400),
  /** Where its own metrics are served, for Prometheus; none where they are not. */
  metricsUrl: z
    .string()
    .max(400)
    .regex(/^https?:\/\/[^/\s]+\/metrics$/)
    .optional(),
  layout: z.array(weightEntry).max(100_000),
  /** The model's topology as JSON text, for export. */
  topology: z.string().max(8 * 1024 * 1024),
  optimizer: z.strictObject({ name, slots: z.array(name).max(MAX_SLOTS) }),
});

/** All links of the generation are up. What this worker brings along: steps done, and the digest of its weights after them. */
const linked = z.strictObject({ kind: z.literal('linked'), generation: count, step: count, digest });

/** A generation is over for this worker before its time; it waits for the next one. */
const interrupted = z.strictObject({
  kind: z.literal('interrupted'),
  generation: count,
  /** Steps that it has done; and microbatches that it has computed of the one in flight and not kept, to be computed again. */
  step: count,
  computed: count,
  /** The rank whose link was lost or dropped; null when it was told to give the generation up. */
  peer: z.int().min(0).nullable(),
  code: name,
  because: text,
});

/** Answers a probe: the generation that is served, steps done, and microbatches computed of the one in flight. */
const standing = z.strictObject({ kind: z.literal('standing'), generation: count, step: count, computed: count });

const stepReport = z.strictObject({
  /** Steps done with this one: the first step's report says 1. */
  step: count,
  samples: count,
  /** Sum of the losses of the global batch, and how many it got right: the same bits from every rank. */
  lossSum: z.number(),
  correct: z.number(),
  gradientNorm: z.number(),
  /** Wall time of the step on this rank, and where it went. */
  seconds,
  phases: phaseSecondsSchema,
  rssBytes: count,
  /** Of the weights after this step, each `digestEverySteps` steps of the configuration. */
  digest: digest.optional(),
  /** Digests of audited microbatches: its own, and those that it computed again for another (audit-plan.ts). */
  audits: z
    .array(z.strictObject({ microbatch: z.int().min(0), digest, as: z.enum(['owner', 'auditor']) }))
    .max(2 * MAX_MICROBATCHES)
    .optional(),
});
export type StepReport = z.infer<typeof stepReport>;
export type AuditFinding = NonNullable<StepReport['audits']>[number];

/** What the link to the peer of that rank carried. */
const linkTraffic = z.strictObject({
  peer: z.int().min(0),
  transport: z.enum(TRANSPORTS),
  bytesOut: count,
  bytesIn: count,
});
export type LinkTraffic = z.infer<typeof linkTraffic>;

/** Steps in their order, as many as were done since the last report, and what their all-reduces carried. */
const report = z.strictObject({
  kind: z.literal('report'),
  generation: count,
  steps: z.array(stepReport).min(1).max(MAX_REPORTED_STEPS),
  /** None for a rank alone. */
  links: z.array(linkTraffic).max(MAX_LINKS),
});

const evaluation = z.strictObject({
  kind: z.literal('evaluation'),
  generation: count,
  /** Steps done by the evaluated weights. */
  step: count,
  /** Digest of those weights on this rank. */
  digest,
  seconds,
  /** Fixed pieces of the test set, by index; summed in index order by the coordinator. */
  chunks: z.array(z.strictObject({ index: count, samples: count, lossSum: z.number(), correct: count })).max(1_000_000),
});

const finished = z.strictObject({
  kind: z.literal('finished'),
  generation: count,
  step: count,
  digest,
  peakRssBytes: count,
  because: z.enum(['done', 'stopped']),
});

const failed = z.strictObject({
  kind: z.literal('failed'),
  code: name,
  message: text,
  stack: text,
});

/** Answers `clock` at once: when it heard of it. */
const clockAnswer = z.strictObject({
  kind: z.literal('clock'),
  /** As it was asked. */
  sentUs: z.number(),
  /** Microseconds of this machine's monotonic clock. */
  atUs: z.number(),
  /** Names the machine's time since it was started: processes that give the same have one clock. Null where there is no such name. */
  boot: name.nullable(),
});

/** Where time went on a worker, for the timeline that was asked for by `clock`. */
const trace = z.strictObject({
  kind: z.literal('trace'),
  generation: count,
  /** Packed (timeline.ts). */
  spans: z.custom<Uint8Array>(areSpans, 'no packed spans'),
  /** Those that were not recorded for want of room. */
  lost: count,
});
export type TraceMessage = z.infer<typeof trace>;

const workerMessageSchema = z.discriminatedUnion('kind', [
  hello,
  ready,
  linked,
  interrupted,
  standing,
  report,
  statePart,
  evaluation,
  finished,
  failed,
  clockAnswer,
  trace,
]);
export type WorkerMessage = z.infer<typeof workerMessageSchema>;

const welcome = z.strictObject({
  kind: z.literal('welcome'),
  protocol: z.int(),
  worker: name,
  config: runConfigSchema,
  /** Steps that this coordinator has on record. */
  step: count,
  /** Which of the run's coordinators this is, counted from 1: where two of them live, the one of the higher term has the run. */
  term: count,
  /**
   * What a worker is told of what follows from the run's key (keys.ts): who may read its metrics is known by `observe`, its peers by
   * `peers`; `term` it shows to other coordinators. None in a run without a token.
   */
  secrets: z.strictObject({ observe: proof, peers: proof, term: proof }).optional(),
});

/** A new membership: its members link up. */
const generation = z.strictObject({
  kind: z.literal('generation'),
  generation: count,
  /** The one before is ended by an agreement on its all-reduce, after a whole step; else it is given up at once. */
  graceful: z.boolean(),
  rank: z.int().min(0),
  worldSize: z.int().min(1),
  members: z.array(
    z.strictObject({
      worker: name,
      rank: z.int().min(0),
      peerUrl: z.string().max(400),
      host: name,
      /** By which the receiver and this member know each other; none of itself, and in a run without a token. */
      key: proof.optional(),
    }),
  ),
  /** Microbatches of each rank, ascending; none: evenly, by rank. */
  shares: z.array(z.array(z.int().min(0))).optional(),
  /** That the receiver is a member, to be shown to other coordinators. */
  proof: proof.optional(),
  because: text,
});

/** All members are linked: train on from one state. */
const begin = z.strictObject({
  kind: z.literal('begin'),
  generation: count,
  /** Steps done by that state. */
  step: count,
  /**
   * Where the state comes from: `held` by every member; from a rank, over the generation's own links, for those who are behind; from
   * the coordinator, in parts that follow; or `start`: the seed's initial weights.
   */
  source: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('held') }),
    z.strictObject({ kind: z.literal('start') }),
    z.strictObject({ kind: z.literal('coordinator') }),
    z.strictObject({ kind: z.literal('rank'), rank: z.int().min(0) }),
  ]),
  /** Of the weights in that state. */
  digest,
  /** What members have yet to do with it first: evaluate it; send it to be kept. */
  evaluate: z.boolean(),
  keep: z.boolean(),
  /** Not to train with it: there are too few, and another generation will come. */
  hold: z.boolean(),
});

/** Finish the step in flight on every rank, leave a checkpoint, end. */
const stop = z.strictObject({ kind: z.literal('stop'), because: text });

/** How far are you? No step has come for long. */
const probe = z.strictObject({ kind: z.literal('probe') });

/** A timeline is written of the steps `from` to `to`: record them. And what time is it there? To be answered at once, by the same number. */
const clock = z.strictObject({ kind: z.literal('clock'), sentUs: z.number(), from: count, to: count });
export type ClockMessage = z.infer<typeof clock>;

/** Of one shape in all versions: who is refused for its version must understand it. */
const refused = z.strictObject({ kind: z.literal('refused'), code: name, because: text });

/** Nothing is needed of this worker any more: it ends with the exit code that the run's end has. */
const dismissed = z.strictObject({
  kind: z.literal('dismissed'),
  outcome: z.enum(['done', 'stopped', 'failed']),
  because: text,
});
export type Dismissal = z.infer<typeof dismissed>;

const coordinatorMessageSchema = z.discriminatedUnion('kind', [
  welcome,
  statePart,
  generation,
  begin,
  stop,
  probe,
  clock,
  refused,
  dismissed,
]);
export type CoordinatorMessage = z.infer<typeof coordinatorMessageSchema>;

const packr = new Packr({ useRecords: false, moreTypes: false });
const unpackr = new Unpackr({ useRecords: false, moreTypes: false, int64AsType: 'number' });

export function encodeMessage(message: WorkerMessage | CoordinatorMessage): Uint8Array {
  return packr.pack(message);
}

/** `onMalformed` may throw a better reason than that it does not fit the schema. */
function decode<T>(schema: z.ZodType<T>, bytes: Uint8Array, onMalformed: (value: unknown) => void = () => {}): T {
  if (bytes.byteLength > MAX_MESSAGE_BYTES) {
    throw new LockstepError('E_MESSAGE', `a message of ${bytes.byteLength} bytes; the limit is ${MAX_MESSAGE_BYTES}`);
  }
  let value: unknown;
  try {
    value = unpackr.unpack(bytes);
  } catch (cause) {
    throw new LockstepError('E_MESSAGE', 'a message that is not MessagePack', { cause });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    onMalformed(value);
    const issue = parsed.error.issues[0];
    const where = issue?.path.join('.') ?? '';
    throw new LockstepError('E_MESSAGE', `a malformed message: ${where === '' ? 'message' : where}: ${issue?.message}`);
  }
  return parsed.data;
}

/** Parses what a worker sent. Throws LockstepError E_MESSAGE that names the field, or E_PROTOCOL_VERSION for another version's hello. */
export function decodeWorkerMessage(bytes: Uint8Array): WorkerMessage {
  return decode(workerMessageSchema, bytes, refuseOtherVersion);
}

/** What a hello has in every version, so that another one's is told from a malformed message, and answered. */
const anyHello = z.object({ kind: z.literal('hello'), protocol: z.int(), host: name });

function refuseOtherVersion(value: unknown): void {
  const { data } = anyHello.safeParse(value);
  if (data === undefined || data.protocol === PROTOCOL_VERSION) return;
  throw new LockstepError('E_PROTOCOL_VERSION', otherVersionText(data));
}

/** Why a worker of another version is refused. */
export function otherVersionText({ host, protocol }: { readonly host: string; readonly protocol: number }): string {
  return `worker on ${host} speaks protocol ${protocol}, this coordinator ${PROTOCOL_VERSION}: install the same Lockstep on both`;
}

/** Parses what the coordinator sent. Throws LockstepError E_MESSAGE that names the field. */
export function decodeCoordinatorMessage(bytes: Uint8Array): CoordinatorMessage {
  return decode(coordinatorMessageSchema, bytes);
}
