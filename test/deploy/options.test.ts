// The command line: what is taken, where each value comes from, and how each refusal reads.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseCommand, type TrainOptions } from '../../deploy/options.ts';
import { FLAGS, flagName } from '../../deploy/options/flags.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { parse, refusal } from './command-line.ts';

function trained(line: string, env: Record<string, string> = {}): TrainOptions {
  const command = parse(`train a-job ${line}`, env);
  if (command.kind !== 'train') throw new Error(`${command.kind} was parsed`);
  return command.options;
}

const NO_SECRETS = { tls: false, ca: null, user: null, password: null, token: null, credentials: null };

describe('values and where they come from', () => {
  test('without flags, each value is the default and says so', () => {
    const { job, flags, origins } = trained('');
    expect(job).toBe('a-job');
    expect(flags).toEqual({
      workers: undefined,
      nnodes: undefined,
      nprocPerNode: undefined,
      pin: 'auto',
      workerOutput: 'file',
      epochs: undefined,
      maxSteps: undefined,
      batchSize: undefined,
      microbatches: undefined,
      learningRate: undefined,
      seed: undefined,
      engine: 'auto',
      engineMode: undefined,
      adapter: undefined,
      precision: undefined,
      transport: 'ws',
      bucketSize: undefined,
      gradientCompression: undefined,
      natsUrl: undefined,
      natsCreds: undefined,
      natsReplicas: undefined,
      standby: false,
      listen: { host: '127.0.0.1', port: 29400 },
      runDir: undefined,
      resume: false,
      autoResume: false,
      allowChangedJob: false,
      checkpointEvery: undefined,
      keepCheckpoints: 3,
      digestEvery: 100,
      audit: 0,
      trainSamples: undefined,
      testSamples: undefined,
      augment: undefined,
      tokenFile: undefined,
      tlsCert: undefined,
      tlsKey: undefined,
      tlsCa: undefined,
      localTransport: 'shm',
      report: undefined,
      tensorboard: undefined,
      timeline: undefined,
      timelineSteps: { from: 0, to: Number.MAX_SAFE_INTEGER },
      logLevel: 'info',
      logFormat: 'pretty',
      allowMixedEngines: false,
      minWorkers: 1,
      maxWorkers: undefined,
      waitLimit: 600,
      restartLimit: 3,
      stragglerLimit: 0,
      progressLimit: 60,
    });
    expect(new Set(origins.values())).toEqual(new Set(['default']));
  });

  test('all flags of the contract are taken', () => {
    const { flags } = trained(
      '--workers 3 --epochs 2 --max-steps 40 --batch-size 128 --microbatches 8 --learning-rate 5e-4 --seed 7 --engine tensorflow ' +
        '--precision float32 --engine-mode eager --adapter L4 --transport nats --nats-url nats://ann:s3cret@h:4333 --nats-creds c --nats-replicas 5 --bucket-size 64 --gradient-compression bf16 --data-threads 3 --listen [::1]:0 --run-dir out/x --resume --auto-resume --allow-changed-job --checkpoint-every 10 --keep-checkpoints 5 --digest-every 50 --audit 0.25 ' +
        '--train-samples 640 --test-samples 0 --augment off --token-file t --tls-cert c --tls-key k --tls-ca a --tls-client-ca b --local-transport unix --report r.json --timeline t.json --timeline-steps 10-20 --log-level debug --log-format json ' +
        '--allow-mixed-engines --pin on --worker-output both --min-workers 2 --max-workers 4 --wait-limit 30 --restart-limit 0 --straggler-limit 0.5 --progress-limit 90',
    );
    expect(flags).toEqual({
      workers: 3,
      nnodes: undefined,
      nprocPerNode: undefined,
      pin: 'on',
      workerOutput: 'both',
      epochs: 2,
      maxSteps: 40,
      batchSize: 128,
      microbatches: 8,
      learningRate: 0.0005,
      seed: 7,
      engine: 'tensorflow',
      engineMode: 'eager',
      adapter: 'L4',
      precision: 'float32',
      transport: 'nats',
      bucketSize: 64,
      gradientCompression: 'bf16',
      dataThreads: 3,
      natsUrl: { ...NO_SECRETS, url: 'nats://h:4333', hostPort: 'h:4333', user: 'ann', password: 's3cret' },
      natsCreds: 'c',
      natsReplicas: 5,
      standby: false,
      listen: { host: '::1', port: 0 },
      runDir: 'out/x',
      resume: true,
      autoResume: true,
      allowChangedJob: true,
      checkpointEvery: 10,
      keepCheckpoints: 5,
      digestEvery: 50,
      audit: 0.25,
      trainSamples: 640,
      testSamples: 0,
      augment: false,
      tokenFile: 't',
      tlsCert: 'c',
      tlsKey: 'k',
      tlsCa: 'a',
      tlsClientCa: 'b',
      localTransport: 'unix',
      report: 'r.json',
      timeline: 't.json',
      timelineSteps: { from: 10, to: 20 },
      logLevel: 'debug',
      logFormat: 'json',
      allowMixedEngines: true,
      minWorkers: 2,
      maxWorkers: 4,
      waitLimit: 30,
      restartLimit: 0,
      stragglerLimit: 0.5,
      progressLimit: 90,
    });
  });

  test('a variable stands in for a flag, and the flag wins', () => {
    const env = {
      LOCKSTEP_MAX_STEPS: '40',
      LOCKSTEP_WORKERS: '2',
      LOCKSTEP_RESUME: '1',
      LOCKSTEP_ALLOW_MIXED_ENGINES: '0',
      LOCKSTEP_SEED: '',
    };
    const { flags, origins } = trained('--workers 4', env);
    expect([flags.maxSteps, flags.workers, flags.resume, flags.allowMixedEngines, flags.seed]).toEqual([
      40,
      4,
      true,
      false,
      undefined,
    ]);
    expect([
      origins.get('maxSteps'),
      origins.get('workers'),
      origins.get('resume'),
      origins.get('seed'),
      origins.get('epochs'),
    ]).toEqual(['environment', 'flag', 'environment', 'default', 'default']);
  });

  test('only the given environment is read', () => {
    process.env['LOCKSTEP_EPOCHS'] = '99';
    try {
      expect(trained('').flags.epochs).toBeUndefined();
    } finally {
      delete process.env['LOCKSTEP_EPOCHS'];
    }
  });

  test('every seed from 0 to 2^53 - 1 is taken as it is', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (seed) => {
        expect(trained(`--seed ${seed}`).flags.seed).toBe(seed);
      }),
    );
    expect(refusal('train j --seed 9007199254740992')).toMatch(/^E_USAGE --seed 9007199254740992: /);
  });

  test('coordinator takes the same flags', () => {
    expect(parse('coordinator a-job --workers 2')).toMatchObject({
      kind: 'coordinator',
      options: { job: 'a-job', flags: { workers: 2 } },
    });
  });
});

