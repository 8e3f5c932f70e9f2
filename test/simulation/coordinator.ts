// A coordinator's process: the real core and the real border, a disk that is a list, and a network that is simulated. Carries out the
// core's effects as coordinator/main.ts does.

import { CommitLog, type CommitsEntry, type RecordedEffect } from '../../coordinator/core/commit-log.ts';
import { Fence, fencedBecause } from '../../coordinator/core/fence.ts';
import { NO_PROGRESS, type ProgressRecord } from '../../coordinator/core/progress.ts';
import type { Effect, Input, JournalEntry, Outcome } from '../../coordinator/core/effects.ts';
import type { Run, RunOptions } from '../../coordinator/core/run.ts';
import type { ReplicaState } from '../../coordinator/core/state-assembly.ts';
import type { ControlConnection } from '../../coordinator/control-connection.ts';
import { MAX_STATE_PART_FLOATS } from '../../protocol/messages.ts';
import type { RunConfig } from '../../protocol/run-config.ts';
import type { Chance } from './chance.ts';
import type { Checks } from './checks.ts';
import { openSimulatedControl } from './control-links.ts';
import type { Network } from './network.ts';
import { Violation, type Process } from './world.ts';

export const COORDINATOR_URL = 'sim://coordinator';

const TICK_MS = 250;

type Recorded =
  | JournalEntry
  | CommitsEntry
  | { readonly kind: 'run'; readonly config: RunConfig; readonly resumedFromStep: number | null };

/** What outlives a coordinator. */
export interface Disk {
  /** The last coordinator's. */
  term: number;
  journal: Recorded[];
  checkpoint: { readonly state: ReplicaState; readonly progress: ProgressRecord } | null;
  /** Share of writes that fail. */
  failures: number;
  failed: number;
}

export interface SimulatedCoordinator {
  readonly run: Run;
  readonly process: Process;
  outcome: Outcome | null;
  /** It has found out that another has the run. */
  isAside: boolean;
  stop(because: string): void;
  feed(input: Input): void;
}

