// The codec at the border: every message comes back as it went, and no bytes whatever do worse than E_MESSAGE, or E_PROTOCOL_VERSION
// where they are a greeting.

import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { describe, expect, it } from 'vitest';
import { LockstepError } from '../../protocol/errors.ts';
import {
  decodeCoordinatorMessage,
  decodeWorkerMessage,
  encodeMessage,
  MAX_MESSAGE_BYTES,
  PROTOCOL_VERSION,
  type CoordinatorMessage,
  type StatePart,
  type StepReport,
  type WorkerMessage,
} from '../../protocol/messages.ts';

const DIGEST = '0123456789abcdef'.repeat(4);

const STATE: StatePart = {
  kind: 'state',
  step: 40,
  digest: DIGEST,
  vector: 'slot:m',
  vectorIndex: 1,
  vectors: 3,
  offset: 2,
  length: 4,
  bytes: new Uint8Array([0, 0, 128, 63, 0, 0, 0, 192]),
};

const STEP: StepReport = {
  step: 2 ** 40,
  samples: 64,
  lossSum: 0.1 + 0.2,
  correct: 7,
  gradientNorm: 5e-324,
  seconds: 0.02,
  phases: { data: 0, compute: 0.015, allreduce: 0.003, apply: 0.001, wait: 0.001 },
  rssBytes: 480_000_000,
};

const WORKER_MESSAGES: WorkerMessage[] = [
  {
    kind: 'hello',
    protocol: 3,
    lockstep: '0.1.0',
    node: 'v20.20.2',
    host: 'red',
    pid: 4711,
    localRank: 0,
    rejoin: null,
  },
  {
    kind: 'hello',
    protocol: 3,
    lockstep: '0.1.0',
    node: 'v20.20.2',
    host: 'ré',
    pid: 0,
    localRank: null,
    rejoin: { worker: 'w1', generation: 3, worldSize: 2, step: 40, term: 2 },
  },
  {
    kind: 'ready',
    engine: { name: 'tensorflow', library: 'TensorFlow 2.21.0', device: 'CPU', threads: 1, settings: { oneDNN: '1' } },
    fingerprint: DIGEST,
    weightsDigest: DIGEST,
    peerUrl: 'ws://127.0.0.1:40001',
    metricsUrl: 'http://127.0.0.1:40002/metrics',
    layout: [{ name: 'conv/kernel', shape: [3, 3, 3, 32], offset: 0, length: 864, trainable: true }],
    topology: '{"class_name":"Sequential"}',
    optimizer: { name: 'adam', slots: ['m', 'v'] },
  },
  { kind: 'linked', generation: 1, step: 7, digest: DIGEST },
  {
    kind: 'interrupted',
    generation: 1,
    step: 7,
    computed: 2,
    peer: null,
    code: 'E_PEER_LOST',
    because: 'generation 2 takes over',
  },
  { kind: 'standing', generation: 1, step: 7, computed: 2 },
  {
    kind: 'report',
    generation: 1,
    steps: [STEP],
    links: [{ peer: 1, transport: 'shm', bytesOut: 490_280, bytesIn: 2 ** 40 }],
  },
  STATE,
  {
    kind: 'evaluation',
    generation: 1,
    step: 782,
    digest: DIGEST,
    seconds: 1.5,
    chunks: [{ index: 3, samples: 250, lossSum: 301.25, correct: 120 }],
  },
  { kind: 'finished', generation: 1, step: 7820, digest: DIGEST, peakRssBytes: 500_000_000, because: 'stopped' },
  { kind: 'failed', code: 'E_NOT_FINITE', message: 'the loss of step 3 is NaN', stack: 'Error\n    at train' },
  { kind: 'clock', sentUs: 1_234_567_890.125, atUs: 98_765.5, boot: '0e9b2b5f-8e5c-4ae5-9f0c-1c2b3a4d5e6f' },
  { kind: 'trace', generation: 2, spans: new Uint8Array(2 * 40), lost: 3 },
];