describe('refusals name the flag or the variable, and its value', () => {
  test.each([
    [
      'coordinator j --auto-resume',
      'E_USAGE --auto-resume is for a --run-dir, and none is given -> Give --run-dir DIR, the same each time; or --resume, for the newest run of the job.',
    ],
    [
      'worker --coordinator h:1 --term-grace soon',
      'E_USAGE --term-grace soon: it must be a whole number of at least 0 -> Change --term-grace or leave it out.',
    ],
    [
      'train j --workers 0',
      'E_USAGE --workers 0: it must be a whole number from 1 to 1,024 -> Change --workers or leave it out.',
    ],
    [
      'train j --workers -1',
      'E_USAGE --workers -1: it must be a whole number from 1 to 1,024 -> Change --workers or leave it out.',
    ],
    [
      'train j --workers NaN',
      'E_USAGE --workers NaN: it must be a whole number from 1 to 1,024 -> Change --workers or leave it out.',
    ],
    [
      'train j --workers 1.5',
      'E_USAGE --workers 1.5: it must be a whole number from 1 to 1,024 -> Change --workers or leave it out.',
    ],
    [
      'train j --workers 1e3',
      'E_USAGE --workers 1e3: it must be a whole number from 1 to 1,024 -> Change --workers or leave it out.',
    ],
    [
      'train j --epochs 99999999999999999999',
      'E_USAGE --epochs 99999999999999999999: it must be a whole number from 1 to 1,000,000 -> Change --epochs or leave it out.',
    ],
    [
      'train j --max-steps 0',
      'E_USAGE --max-steps 0: it must be a whole number of at least 1 -> Change --max-steps or leave it out.',
    ],
    [
      'train j --seed -3',
      'E_USAGE --seed -3: it must be a whole number of at least 0 -> Change --seed or leave it out.',
    ],
    [
      'train j --learning-rate -0.1',
      'E_USAGE --learning-rate -0.1: it must be a number above 0, e.g. 0.001 -> Change --learning-rate or leave it out.',
    ],
    [
      'train j --learning-rate Infinity',
      'E_USAGE --learning-rate Infinity: it must be a number above 0, e.g. 0.001 -> Change --learning-rate or leave it out.',
    ],
    [
      'train j --learning-rate 0',
      'E_USAGE --learning-rate 0: it must be a number above 0, e.g. 0.001 -> Change --learning-rate or leave it out.',
    ],
    [
      'train j --microbatches 3',
      'E_USAGE --microbatches 3: it must be a power of two from 1 to 64 -> Use one of 1, 2, 4, 8, 16, 32, 64.',
    ],
    [
      'train j --microbatches 128',
      'E_USAGE --microbatches 128: it must be a power of two from 1 to 64 -> Use one of 1, 2, 4, 8, 16, 32, 64.',
    ],
    ['train j --augment yes', 'E_USAGE --augment yes: it must be on or off -> Change --augment or leave it out.'],
    [
      'train j --log-level loud',
      'E_USAGE --log-level loud: it must be one of debug, info, warn, error -> Change --log-level or leave it out.',
    ],
    [
      'train j --log-format xml',
      'E_USAGE --log-format xml: it must be one of pretty, json -> Change --log-format or leave it out.',
    ],
    [
      'train j --engine pytorch',
      'E_USAGE --engine pytorch: it must be one of auto, tensorflow-gpu, tensorflow, webgpu, wasm -> Change --engine or leave it out.',
    ],
    [
      'train j --precision float16',
      'E_USAGE --precision float16: it must be one of float32, mixed_bfloat16 -> Change --precision or leave it out.',
    ],
    [
      'train j --transport tcp',
      'E_USAGE --transport tcp: it must be one of ws, nats -> Change --transport or leave it out.',
    ],
    [
      'train j --gradient-compression powersgd',
      'E_USAGE --gradient-compression powersgd: it must be one of none, bf16, fp16 -> Change --gradient-compression or leave it out.',
    ],
    [
      'train j --nats-url nats://h:1',
      'E_USAGE --nats-url is for --transport nats, and this is ws -> Give --transport nats, too, or leave it out.',
    ],
    [
      'coordinator j --standby',
      'E_USAGE --standby is for --transport nats, and this is ws -> Give --transport nats, too, or leave it out.',
    ],
    [
      'coordinator j --standby --transport nats --run-dir r',
      "E_USAGE --standby: it must be known which run is stood by, and what its workers show -> Give --run-dir, whose last part is the run's name, and --token-file, a copy of the leader's.",
    ],
    [
      'train j --standby --transport nats --run-dir r --token-file t',
      'E_USAGE --standby is for `lockstep coordinator`: `train` starts workers of its own -> Use `lockstep coordinator j --standby ...`.',
    ],
    [
      'train j --transport nats --nats-replicas 6',
      'E_USAGE --nats-replicas 6: it must be a whole number from 1 to 5 -> Change --nats-replicas or leave it out.',
    ],
    [
      'worker --coordinator http://h:1 --data-from disk',
      'E_USAGE --data-from disk: it must be one of auto, registry, coordinator -> Change --data-from or leave it out.',
    ],
    [
      'train j --nats-creds c',
      'E_USAGE --nats-creds is for --transport nats, and this is ws -> Give --transport nats, too, or leave it out.',
    ],
    [
      'train j --transport nats --nats-url http://h:1',
      'E_USAGE --nats-url http://h:1: it must be nats://HOST:PORT or tls://HOST:PORT -> Change --nats-url or leave it out.',
    ],
    [
      'train j --transport nats --nats-url nats://ann:s3cret@h:1/a-run',
      'E_USAGE --nats-url nats://***@h:1/a-run: it must be nats://HOST:PORT or tls://HOST:PORT -> Change --nats-url or leave it out.',
    ],
    [
      'worker --coordinator nats://ann:s3cret@h:1',
      "E_USAGE --coordinator nats://***@h:1: it must end with the run's name, e.g. nats://127.0.0.1:4222/cifar10-cnn-20261126-170000 -> Change --coordinator or leave it out.",
    ],
    ['train j --tls-cert c', 'E_USAGE --tls-cert c: --tls-cert and --tls-key go together -> Give both, or neither.'],
    [
      'worker --coordinator https://h:1 --tls-key k --tls-ca a',
      'E_USAGE --tls-key k --tls-ca a: --tls-cert and --tls-key go together -> Give both, or neither.',
    ],
    [
      'coordinator j --tls-ca a',
      'E_USAGE --tls-ca a: there is no certificate for it to vouch for -> Give the coordinator its --tls-cert and --tls-key, too.',
    ],
    [
      'train j --tls-client-ca b',
      'E_USAGE --tls-client-ca b: without TLS nobody shows a certificate -> Give --tls-cert and --tls-key, too.',
    ],
    [
      'train j --transport nats --tls-ca a',
      'E_USAGE --tls-ca a: there is no certificate for it to vouch for -> Give the coordinator its --tls-cert and --tls-key, too.',
    ],
    [
      'worker --coordinator nats://h:1/r --tls-ca a',
      "E_USAGE --tls-ca a: over a NATS server no peer is reached directly -> Leave it out; TLS to the server is asked for by tls:// in the server's address, and takes --tls-ca.",
    ],
    [
      'token --scope work',
      "E_USAGE --scope work: a token that may less than everything, or expires, is made from a key -> Give the run's with --token-file KEY; one is made by `lockstep token --out KEY`.",
    ],
    [
      'token --expires 5m',
      "E_USAGE --expires 5m: a token that may less than everything, or expires, is made from a key -> Give the run's with --token-file KEY; one is made by `lockstep token --out KEY`.",
    ],
    [
      'token --token-file k',
      'E_USAGE --token-file k: what is the token that is made from it for? -> Give --scope observe, or --scope work, or --scope control.',
    ],
    [
      'token --token-file k --scope admin',
      'E_USAGE --scope admin: it must be one of observe, work, control -> Change --scope or leave it out.',
    ],
    [
      'token --token-file k --scope work --expires 12',
      'E_USAGE --expires 12: it must be a time like 90m, 12h or 30d, or never -> Change --expires or leave it out.',
    ],
    [
      'worker --coordinator h:29400 --tls-ca a',
      "E_USAGE --tls-ca a: the coordinator's address http://h:29400 is one without TLS -> Give https://h:29400, or leave it out.",
    ],
    [
      'worker --coordinator h:29400 --peer-listen 10.0.0.5',
      'E_LISTEN --peer-listen 10.0.0.5: it must be HOST:PORT, e.g. 127.0.0.1:29400 or [::1]:29400 -> Ports go from 0 to 65535; port 0 picks a free one and prints it.',
    ],
    [
      'train j --timeline t.json --timeline-steps 20-10',
      'E_USAGE --timeline-steps 20-10: it must be two steps, the first one not after the last, e.g. 100-200 -> Change --timeline-steps or leave it out.',
    ],
    [
      'train j --timeline-steps 10-20',
      'E_USAGE --timeline-steps is for --timeline FILE, and there is none -> Give --timeline FILE, too, or leave it out.',
    ],
    [
      'train j --local-transport infiniband',
      'E_USAGE --local-transport infiniband: it must be one of shm, unix, tcp -> Change --local-transport or leave it out.',
    ],
    [
      'train j --wokers 2',
      'E_USAGE unknown option "--wokers" -> Did you mean --workers? `npx lockstep train --help` lists them all.',
    ],
    ['train j --seed', 'E_USAGE option "--seed <n>" argument missing -> See `npx lockstep train --help`.'],
    ['train', 'E_USAGE missing required argument "job" -> See `npx lockstep train --help`.'],
    ['trian j', 'E_USAGE unknown command "trian" -> Did you mean train? `npx lockstep --help` lists them all.'],
    ['frobnicate', 'E_USAGE unknown command "frobnicate" -> See `npx lockstep --help`.'],
    ['--bogus', 'E_USAGE unknown option "--bogus" -> See `npx lockstep --help`.'],
    [
      'worker',
      'E_USAGE a worker needs --coordinator URL -> Give the address that the coordinator printed, e.g. --coordinator http://127.0.0.1:29400.',
    ],
    [
      'worker --coordinator ftp://h',
      'E_USAGE --coordinator ftp://h: it must be the address that the coordinator printed, e.g. http://127.0.0.1:29400 -> Change --coordinator or leave it out.',
    ],
    ['evaluate', 'E_USAGE missing required argument "run" -> See `npx lockstep evaluate --help`.'],
  ])('%s', (line, expected) => {
    expect(refusal(line)).toBe(expected);
  });

  test('a variable is named with its value', () => {
    expect(refusal('train j', { LOCKSTEP_WORKERS: '0' })).toBe(
      'E_USAGE LOCKSTEP_WORKERS=0: it must be a whole number from 1 to 1,024 -> Change LOCKSTEP_WORKERS or leave it out.',
    );
    expect(refusal('train j', { LOCKSTEP_RESUME: 'perhaps' })).toBe(
      'E_USAGE LOCKSTEP_RESUME=perhaps: it must be 1 or 0 -> Change LOCKSTEP_RESUME or leave it out.',
    );
    expect(refusal('worker --coordinator h:1', { LOCKSTEP_ENGINE: 'jax' })).toBe(
      'E_USAGE LOCKSTEP_ENGINE=jax: it must be one of auto, tensorflow-gpu, tensorflow, webgpu, wasm -> Change LOCKSTEP_ENGINE or leave it out.',
    );
  });

  test('a second job is refused with the way to give flags to npm start', () => {
    expect(refusal('train cifar10-cnn 2')).toBe(
      'E_USAGE too many arguments for "train". Expected 1 argument but got 2. -> Name one job. `npm start` names cifar10-cnn itself, and its flags go after two dashes: npm start -- --workers 2.',
    );
  });

  test('a flag that npm swallowed is refused, not ignored', () => {
    const npm = { npm_lifecycle_event: 'start', npm_config_max_steps: '40' };
    expect(refusal('train cifar10-cnn', npm)).toBe(
      "E_USAGE npm took --max-steps for itself -> Put two dashes before Lockstep's flags: npm start -- --max-steps 40.",
    );
    expect(refusal('train cifar10-cnn', { npm_lifecycle_event: 'start', npm_config_resume: 'true' })).toContain(
      'npm start -- --resume.',
    );
    expect(refusal('train cifar10-cnn', { npm_config_max_steps: '40' })).toBe('no refusal');
  });

  test('no value of any flag gets past as another type than its own', () => {
    const numeric = Object.values(FLAGS).filter((spec) => /<(n|m|x|steps|seconds)>$/.test(spec.syntax));
    expect(numeric.length).toBe(19);
    fc.assert(
      fc.property(fc.constantFrom(...numeric), fc.string({ minLength: 1 }), (spec, text) => {
        fc.pre(!/^[\d.]/.test(text) && !text.includes(' '));
        expect(() => parseCommand(['train', 'j', flagName(spec.syntax), text], {}, '')).toThrow(LockstepError);
      }),
    );
  });
});