export function startSimulatedCoordinator(options: {
  readonly network: Network;
  readonly process: Process;
  readonly chance: Chance;
  readonly disk: Disk;
  readonly checks: Checks;
  readonly run: Omit<
    RunOptions,
    'term' | 'resumed' | 'progress' | 'stepsLost' | 'lastGeneration' | 'workersLost' | 'isBeforeHung'
  >;
  /** Not one that takes over. */
  readonly isFirst: boolean;
  /** Steps after the checkpoint that are done again. */
  readonly stepsLost: number;
  readonly makeRun: (options: RunOptions) => Run;
  /** Another lives that does not answer. */
  readonly isBeforeHung: boolean;
  /** Whether it looks for others. */
  readonly isBlind: boolean;
  readonly startWorker: (localRank: number) => void;
  readonly endWorker: (pid: number) => void;
  readonly ended: (outcome: Outcome) => void;
  readonly stoodAside: () => void;
}): SimulatedCoordinator {
  const { network, process, chance, disk, checks } = options;
  const { world } = network;
  // First: what an older one writes from now on it acts upon no more, and it has another file.
  const term = ++disk.term;
  disk.journal = [...disk.journal];
  const ownJournal = disk.journal;
  const resume = disk.checkpoint;
  const run = options.makeRun({
    ...options.run,
    term,
    isBeforeHung: options.isBeforeHung,
    resumed: resume?.state ?? null,
    progress: resume?.progress ?? NO_PROGRESS,
    stepsLost: options.stepsLost,
    lastGeneration: Math.max(
      0,
      ...disk.journal.map((record) => (record.kind === 'generation' ? record.generation : 0)),
    ),
    workersLost: disk.journal.filter((record) => record.kind === 'lost').length,
  });
  const commits = new CommitLog();
  const connections = new Map<string, ControlConnection>();
  let writesUntilUs = 0;
  let journalledUs = 0;

  const fence = new Fence(() =>
    disk.term > term && !options.isBlind ? { term: disk.term, host: 'host0', pid: 0 } : null,
  );
  const isReplaced = (look: 'now' | 'whenDue'): boolean => {
    const nowMs = performance.now();
    const successor = result.isAside ? null : fence[look](nowMs);
    if (successor !== null) {
      const because = fencedBecause(successor, term);
      for (const effect of run.receive({ kind: 'fenced', host: process.host, pid: process.pid, because }, nowMs))
        perform(effect);
    }
    return result.isAside;
  };

  const feed = (input: Input): void => {
    if (isReplaced('whenDue')) return;
    const nowMs = performance.now();
    const effects = run.receive(input, nowMs);
    if (disk.term === term) checks.decided(input, effects);
    for (const effect of commits.weave(effects, nowMs)) perform(effect);
  };

  const perform = (effect: RecordedEffect): void => {
    // What an older one still says to its links in the instant before it looks; what it puts on record is looked at there.
    if (disk.term === term) checks.performs(effect);
    switch (effect.kind) {
      case 'send':
        connections.get(effect.worker)?.send(effect.message);
        return;
      case 'send-state':
        sendState(effect.worker, effect.state, effect.vectors);
        return;
      case 'start-worker':
        options.startWorker(effect.localRank);
        return;
      case 'end-worker':
        options.endWorker(effect.pid);
        return;
      case 'disconnect':
        connections.get(effect.worker)?.close(effect.code, effect.because);
        return;
      case 'journal':
        journal(effect.record, effect.afterwards ?? []);
        return;
      case 'tell':
        if (effect.event.kind === 'step') world.note(effect.event.loss * 2 ** 24);
        return;
      case 'unmeasure':
      case 'measure':
      case 'worker-step':
      case 'worker-traffic':
        return;
      case 'write-checkpoint':
        write(effect);
        return;
      case 'end':
        end(effect.outcome);
        return;
      case 'stand-aside':
        result.isAside = true;
        clearInterval(ticker);
        closeControl();
        world.after(process, 1, 'stands aside', options.stoodAside);
        return;
    }
  };

  const sendState = (worker: string, state: ReplicaState, wanted: readonly string[]): void => {
    const { step, digest } = state;
    const vectors = state.vectors.filter(({ name }) => wanted.includes(name));
    for (const [vectorIndex, { name, data }] of vectors.entries()) {
      if (data.length > MAX_STATE_PART_FLOATS) throw new Error('a toy fits in one part');
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      const part = { step, digest, vector: name, vectorIndex, vectors: vectors.length, offset: 0, length: data.length };
      connections.get(worker)?.send({ kind: 'state', ...part, bytes });
    }
  };

  /** In order; what follows from a record is done once it is on disk. */
  const journal = (record: Recorded, then: readonly Effect[]): void => {
    const nowUs = world.localUs();
    journalledUs = Math.max(journalledUs, nowUs) + chance.spread(50, chance.happens(0.05) ? 1_000_000 : 5000);
    world.after(
      process,
      journalledUs - nowUs,
      'journal',
      () => {
        ownJournal.push(record);
        if (disk.term === term && record.kind !== 'run') checks.recorded(record);
        if (isReplaced('now')) return;
        if (then.length > 0) checks.actsAs(term, disk.term, `what follows from its "${record.kind}" is done`);
        for (const effect of then) perform(effect);
      },
      () => JSON.stringify(record).slice(0, 200),
    );
  };

  /** One after the other, each as slow as the disk happens to be. */
  const write = ({ state, progress }: Extract<Effect, { kind: 'write-checkpoint' }>): void => {
    const { step, digest } = state;
    const beganUs = world.localUs();
    // After the record of every step before it.
    writesUntilUs =
      Math.max(writesUntilUs, journalledUs, beganUs) + chance.spread(500, chance.happens(0.1) ? 5_000_000 : 20_000);
    world.after(process, writesUntilUs - beganUs, 'disk', () => {
      if (isReplaced('now')) return;
      checks.actsAs(term, disk.term, `its checkpoint after step ${step} takes its place`);
      if (chance.happens(disk.failures)) {
        disk.failed++;
        feed({ kind: 'checkpoint-failed', step, because: 'ENOSPC' });
        return;
      }
      disk.checkpoint = { state, progress };
      const seconds = (world.localUs() - beganUs) / 1e6;
      feed({ kind: 'checkpoint-written', step, digest, directory: `step-${step}`, seconds });
    });
  };

  const end = (outcome: Outcome): void => {
    if (isReplaced('now')) return;
    checks.actsAs(term, disk.term, `it ends the run as ${outcome}`);
    if (result.outcome !== null)
      throw new Violation('a run ends once', `it ends as ${outcome} and was ${result.outcome}`);
    clearInterval(ticker);
    result.outcome = outcome;
    closeControl();
    // Once the record is whole.
    world.after(process, Math.max(0, journalledUs - world.localUs()) + 1, 'has ended', () => {
      if (outcome === 'done') checks.done(run);
      options.ended(outcome);
    });
  };

  journal(
    { kind: 'run', config: options.run.config, resumedFromStep: options.isFirst ? null : (resume?.state.step ?? 0) },
    [],
  );
  const names = disk.journal.flatMap((record) => (record.kind === 'generation' ? record.members : []));
  const firstName = 1 + Math.max(-1, ...names.map((name) => Number(name.slice(1))));
  const closeControl = openSimulatedControl(network, process, COORDINATOR_URL, chance, firstName, {
    onRefused: () => {},
    onWarning: () => {},
    onConnect: (connection) => {
      connections.set(connection.id, connection);
      connection.onMessage((message) => feed({ kind: 'message', worker: connection.id, message }));
      void connection.closed.then(({ because }) => {
        connections.delete(connection.id);
        feed({ kind: 'disconnected', worker: connection.id, because });
      });
    },
  });
  const ticker = setInterval(() => feed({ kind: 'tick' }), TICK_MS);

  const result: SimulatedCoordinator = {
    run,
    process,
    outcome: null,
    isAside: false,
    stop: (because) => feed({ kind: 'stop-requested', because }),
    feed,
  };
  return result;
}