const COORDINATOR_MESSAGES: CoordinatorMessage[] = [
  {
    kind: 'welcome',
    protocol: 3,
    worker: 'w0',
    config: {
      run: 'r',
      job: { kind: 'file', path: '/jobs/mine.ts', sha256: DIGEST },
      jobName: 'mine',
      seed: Number.MAX_SAFE_INTEGER,
      globalBatch: 64,
      microbatches: 4,
      epochs: 10,
      steps: 7820,
      learningRate: 0.001,
      augment: true,
      trainSamples: 50_000,
      testSamples: 0,
      engine: 'tensorflow',
      engineMode: 'graph',
      precision: 'float32',
      transport: 'ws',
      bucketBytes: null,
      dataThreads: null,
      gradientCompression: 'none',
      checkpointEverySteps: 0,
      digestEverySteps: 0,
      auditRate: 0,
    },
    step: 0,
    term: 1,
  },
  STATE,
  {
    kind: 'generation',
    generation: 2,
    graceful: false,
    rank: 1,
    worldSize: 2,
    members: [
      { worker: 'w0', rank: 0, peerUrl: 'ws://10.0.0.1:40001', host: 'red' },
      { worker: 'w3', rank: 1, peerUrl: 'ws://10.0.0.2:40001', host: 'blue' },
    ],
    because: '2 of 2 workers ready',
  },
  { kind: 'clock', sentUs: 1_234_567_890.125, from: 0, to: Number.MAX_SAFE_INTEGER },
  ...([{ kind: 'held' }, { kind: 'start' }, { kind: 'coordinator' }, { kind: 'rank', rank: 1 }] as const).map(
    (source): CoordinatorMessage => ({
      kind: 'begin',
      generation: 2,
      step: 7,
      source,
      digest: DIGEST,
      evaluate: true,
      keep: false,
      hold: false,
    }),
  ),
  { kind: 'stop', because: 'Ctrl-C' },
  { kind: 'refused', code: 'E_FINGERPRINT', because: 'other bits' },
  { kind: 'dismissed', outcome: 'done', because: 'the run is done' },
];

/** A message with its bytes as a plain Uint8Array: decoders may give a view of what they were given. */
function plain(message: WorkerMessage | CoordinatorMessage): unknown {
  if (message.kind === 'trace') return { ...message, spans: Uint8Array.from(message.spans) };
  return message.kind === 'state' ? { ...message, bytes: Uint8Array.from(message.bytes) } : message;
}

const title = (message: { kind: string }): [string, typeof message] => [message.kind, message];
const DECODERS = [
  ['decodeWorkerMessage', decodeWorkerMessage],
  ['decodeCoordinatorMessage', decodeCoordinatorMessage],
] as const;

/** Null when the bytes are a message or refused as they should be; else what went wrong. */
function misbehaviour(decode: (bytes: Uint8Array) => unknown, bytes: Uint8Array): unknown {
  try {
    decode(bytes);
    return null;
  } catch (error) {
    return error instanceof LockstepError && ['E_MESSAGE', 'E_PROTOCOL_VERSION'].includes(error.code) ? null : error;
  }
}

describe('round trip', () => {
  it.each(WORKER_MESSAGES.map(title))('a worker’s "%s" comes back as it went', (_, message) => {
    expect(plain(decodeWorkerMessage(encodeMessage(message as WorkerMessage)))).toEqual(message);
  });

  it.each(COORDINATOR_MESSAGES.map(title))('the coordinator’s "%s" comes back as it went', (_, message) => {
    expect(plain(decodeCoordinatorMessage(encodeMessage(message as CoordinatorMessage)))).toEqual(message);
  });

  it('every finite double of a report comes back bit for bit, but for minus zero, which comes back as zero', () => {
    const report = WORKER_MESSAGES.find((m) => m.kind === 'report');
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (lossSum) => {
        const back = decodeWorkerMessage(encodeMessage({ ...report, steps: [{ ...STEP, lossSum }] } as WorkerMessage));
        return back.kind === 'report' && Object.is(back.steps[0]?.lossSum, lossSum === 0 ? 0 : lossSum);
      }),
    );
  });

  it('the bytes of a stop message are plain MessagePack', () => {
    // fixmap of 2: "kind" -> "stop", "because" -> "x"
    const bytes = Buffer.from('82a46b696e64a473746f70a762656361757365a178', 'hex');
    expect(decodeCoordinatorMessage(bytes)).toEqual({ kind: 'stop', because: 'x' });
  });
});