describe('--listen', () => {
  test.each([
    ['127.0.0.1:0', { host: '127.0.0.1', port: 0 }],
    ['localhost:29400', { host: 'localhost', port: 29400 }],
    ['[::1]:65535', { host: '::1', port: 65535 }],
    ['127.8.9.1:1', { host: '127.8.9.1', port: 1 }],
  ])('%s', (text, expected) => {
    expect(trained(`--listen ${text}`).flags.listen).toEqual(expected);
  });

  test.each([
    '127.0.0.1',
    ':29400',
    '29400',
    '127.0.0.1:65536',
    '::1:29400',
    '[::1]',
    'http://127.0.0.1:1',
    '127.0.0.1:http',
    'a b:1',
    '127.0.0.1:-1',
  ])('%s is no address', (text) => {
    expect(() => parseCommand(['train', 'j', '--listen', text], {}, '')).toThrow(
      expect.objectContaining({
        code: 'E_LISTEN',
        message: `--listen ${text}: it must be HOST:PORT, e.g. 127.0.0.1:29400 or [::1]:29400`,
      }),
    );
  });

  test.each(['0.0.0.0:29400', '[::]:29400', '10.0.0.5:1', 'my-host:1', '[2001:db8::1]:80', '127.0.0.1.example.org:1'])(
    '%s can be reached from other machines: not without a token file',
    (text) => {
      expect(refusal(`train j --listen ${text}`)).toBe(
        `E_LISTEN --listen ${text}: other machines can reach it, and no token is asked of them -> Give --token-file FILE with a key in it (npx lockstep token --out FILE), or listen on 127.0.0.1.`,
      );
      expect(refusal(`train j --listen ${text} --token-file t`)).toBe('no refusal');
    },
  );
});

