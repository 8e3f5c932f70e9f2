// The run's checkpoints in the NATS server's object store, each with the record up to it, so that a coordinator can go on from an empty
// directory when nobody is left who holds the state. A shell.
//
//     bucket lockstep-<run>      step-N/<file>           a checkpoint's files as they lie on the disk (record/checkpoint.ts)
//                                step-N/journal.jsonl.gz, step-N/metrics.jsonl.gz
//                                step-N/checkpoint.json  last: with it the checkpoint is there, and it has the SHA-256 of all others
//
// Uploads run behind the training, one at a time: of those that come meanwhile only the newest is taken. One that fails is an alarm, and
// the next is tried when it is due. Which ones are kept is decided as on the disk (core/retention.ts). The whole record goes with each: a
// line a step, some 70 bytes compressed, is little beside what a step's worth of weights is, and needs no log of pieces. The store's own
// digest of every object is checked when it is read, and the checkpoint's when it is used.

import { createReadStream, createWriteStream, existsSync, readdirSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { nanos } from '@nats-io/transport-node';
import { Objm, setSha256Backend, StorageType, type ObjectInfo, type ObjectStore } from '@nats-io/obj';
import { z } from 'zod';
import { patiently } from '../../nats/patience.ts';
import type { RetainedCheckpoint } from '../core/retention.ts';
import { checkpointsToRemove } from '../core/retention.ts';
import { asideName, checkpointsOf } from '../record/checkpoint-directory.ts';
import { latestCheckpoint, scoreOf } from '../record/checkpoint.ts';
import { KEPT_MS } from './bucket.ts';
import { replicated, type Replicas } from './replicas.ts';
import type { NatsSession } from './session.ts';

/** Of one message of an object, where the server takes as much. */
const CHUNK_BYTES = 128 * 1024;
/** Until the server has taken one. */
const CHUNK_TIMEOUT_MS = 10_000;
const MANIFEST = 'checkpoint.json';
/** What goes with each checkpoint. */
const RECORD_FILES = ['journal.jsonl', 'metrics.jsonl'] as const;
const ZIPPED = '.gz';

const nullableNumber = z.number().nullable();
/** Told of a checkpoint where it is listed, so that none must be read for it. */
const labelSchema = z.object({
  term: z.coerce.number().int(),
  score: z.string().transform((text) => {
    const score = z.object({ testAccuracy: nullableNumber, testLoss: nullableNumber }).nullable();
    return score.parse(JSON.parse(text));
  }),
});

interface Stored extends RetainedCheckpoint {
  /** Of the coordinator that sent it. */
  readonly term: number;
  readonly objects: readonly string[];
}

/** The checkpoints that are there as a whole, ascending, and the objects of those that are not. */
function storedIn(objects: readonly ObjectInfo[]): { readonly whole: Stored[]; readonly rest: string[] } {
  const byStep = new Map<number, ObjectInfo[]>();
  for (const one of objects) {
    const step = Number(/^step-(\d+)\//.exec(one.name)?.[1] ?? Number.NaN);
    if (Number.isNaN(step)) continue;
    byStep.set(step, [...(byStep.get(step) ?? []), one]);
  }
  const whole: Stored[] = [];
  const rest: string[] = [];
  for (const [step, ofStep] of [...byStep].toSorted(([a], [b]) => a - b)) {
    const names = ofStep.map(({ name }) => name);
    const label = labelSchema.safeParse(ofStep.find(({ name }) => name.endsWith(`/${MANIFEST}`))?.metadata);
    if (label.success) whole.push({ step, ...label.data, objects: names });
    else rest.push(...names);
  }
  return { whole, rest };
}

export interface CheckpointStore extends Replicas {
  /** The newest one that is whole, and no older than `startTerm`, comes into the run directory with its record; null: there is none. */
  fetch(
    runDirectory: string,
    startTerm: number,
  ): Promise<{ readonly step: number; readonly notices: readonly string[] } | null>;
  /** Sends a checkpoint of the run directory, and removes those that are not to be kept. */
  send(
    runDirectory: string,
    step: number,
    options: { readonly term: number; readonly startTerm: number; readonly keep: number },
  ): Promise<void>;
}

/** Opens or makes the object store of a run. Throws what JetStream says, or E_NATS_REFUSED. */
export async function openCheckpointStore(session: NatsSession, bucket: string): Promise<CheckpointStore> {
  setSha256Backend('native');
  const objm = new Objm(session.nats.connection);
  const limits = {
    ttl: nanos(KEPT_MS),
    storage: StorageType.File,
    description: `Lockstep's checkpoints of ${session.run}`,
  };
  let opened: ObjectStore | null = null;
  const where = await replicated(session.nats, `OBJ_${bucket}`, session.replicas, async (replicas) => {
    opened = await objm.create(bucket, { ...limits, replicas });
  });
  const store: ObjectStore = opened ?? (await objm.open(bucket));

  const put = async (from: string, as: string, label: Record<string, string> = {}): Promise<void> => {
    const isZipped = as.endsWith(ZIPPED);
    await patiently(async () => {
      const file = createReadStream(from, { highWaterMark: CHUNK_BYTES });
      const bytes = isZipped ? file.pipe(createGzip()) : file;
      file.once('error', (error) => bytes.destroy(error));
      const meta = { name: as, metadata: label, options: { max_chunk_size: CHUNK_BYTES } };
      try {
        await store.put(meta, Readable.toWeb(bytes) as ReadableStream<Uint8Array>, { timeout: CHUNK_TIMEOUT_MS });
      } finally {
        file.destroy();
      }
    });
  };
  const get = async (from: string, to: string): Promise<void> => {
    await patiently(async () => {
      const found = await store.get(from);
      if (found === null) throw new Error(`${from} is not there`);
      const bytes = Readable.fromWeb(found.data as Parameters<typeof Readable.fromWeb>[0]);
      const out = createWriteStream(to, { flush: true });
      await (from.endsWith(ZIPPED) ? pipeline(bytes, createGunzip(), out) : pipeline(bytes, out));
      const error = await found.error;
      if (error instanceof Error) throw error;
    });
  };
  const all = async (): Promise<ReturnType<typeof storedIn>> => storedIn(await patiently(() => store.list()));

  /** Lays it where checkpoints lie, verified; and the record beside them. */
  const fetchOne = async (runDirectory: string, { step, objects }: Stored): Promise<void> => {
    const parent = checkpointsOf(runDirectory);
    const aside = join(parent, asideName(step));
    await rm(aside, { recursive: true, force: true });
    await mkdir(aside, { recursive: true });
    const prefix = `step-${step}/`;
    const files = objects.map((name) => name.slice(prefix.length));
    for (const file of files.filter((name) => !name.endsWith(ZIPPED))) await get(`${prefix}${file}`, join(aside, file));
    await rename(aside, join(parent, `step-${step}`));
    // Its own hashes, too: what does not pass is set aside there.
    const { checkpoint } = await latestCheckpoint(runDirectory, { setAside: true });
    if (checkpoint.step !== step) throw new Error(`it is of step ${checkpoint.step}`);
    for (const file of RECORD_FILES) {
      if (files.includes(`${file}${ZIPPED}`)) await get(`${prefix}${file}${ZIPPED}`, join(runDirectory, file));
    }
  };

  return {
    ...where,
    fetch: async (runDirectory, startTerm) => {
      const notices: string[] = [];
      const { whole } = await all();
      for (const one of whole.toReversed()) {
        if (one.term < startTerm) continue;
        try {
          await fetchOne(runDirectory, one);
          return { step: one.step, notices };
        } catch (error) {
          const because = error instanceof Error ? error.message : String(error);
          notices.push(`the checkpoint after step ${one.step} in the object store can't be used: ${because}`);
        }
      }
      return null;
    },
    send: async (runDirectory, step, { term, startTerm, keep }) => {
      const directory = join(checkpointsOf(runDirectory), `step-${step}`);
      // Newer ones have been written since, and wait.
      if (!existsSync(directory)) return;
      const score = await scoreOf(runDirectory, step);
      for (const file of RECORD_FILES) {
        const path = join(runDirectory, file);
        if (existsSync(path)) await put(path, `step-${step}/${file}${ZIPPED}`);
      }
      for (const file of readdirSync(directory).toSorted()) {
        if (file !== MANIFEST) await put(join(directory, file), `step-${step}/${file}`);
      }
      const label = { term: String(term), score: JSON.stringify(score) };
      await put(join(directory, MANIFEST), `step-${step}/${MANIFEST}`, label);
      const { whole, rest } = await all();
      const present = whole.filter((one) => one.term >= startTerm);
      const doomed = new Set(checkpointsToRemove(present, keep));
      const isDoomed = (one: Stored): boolean => one.term < startTerm || doomed.has(one.step);
      // The manifest first: what is half removed is none.
      const gone = whole.filter(isDoomed).flatMap(({ objects }) => objects);
      const isManifest = (name: string): number => (name.endsWith(`/${MANIFEST}`) ? 0 : 1);
      for (const name of [...gone.toSorted((a, b) => isManifest(a) - isManifest(b)), ...rest])
        await patiently(() => store.delete(name));
    },
  };
}

/** Sends checkpoints behind the training: one at a time, and of those that wait the newest. */
export class CheckpointUploads {
  private readonly send: (step: number) => Promise<void>;
  private readonly ended: (failure: unknown) => void;
  private waiting: number | null = null;
  private running: Promise<void> | null = null;

  /** @param ended told of each: null, or what it failed with */
  constructor(send: (step: number) => Promise<void>, ended: (failure: unknown) => void) {
    this.send = send;
    this.ended = ended;
  }

  add(step: number): void {
    this.waiting = step;
    this.running ??= this.run();
  }

  /** Resolves when nothing is under way. */
  async settled(): Promise<void> {
    await this.running;
  }

  private async run(): Promise<void> {
    for (let step = this.take(); step !== null; step = this.take()) {
      try {
        await this.send(step);
        this.ended(null);
      } catch (error) {
        this.ended(error);
      }
    }
    this.running = null;
  }

  private take(): number | null {
    const step = this.waiting;
    this.waiting = null;
    return step;
  }
}