describe('what is refused', () => {
  const refusal = (value: unknown): string => {
    try {
      decodeWorkerMessage(new Packr({ useRecords: false }).pack(value));
    } catch (error) {
      if (error instanceof LockstepError) return `${error.code} ${error.message}`;
      throw error;
    }
    return 'accepted';
  };

  it.each<[string, unknown, string]>([
    ['a kind of the other side', { kind: 'stop', because: 'x' }, 'kind'],
    ['a missing field', { kind: 'linked' }, 'generation'],
    ['a field too many', { kind: 'linked', generation: 1, step: 0, digest: DIGEST, more: 1 }, 'more'],
    ['a negative count', { kind: 'linked', generation: -1, step: 0, digest: DIGEST }, 'generation'],
    ['a fraction for a count', { kind: 'linked', generation: 0.5, step: 0, digest: DIGEST }, 'generation'],
    [
      'a digest that is none',
      { kind: 'finished', generation: 1, step: 1, digest: 'x', peakRssBytes: 1, because: 'done' },
      'digest',
    ],
    ['a string too long', { kind: 'failed', code: 'c', message: 'x'.repeat(8193), stack: '' }, 'message'],
    [
      'an address that is no address of metrics',
      { ...WORKER_MESSAGES.find((m) => m.kind === 'ready'), metricsUrl: 'file:///etc/passwd' },
      'metricsUrl',
    ],
    ['bytes that are no bytes', { ...STATE, bytes: 'abc' }, 'bytes'],
    [
      'a nested field',
      {
        ...WORKER_MESSAGES.find((m) => m.kind === 'report'),
        steps: [{ ...STEP, phases: { data: -1, compute: 0, allreduce: 0, apply: 0, wait: 0 } }],
      },
      'steps.0.phases.data',
    ],
    ['no object', 7, 'message'],
    ['nothing', null, 'message'],
  ])('%s, naming the field', (_, value, field) => {
    expect(refusal(value)).toContain('E_MESSAGE');
    expect(refusal(value)).toContain(field);
  });

  it('a hello of another version, whatever else it has, by that version; one of this version by its field', () => {
    const hello = { kind: 'hello', protocol: PROTOCOL_VERSION + 1, host: 'h', token: 'of the future' };
    expect(refusal(hello)).toBe(
      `E_PROTOCOL_VERSION worker on h speaks protocol ${PROTOCOL_VERSION + 1}, this coordinator ${PROTOCOL_VERSION}: install the same Lockstep on both`,
    );
    expect(refusal({ ...hello, protocol: PROTOCOL_VERSION })).toContain('E_MESSAGE');
    expect(refusal({ ...hello, protocol: 'x' })).toContain('E_MESSAGE');
  });

  it('a message longer than the limit, before it is looked at', () => {
    expect(() => decodeWorkerMessage(new Uint8Array(MAX_MESSAGE_BYTES + 1))).toThrow(String(MAX_MESSAGE_BYTES));
  });

  it('trailing bytes after a message', () => {
    const bytes = Buffer.concat([
      encodeMessage({ kind: 'linked', generation: 1, step: 0, digest: DIGEST }),
      Buffer.from([0]),
    ]);
    expect(() => decodeWorkerMessage(bytes)).toThrow(LockstepError);
  });
});