describe('the other commands', () => {
  test('worker', () => {
    expect(parse('worker --coordinator ws://10.0.0.5:29400/ --job j.ts --token-file t')).toEqual({
      kind: 'worker',
      flags: {
        coordinator: { kind: 'http', url: 'http://10.0.0.5:29400' },
        natsCreds: undefined,
        nprocPerNode: undefined,
        restartLimit: 3,
        pin: 'auto',
        dataFrom: 'auto',
        job: 'j.ts',
        tokenFile: 't',
        engine: 'auto',
        adapter: undefined,
        peerListen: undefined,
        localTransport: 'shm',
        termGrace: 0,
        tlsCert: undefined,
        tlsKey: undefined,
        tlsCa: undefined,
        tlsClientCa: undefined,
      },
    });
    expect(
      parse('worker --coordinator wss://h:5 --peer-listen [::1]:7 --local-transport tcp --tls-ca a', {
        LOCKSTEP_TLS_CERT: 'c',
        LOCKSTEP_TLS_KEY: 'k',
      }),
    ).toMatchObject({
      flags: {
        coordinator: { kind: 'http', url: 'https://h:5' },
        peerListen: { host: '::1', port: 7 },
        localTransport: 'tcp',
        tlsCert: 'c',
        tlsKey: 'k',
        tlsCa: 'a',
      },
    });
    expect(parse('worker', { LOCKSTEP_COORDINATOR: 'h:5', LOCKSTEP_TOKEN_FILE: 't' })).toMatchObject({
      flags: { coordinator: { kind: 'http', url: 'http://h:5' }, tokenFile: 't' },
    });
  });

  test('worker over NATS: the run by its name, what the server asks for from the variable, for that server only', () => {
    const at = (line: string, env = {}): unknown =>
      (parse(`worker --coordinator ${line}`, env) as { flags: object }).flags;
    const server = { ...NO_SECRETS, url: 'nats://h:4333', hostPort: 'h:4333' };
    expect(at('nats://h:4333/a%20run')).toMatchObject({ coordinator: { kind: 'nats', run: 'a run', server } });
    const ann = { user: 'ann', password: 's3cret' };
    expect(at('nats://h:4333/r', { LOCKSTEP_NATS_URL: 'nats://ann:s3cret@h:4333' })).toMatchObject({
      coordinator: { run: 'r', server: { ...server, ...ann } },
    });
    expect(at('nats://h:4333/r', { LOCKSTEP_NATS_URL: 'nats://ann:s3cret@other:4333' })).toMatchObject({
      coordinator: { server },
    });
    expect(at('nats://bob:x@h:4333/r', { LOCKSTEP_NATS_URL: 'nats://ann:s3cret@h:4333' })).toMatchObject({
      coordinator: { server: { ...server, user: 'bob', password: 'x' } },
    });
    expect(at('nats://h:4333/r', { LOCKSTEP_NATS_CREDS: 'c' })).toMatchObject({ natsCreds: 'c' });
  });

  test('a variable says where a NATS server is without wanting it', () => {
    expect(trained('', { LOCKSTEP_NATS_URL: 'nats://h:1' }).flags).toMatchObject({
      transport: 'ws',
      natsUrl: { url: 'nats://h:1' },
    });
  });

  test('status, evaluate, report, verify, doctor, setup', () => {
    const none = { tlsCert: undefined, tlsKey: undefined, tlsCa: undefined, tokenFile: undefined };
    expect(parse('status')).toEqual({ kind: 'status', url: undefined, watch: false, ...none });
    expect(parse('status --watch')).toMatchObject({ kind: 'status', watch: true });
    expect(parse('status https://127.0.0.1:29400 --tls-ca a', { LOCKSTEP_TOKEN_FILE: 't' })).toEqual({
      kind: 'status',
      watch: false,
      url: 'https://127.0.0.1:29400',
      ...none,
      tlsCa: 'a',
      tokenFile: 't',
    });
    expect(parse('evaluate runs/x')).toEqual({ kind: 'evaluate', run: 'runs/x' });
    expect(parse('evaluate runs/x --predictions f')).toEqual({ kind: 'evaluate', run: 'runs/x', predictions: 'f' });
    expect(parse('report runs/x')).toEqual({ kind: 'report', run: 'runs/x' });
    expect(parse('report runs/x --output a.html')).toEqual({ kind: 'report', run: 'runs/x', output: 'a.html' });
    expect(parse('verify runs/x')).toEqual({ kind: 'verify', run: 'runs/x' });
    expect(parse('verify runs/x --replay 12')).toEqual({ kind: 'verify', run: 'runs/x', replay: 12 });
    expect(() => parse('verify runs/x --replay 0')).toThrow('--replay 0: it must be a whole number of at least 1');
    expect(parse('doctor')).toEqual({ kind: 'doctor', natsUrl: undefined });
    expect(parse('setup')).toEqual({ kind: 'setup', engine: 'auto', job: 'cifar10-cnn' });
  });

  test('token: a new key, or what is made from one, which expires unless told otherwise', () => {
    // A key that is set for other commands is not meant.
    expect(parse('token', { LOCKSTEP_TOKEN_FILE: 'k' })).toEqual({ kind: 'token', from: null, out: undefined });
    expect(parse('token --out f')).toEqual({ kind: 'token', from: null, out: 'f' });
    const made = (line: string): unknown =>
      (parse(`token --token-file k --scope work ${line}`) as { from: { expiresInSeconds: unknown } }).from;
    expect(made('')).toEqual({ keyFile: 'k', scope: 'work', expiresInSeconds: 43_200 });
    const lives = ['45s', '90m', '2h', '30d', 'never'].map((time) => made(`--expires ${time}`));
    expect(lives).toMatchObject([45, 5400, 7200, 2_592_000, null].map((expiresInSeconds) => ({ expiresInSeconds })));
  });

  test('--tls-ca is of the NATS server where that is called by tls://', () => {
    expect(trained('--transport nats --nats-url tls://h:1 --tls-ca a').flags).toMatchObject({ tlsCa: 'a' });
    expect(parse('worker --coordinator tls://h:1/r --tls-ca a')).toMatchObject({ flags: { tlsCa: 'a' } });
  });

  test('what follows test and bench is passed on as it is', () => {
    expect(parse('test unit --help -t x')).toEqual({ kind: 'test', args: ['unit', '--help', '-t', 'x'] });
    expect(parse('bench allreduce --json f')).toEqual({ kind: 'bench', args: ['allreduce', '--json', 'f'] });
  });

  test('help and version are printed', () => {
    expect(parse('--version')).toEqual({ kind: 'print', text: '9.8.7\n' });
    for (const line of ['', '--help', '-h']) {
      const help = parse(line);
      expect(help.kind === 'print' && help.text).toContain('Commands:');
    }
  });

  test("train's help has every flag that works, grouped, none that does not, and fits its width", () => {
    const help = parseCommand(['train', '--help'], {}, '', 80);
    if (help.kind !== 'print') throw new Error(help.kind);
    for (const spec of Object.values(FLAGS)) {
      expect(help.text.includes(`  ${spec.syntax} `), spec.syntax).toBe(spec.hidden !== true);
    }
    for (const group of ['Training:', 'Data:', 'Workers:', 'Run:', 'Network:', 'Output:'])
      expect(help.text).toContain(`\n${group}\n`);
    expect(
      help.text
        .split('\nExamples:')[0]
        ?.split('\n')
        .filter((line) => line.length > 80),
    ).toEqual([]);
  });
});