describe.each(DECODERS)('%s under hostile bytes', (_, decode) => {
  it('random bytes are a message or E_MESSAGE', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(misbehaviour(decode, bytes)).toBeNull();
      }),
      { numRuns: 3000 },
    );
  });

  it('messages with bytes changed, cut or put in are a message or E_MESSAGE', () => {
    const seeds = [...WORKER_MESSAGES, ...COORDINATOR_MESSAGES].map((m) => Buffer.from(encodeMessage(m)));
    const edit = fc.record({
      at: fc.nat(2000),
      kind: fc.constantFrom('set', 'cut', 'put'),
      bytes: fc.uint8Array({ maxLength: 6 }),
    });
    fc.assert(
      fc.property(fc.constantFrom(...seeds), fc.array(edit, { minLength: 1, maxLength: 4 }), (seed, edits) => {
        let bytes = Buffer.from(seed);
        for (const { at, kind, bytes: more } of edits) {
          const place = at % (bytes.length + 1);
          if (kind === 'cut') bytes = bytes.subarray(0, place);
          else
            bytes = Buffer.concat([
              bytes.subarray(0, place),
              more,
              bytes.subarray(place + (kind === 'set' ? more.length : 0)),
            ]);
        }
        expect(misbehaviour(decode, bytes)).toBeNull();
      }),
      { numRuns: 5000 },
    );
  });

  it('MessagePack of any value is a message or E_MESSAGE', () => {
    const packr = new Packr({ useRecords: false });
    fc.assert(
      fc.property(
        fc.anything({ withBigInt: false, withDate: true, withMap: true, withSet: true, withTypedArray: true }),
        (value) => {
          expect(misbehaviour(decode, packr.pack(value))).toBeNull();
        },
      ),
      { numRuns: 1000 },
    );
  });

  it.each<[string, () => Uint8Array]>([
    ['nothing', () => new Uint8Array(0)],
    ['a million nested arrays', () => new Uint8Array(1_000_000).fill(0x91)],
    [
      'arrays that claim 4 billion entries each, nested',
      () => Uint8Array.from({ length: 500_000 }, (__, i) => [0xdd, 255, 255, 255, 255][i % 5] ?? 0),
    ],
    [
      'arrays that claim a million entries each, nested',
      () => Uint8Array.from({ length: 500_000 }, (__, i) => [0xdd, 0, 16, 0, 0][i % 5] ?? 0),
    ],
    ['a map that claims 4 billion entries', () => Uint8Array.from([0xdf, 255, 255, 255, 255])],
    ['bytes that claim 4 GB', () => Uint8Array.from([0xc6, 255, 255, 255, 255, 1])],
    ['a string that claims 4 GB', () => Uint8Array.from([0xdb, 255, 255, 255, 255, 1])],
    [
      'a regular expression that does not compile',
      () => Uint8Array.from([0xd4, 0x78, 0, 0x92, 0xa1, 0x28, 0xa1, 0x67]),
    ],
    ['a record definition', () => Uint8Array.from([0xd4, 0x72, 0x40, 0x91, 0xa4, 0x6b, 0x69, 0x6e, 0x64, 0x01])],
    ['shared references', () => Uint8Array.from([0xd6, 0x69, 0, 0, 0, 0, 0x91, 0xd6, 0x70, 0, 0, 0, 0])],
  ])('%s: E_MESSAGE', (__, bytes) => {
    expect(() => decode(bytes())).toThrow(LockstepError);
    expect(misbehaviour(decode, bytes())).toBeNull();
  });

  it('a key called __proto__ changes no prototype', () => {
    const key = Buffer.from('__proto__');
    const bytes = Buffer.concat([Buffer.from([0x81, 0xa0 + key.length]), key, Buffer.from([0x81, 0xa1, 0x78, 0x01])]);
    expect(() => decode(bytes)).toThrow(LockstepError);
    expect(({} as { x?: number }).x).toBeUndefined();
  });

  it('what one message did does not change how the next is read', () => {
    for (const bytes of [[0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61, 0x01], [0xc1], [0x91]]) {
      expect(() => decode(Uint8Array.from(bytes))).toThrow(LockstepError);
    }
    const [message] = decode === decodeWorkerMessage ? WORKER_MESSAGES : COORDINATOR_MESSAGES;
    expect(decode(encodeMessage(message as WorkerMessage))).toEqual(message);
  });
});
