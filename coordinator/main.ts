// The coordinator's process: carries out what the core (core/run.ts) decides. It opens the run directory, listens, feeds every
// message, lost link and timer tick to the core, and performs the effects in order. No decision is taken here.
//
// It is not on the step's path: a slow disk or an observer here never holds up a step.

import { hostname } from 'node:os';
import { LockstepError } from '../protocol/errors.ts';
import type { WorkerMessage } from '../protocol/messages.ts';
import type { RecordPart } from '../protocol/metrics.ts';
import type { RunReport } from '../protocol/report.ts';
import { batchPlanOf, type RunConfig } from '../protocol/run-config.ts';
import { statePartsOf } from '../protocol/state-parts.ts';
import type { RootCause, RunEvent } from '../protocol/run-event.ts';
import type { RunView } from '../protocol/run-view.ts';
import type { Tls } from '../protocol/tls.ts';
import { keysOf } from '../protocol/token.ts';
import { unfitFor } from './core/admission.ts';
import { Fence, fencedBecause } from './core/fence.ts';
import { CommitLog, type CommitsEntry, type RecordedEffect } from './core/commit-log.ts';
import { stepOfLine } from './core/curve.ts';
import { Feed } from './core/feed.ts';
import { reportOf } from './core/report.ts';
import { NO_PROGRESS } from './core/progress.ts';
import { RecordAlarms } from './core/record-alarms.ts';
import type { Effect, Input, JournalEntry, Outcome } from './core/effects.ts';
import { Run } from './core/run.ts';
import type { NoSamples, Samples } from './core/samples.ts';
import type { ReplicaState } from './core/state-assembly.ts';
import { viewOf } from './core/view.ts';
import type { ControlConnection, ControlEvents } from './control-connection.ts';
import { createCredentials } from './credentials.ts';
import { openControl } from './http/control.ts';
import type { ServedData } from './http/data-routes.ts';
import { createMetrics, type RunPast } from './http/metrics.ts';
import { Scrapes } from './http/scrapes.ts';
import { startHttp } from './http/server.ts';
import { openNatsControl } from './nats/control.ts';
import { aheadOf, type Membership } from './nats/bucket.ts';
import { CheckpointUploads, openCheckpointStore } from './nats/checkpoint-store.ts';
import { openNatsRecord } from './nats/record.ts';
import type { NatsSession } from './nats/session.ts';
import { writeCheckpoint, type Checkpoint } from './record/checkpoint.ts';
import { CounterFile, readCounters } from './record/counters.ts';
import { JOURNAL_SCHEMA, type JournalRecord, type RunRecord } from './record/journal-schema.ts';
import { jobChangesIn, firstNameAfter, lastGenerationIn, openJournal, wholeRecords } from './record/journal.ts';
import { servedModel } from './record/latest-model.ts';
import { openMetricsLog } from './record/metrics-log.ts';
import { exportModel } from './record/model-export.ts';
import { isDiskFailure } from './record/atomic.ts';
import { pruneCheckpoints } from './record/prune.ts';
import { copyReport, writeReport } from './record/report.ts';
import type { RunDirectory } from './record/run-directory.ts';
import { openTimeline, type TimelineWish, type TimelineWriter } from './timeline.ts';

// The launcher comes in by this door: it opens the record before it starts a coordinator on it, and verifies what one has left.
export { placeText, type Finding } from './core/finding.ts';
export { samplesOf } from './core/samples.ts';
export { verifyRun, type RecordedRun, type RunAccount } from './core/verify.ts';
export { replaceFile } from './record/atomic.ts';
export { readRun } from './record/read-run.ts';
export { readStory, type RunStory } from './record/read-story.ts';
export { latestCheckpoint, latestCheckpointBefore, type Checkpoint } from './record/checkpoint.ts';
export { LEASE_EVERY_MS, LeaseWatch, type Standing } from './core/lease.ts';
export { findRunBucket, readLease } from './nats/bucket.ts';
export { isOutdated, restoreRun, type RestoredRun } from './nats/restore.ts';
export { openNatsSession, type NatsSession } from './nats/session.ts';
export { configOf } from './record/journal.ts';
export { lastStepOf } from './record/metrics-log.ts';
export { holdsRun, latestRun, openRunDirectory, type RunDirectory } from './record/run-directory.ts';
export { holderOf, type Holder } from './record/run-lock.ts';

/** How often the core is told that time has passed, and observers are shown the present view. */
const TICK_MS = 250;

export interface CoordinatorOptions {
  readonly config: RunConfig;
  /** Workers to wait for before training starts. */
  readonly workers: number;
  readonly allowMixedEngines: boolean;
  /** Fewer wait for more, for so many milliseconds at most; more are spares. */
  readonly minWorkers: number;
  readonly maxWorkers: number;
  readonly waitLimitMs: number;
  /** The share of a step from which on who is waited for makes room for a spare; 0: never. */
  readonly stragglerLimit: number;
  /** Milliseconds without a step, at least, before it is asked whose engine hangs; 0: never. */
  readonly progressLimitMs: number;
  /** How often in a row a worker process is started anew without having done a step. */
  readonly restartLimit: number;
  readonly listen: { readonly host: string; readonly port: number };
  /** A socket that listens there already, of a coordinator before this one; null: none. */
  readonly door: unknown;
  /** What its port is served with over TLS; null: without. */
  readonly identity: Tls['identity'];
  /** Who calls must show a certificate of this authority; null: nobody must. */
  readonly clientCa: string | null;
  /** The run's key: workers show it, or a token that was made from it; null leaves the control port open (loopback tests only). */
  readonly token: string | null;
  /** Where the key lies, for who asks on this machine. */
  readonly tokenFile: string;
  /** Workers join over this server, and keep to it among themselves; null: they join at the HTTP port. Closed when the run ends. */
  readonly nats: NatsSession | null;
  readonly runDirectory: RunDirectory;
  /** The checkpoint to go on from. */
  readonly resume: {
    readonly checkpoint: Checkpoint | null;
    readonly directory: string;
    readonly stepsLost: number;
    /** The job's SHA-256 in the checkpoint, where it is another one now and that is allowed. */
    readonly jobChangedFrom: string | null;
    /** The bucket of a NATS server that the run directory was made from; null: it was there. */
    readonly restoredFrom: string | null;
  } | null;
  readonly keepCheckpoints: number;
  /** Further file for the report. */
  readonly reportFile: string | null;
  /** Null: no timeline is wanted. */
  readonly timeline: TimelineWish | null;
  /** A launcher watches the worker processes and tells of their ends. */
  readonly supervised: boolean;
  readonly lockstepVersion: string;
  readonly dataSet: string;
  /** Its files, for workers that can't get them elsewhere; null: it has none. */
  readonly data: ServedData | null;
  readonly augment: string;
  /** Test samples for the page; called once, when the first page asks. */
  readonly samples: () => Samples | NoSamples;
  /** Starts the worker process of this local rank anew; called in a supervised run only. */
  readonly startWorker: (localRank: number, attempt: number) => void;
  /** Kills one that some launcher has started. */
  readonly endWorker: (worker: { readonly host: string; readonly localRank: number; readonly pid: number }) => void;
  readonly onEvent: (event: RunEvent) => void;
  readonly onView: (view: RunView) => void;
}

export interface Ended {
  readonly outcome: Outcome;
  readonly report: RunReport;
  readonly cause: RootCause | null;
}

export interface Coordinator {
  readonly url: string;
  /** The socket that it listens on, for another process to keep. */
  readonly door: unknown;
  /** Asks for an orderly stop: the step in flight is finished and a checkpoint left. */
  stop(because: string): void;
  /** So many workers are to be waited for before training starts. */
  expect(workers: number): void;
  /** The launcher saw a worker process end. */
  processEnded(input: Extract<Input, { kind: 'process-ended' }>): void;
  /** `cause`: what made it fail. */
  readonly ended: Promise<Ended>;
}

const secondsOf = (record: { readonly t: string } | undefined): number | null =>
  record === undefined ? null : Date.parse(record.t) / 1000;

/** What the record of the run so far says to its metrics. */
function pastOf(before: readonly JournalRecord[], shown: RunPast['shown']): RunPast {
  const last = (kind: JournalRecord['kind']): JournalRecord | undefined =>
    before.findLast((record) => record.kind === kind);
  return {
    startedAtSeconds: secondsOf(before[0]) ?? Date.now() / 1000,
    coordinators: before.filter(({ kind }) => kind === 'run').length,
    lastStepAtSeconds: secondsOf(last('commits')),
    lastCheckpointAtSeconds: secondsOf(last('checkpoint')),
    shown,
  };
}

/** Starts listening and returns at once; `ended` resolves when the run is over and its record is on disk. */
export async function startCoordinator(options: CoordinatorOptions): Promise<Coordinator> {
  const { config, runDirectory, resume } = options;
  const jobChangedFrom = resume?.jobChangedFrom ?? null;
  const startedAtMs = performance.now();
  const plan = batchPlanOf(config);
  const before = resume === null ? [] : await wholeRecords(runDirectory.path);
  const run = new Run({
    config,
    plan,
    term: runDirectory.term,
    workers: options.workers,
    allowMixedEngines: options.allowMixedEngines,
    supervised: options.supervised,
    minWorkers: options.minWorkers,
    maxWorkers: options.maxWorkers,
    waitLimitMs: options.waitLimitMs,
    restartLimit: options.restartLimit,
    stragglerLimit: options.stragglerLimit,
    progressLimitMs: options.progressLimitMs,
    resumed: resume?.checkpoint ?? null,
    progress: resume?.checkpoint?.progress ?? NO_PROGRESS,
    stepsLost: resume?.stepsLost ?? 0,
    lastGeneration: lastGenerationIn(before),
    workersLost: before.filter((record) => record.kind === 'lost').length,
    isBeforeHung: runDirectory.hung.length > 0,
  });
  const alarms = new RecordAlarms();
  const view = (): RunView =>
    viewOf(run, { pid: process.pid, host: hostname(), startedAtMs, nowMs: performance.now(), alarms: alarms.now });

  // What pages are shown begins with the run, in whichever process that was.
  const news = new Feed();
  for (const past of before) news.recall(past, Date.parse(past.t));

  const session = options.nats;
  const nats = session?.nats ?? null;
  const shown = await readCounters(runDirectory.path, (message) => options.onEvent({ kind: 'warning', message }));
  const metrics = createMetrics({
    run: config.run,
    transport: config.transport,
    plan,
    membersWanted: Math.min(options.workers, options.maxWorkers, config.microbatches),
    past: pastOf(before, shown),
  });
  const counterFile = new CounterFile(runDirectory.path);
  const scrapes = new Scrapes();
  const keys = options.token === null ? null : keysOf(options.token);
  const credentials = createCredentials(options.token, config.run, runDirectory.term);
  const askToStop = (because: string): void => {
    scrapes.hurry();
    feed({ kind: 'stop-requested', because });
  };
  const http = await startHttp({
    listen: options.listen,
    door: options.door,
    identity: options.identity,
    clientCa: options.clientCa,
    keys,
    onRefused: (code) => metrics.countRefusal(code),
    stop: askToStop,
    view,
    metrics: async (accept) => {
      metrics.setView(view());
      const { shown: kept, ...exposition } = await metrics.render(accept);
      // The next scrape tries again; that a disk is full the journal tells. Who has been replaced leaves the file to who has the run.
      if (runDirectory.successor() === null) {
        await counterFile.keep(kept).catch(() => metrics.countRecordFailure('counters'));
      }
      return exposition;
    },
    onScraped: () => scrapes.answered(performance.now()),
    ready: () => ({ ok: run.phase === 'training' || run.phase === 'evaluating', because: run.because }),
    data: options.data,
    page: {
      news: { next: () => news.next(view()), since: (seen) => news.since(seen, view()) },
      model: servedModel(runDirectory.path),
      samples: options.samples,
    },
  }).catch(async (error: unknown) => {
    await nats?.close();
    throw error;
  });
  let timeline: TimelineWriter | null = null;
  const tell = (event: RunEvent): void => {
    metrics.observe(event);
    news.observe(event, Date.now());
    timeline?.tell(event);
    options.onEvent(event);
  };

  /** A disk that fails is an alarm, not the end of training. */
  const written = (part: RecordPart, failure: unknown): void => {
    const because = failure instanceof Error ? failure.message : String(failure);
    if (failure !== null) metrics.countRecordFailure(part);
    const message = failure === null ? alarms.written(part) : alarms.failed(part, because);
    // Of each checkpoint that fails the core tells.
    if (message !== null && (part !== 'checkpoint' || failure === null)) tell({ kind: 'warning', message });
  };
  const opening = async <T>(file: Promise<T>): Promise<T> => {
    try {
      return await file;
    } catch (error) {
      await nats?.close();
      await http.close();
      if (!isDiskFailure(error)) throw error;
      const because = error instanceof Error ? error.message : String(error);
      throw new LockstepError('E_DISK', `the run directory ${runDirectory.path} cannot be written: ${because}`, {
        remedy: 'Make room on its disk, or give another --run-dir.',
        cause: error,
      });
    }
  };
  const connections = new Map<string, ControlConnection>();
  let isAside = false;
  if (options.timeline !== null) {
    timeline = await opening(
      openTimeline({
        wish: options.timeline,
        config,
        term: runDirectory.term,
        isResumed: resume !== null,
        observe: (failure) => written('timeline', failure),
        warn: (message) => tell({ kind: 'warning', message }),
        workers: run.workers,
        send: (worker, message) => connections.get(worker)?.send(message),
        isOurs: () => !isAside,
      }),
    );
  }
  const journal = await opening(
    openJournal(runDirectory.path, (message) => options.onEvent({ kind: 'warning', message }), {
      observe: (failure) => written('journal', failure),
      anew: runDirectory.hung.length > 0,
    }),
  );
  const metricsLog = await opening(
    openMetricsLog(runDirectory.path, {
      keepSteps: resume?.checkpoint?.step ?? 0,
      onKept: (line) => {
        const step = stepOfLine(line);
        if (step !== null) news.recallStep(step);
      },
      observe: (failure) => written('metrics', failure),
    }),
  );
  const self = { term: runDirectory.term, host: hostname(), pid: process.pid };
  const warn = (message: string): void => options.onEvent({ kind: 'warning', message });
  const kept =
    session === null || session.bucket === null ? null : await opening(openNatsRecord(session.bucket, self, warn));
  const uploads = session === null || kept === null ? null : await opening(openUploads(session, kept.bucket));
  let finalState: ReplicaState | null = null;
  let writes: Promise<unknown> = Promise.resolve();
  /** Resolves when all that was given to the journal is on disk, or could not be written. */
  let recorded: Promise<void> = Promise.resolve();
  let resolveEnded: (value: Ended) => void = () => {};
  let rejectEnded: (error: unknown) => void = () => {};
  const ended = new Promise<Ended>((resolve, reject) => {
    resolveEnded = resolve;
    rejectEnded = reject;
  });

  const commits = new CommitLog();
  const fence = new Fence(() => runDirectory.successor() ?? kept?.successor() ?? null);
  /** True when another coordinator has the run, and from then on. */
  const isReplaced = (look: 'now' | 'whenDue'): boolean => {
    const nowMs = performance.now();
    const successor = isAside ? null : fence[look](nowMs);
    if (successor !== null) {
      const because = fencedBecause(successor, runDirectory.term);
      const fenced: Input = { kind: 'fenced', host: hostname(), pid: process.pid, because };
      for (const effect of run.receive(fenced, nowMs)) perform(effect);
      isAside = true;
    }
    return isAside;
  };

  const feed = (input: Input): void => {
    if (isReplaced('whenDue')) return;
    const nowMs = performance.now();
    for (const effect of commits.weave(run.receive(input, nowMs), nowMs)) perform(effect);
  };

  /** Resolves when it is on disk, or can't be: a disk that fails is an alarm, not the end of training. */
  const record = async (entry: JournalEntry | CommitsEntry | RunRecord): Promise<void> => {
    const timed = { t: new Date().toISOString(), ...entry };
    // The journal's observer knows of a failure.
    const onDisk = journal.append(timed).catch(() => {});
    recorded = onDisk;
    if (timed.kind === 'generation') {
      const isLost = (worker: string): boolean => run.workers.get(worker)?.state === 'lost';
      metrics.observeMembership(timed.generation, timed.members, isLost);
      timeline?.forms(timed.generation, timed.members, timed.because);
    }
    if (kept === null) return onDisk;
    const membership = timed.kind === 'generation' ? membershipOf(timed) : null;
    void onDisk.then(() => {
      if (isReplaced('now')) return;
      kept.add(timed);
      if (membership !== null) kept.setMembership(membership);
    });
    return onDisk;
  };

  const onRecord = async (entry: JournalEntry | CommitsEntry, afterwards: readonly Effect[]): Promise<void> => {
    await record(entry);
    if (!isReplaced('now')) for (const effect of afterwards) perform(effect);
  };

  const membershipOf = ({ t, generation, because }: Omit<Membership, 'members'>): Membership => {
    const members = run
      .members()
      .map(({ id, rank, host }) => ({ worker: id, rank: rank ?? 0, host }))
      .toSorted((a, b) => a.rank - b.rank);
    return { t, generation, because, members };
  };

  const perform = (effect: RecordedEffect): void => {
    switch (effect.kind) {
      case 'send':
        connections.get(effect.worker)?.send(credentials.grant(effect.message));
        return;
      case 'send-state':
        sendState(effect.worker, effect.state, effect.vectors);
        return;
      case 'start-worker':
        options.startWorker(effect.localRank, effect.attempt);
        return;
      case 'end-worker':
        options.endWorker(effect);
        return;
      case 'disconnect':
        metrics.countRefusal(effect.code);
        connections.get(effect.worker)?.close(effect.code, effect.because);
        return;
      case 'tell':
        if (effect.event.kind === 'step') metricsLog.append(lineOf(effect.event));
        tell(effect.event);
        return;
      case 'journal':
        void onRecord(effect.record, effect.afterwards ?? []);
        return;
      case 'unmeasure':
        metricsLog.rewind(effect.step);
        return;
      case 'measure':
        metricsLog.append(lineOf(effect.event));
        // The curve takes its figures in the place of the old ones.
        news.observe(effect.event, Date.now());
        return;
      case 'worker-step':
        // What a worker that is back repeats it says before it is ready.
        metrics.observeWorkerStep(effect.worker, effect.report, run.workers.get(effect.worker)?.ready === null);
        return;
      case 'worker-traffic':
        metrics.observeTraffic(effect.worker, effect.peer, effect.link);
        return;
      case 'write-checkpoint':
        finalState = effect.state;
        writes = writes.then(() => keep(effect));
        return;
      case 'end':
        finish(effect.outcome).then(resolveEnded, rejectEnded);
        return;
      case 'stand-aside':
        isAside = true;
        standAside().then(resolveEnded, rejectEnded);
        return;
    }
  };

  const lineOf = (event: Extract<RunEvent, { kind: 'step' }>): Record<string, unknown> => ({
    t: new Date().toISOString(),
    step: event.step,
    loss: event.loss,
    accuracy: event.accuracy,
    gradientNorm: event.gradientNorm,
    samples: event.samples,
    seconds: event.seconds,
    phases: event.phases,
  });

  const sendState = (worker: string, state: ReplicaState, wanted: readonly string[]): void => {
    const connection = connections.get(worker);
    if (connection === undefined) return;
    const vectors = state.vectors.filter(({ name }) => wanted.includes(name));
    for (const part of statePartsOf(state.step, state.digest, vectors)) connection.send(part);
  };

  /** A checkpoint goes to the object store when the disk has it; null: there is none, which is told. */
  async function openUploads(to: NatsSession, bucket: string): Promise<CheckpointUploads | null> {
    try {
      const store = await openCheckpointStore(to, bucket);
      const startTerm = resume === null ? self.term : (kept?.before.startTerm ?? 0);
      const how = { term: self.term, startTerm, keep: options.keepCheckpoints };
      return new CheckpointUploads(
        async (step) => (isReplaced('now') ? undefined : store.send(runDirectory.path, step, how)),
        (failure) => (isAside ? undefined : written('upload', failure)),
      );
    } catch (error) {
      if (error instanceof LockstepError) throw error;
      written('upload', error);
      return null;
    }
  }

  const modelOf = (): { layout: Checkpoint['layout']; topology: string } => {
    const ready = [...run.workers.values()].find((w) => w.ready !== null)?.ready;
    return { layout: ready?.layout ?? [], topology: ready?.topology ?? '{}' };
  };

  const keep = async ({ state, progress }: Extract<Effect, { kind: 'write-checkpoint' }>): Promise<void> => {
    const began = performance.now();
    // A run that resumes from this checkpoint has the line and the record of every step before it.
    await metricsLog.flush();
    await recorded;
    if (isReplaced('now')) return;
    const isOurs = (): boolean => !isReplaced('now');
    const result = await writeCheckpoint(runDirectory.path, { config, state, progress, ...modelOf(), isOurs });
    if (isReplaced('now')) return;
    const seconds = (performance.now() - began) / 1000;
    if (result.ok) {
      written('checkpoint', null);
      await pruneCheckpoints(runDirectory.path, options.keepCheckpoints).catch((error: unknown) => {
        tell({ kind: 'warning', message: `old checkpoints could not be removed: ${String(error)}` });
      });
      uploads?.add(state.step);
      feed({
        kind: 'checkpoint-written',
        step: state.step,
        digest: state.digest,
        directory: result.directory,
        seconds,
      });
    } else {
      written('checkpoint', new Error(result.because));
      feed({ kind: 'checkpoint-failed', step: state.step, because: result.because });
    }
  };

  const reportNow = (outcome: Outcome): RunReport =>
    reportOf(run, outcome, {
      lockstep: options.lockstepVersion,
      seconds: (performance.now() - startedAtMs) / 1000,
      coordinatorPeakRssBytes: process.resourceUsage().maxRSS * 1024,
      dataSet: options.dataSet,
      augment: options.augment,
      nats: natsOf(),
      jobChanges: jobChangesIn([...before, begun]),
    });

  const attempt = (part: RecordPart, writing: Promise<void>): Promise<void> =>
    writing.then(
      () => written(part, null),
      (error: unknown) => written(part, error),
    );

  const finish = async (outcome: Outcome): Promise<Ended> => {
    clearInterval(ticker);
    await writes;
    // Then somebody else ends it.
    if (isReplaced('now')) return ended;
    if (finalState !== null && outcome !== 'failed') {
      const weights = finalState.vectors.find((v) => v.name === 'weights')?.data;
      if (weights !== undefined) await attempt('model', exportModel(runDirectory.path, { ...modelOf(), weights }));
    }
    const report = reportNow(outcome);
    // Both have told.
    await journal.close().catch(() => {});
    await kept?.settled();
    await uploads?.settled();
    await metricsLog.close().catch(() => {});
    await timeline?.close();
    await attempt('report', writeReport(runDirectory.path, report));
    const wrongWishes: Error[] = [];
    if (options.reportFile !== null) {
      const copied = copyReport(runDirectory.path, options.reportFile, report);
      await copied.catch((error: unknown) => {
        if (isDiskFailure(error)) written('report', error);
        else wrongWishes.push(error instanceof Error ? error : new Error(String(error)));
      });
    }
    options.onView(view());
    tell({ kind: 'finished', report, runDirectory: runDirectory.path });
    await control.close();
    await kept?.release(outcome);
    await nats?.close();
    // Who asked for it to stop does not wait.
    if (outcome !== 'stopped') await scrapes.oneMore(performance.now());
    await http.close();
    await runDirectory.release();
    const [wrongWish] = wrongWishes;
    if (wrongWish !== undefined) throw wrongWish;
    return { outcome, report, cause: run.rootCause };
  };

  /** Leaves run and workers to the one that has taken them. */
  const standAside = async (): Promise<Ended> => {
    clearInterval(ticker);
    await writes;
    await journal.abandon().catch(() => {});
    await metricsLog.abandon().catch(() => {});
    await timeline?.close().catch(() => {});
    options.onView(view());
    kept?.close();
    await control.close();
    await nats?.close();
    await http.close();
    await runDirectory.release();
    return { outcome: 'failed', report: reportNow('failed'), cause: run.rootCause };
  };

  const natsOf = (): RunReport['nats'] =>
    nats === null ? null : { server: nats.server.url, bucket: kept?.bucket ?? null };
  const begun: RunRecord = {
    kind: 'run',
    schema: JOURNAL_SCHEMA,
    lockstep: options.lockstepVersion,
    config,
    resumedFromStep: resume === null ? null : (resume.checkpoint?.step ?? 0),
    ...(jobChangedFrom !== null && { jobChangedFrom }),
    ...(nats !== null && { nats: natsOf() }),
    ...(resume !== null && resume.restoredFrom !== null && { restoredFrom: resume.restoredFrom }),
  };
  /** Nobody says so for a job that is the same: its model is, too. */
  const refuseOtherModel = (message: WorkerMessage): void => {
    const checkpoint = resume?.checkpoint ?? null;
    if (message.kind !== 'ready' || checkpoint === null || jobChangedFrom === null) return;
    const { step, layout, vectors } = checkpoint;
    const slots = vectors.flatMap(({ name }) => (name.startsWith('slot:') ? [name.slice('slot:'.length)] : []));
    const because = unfitFor({ step, layout: [...layout], slots }, message);
    if (because !== null)
      feed({
        kind: 'coordinator-failed',
        host: hostname(),
        pid: process.pid,
        code: 'E_JOB_CHANGED',
        message: because,
      });
  };
  const events: ControlEvents = {
    onRefused: (code) => metrics.countRefusal(code),
    onWarning: (message) => tell({ kind: 'warning', message }),
    onConnect: (connection) => {
      connections.set(connection.id, connection);
      connection.onMessage((message) => {
        const complaint = credentials.complaintOf(message);
        if (complaint !== null) {
          metrics.countRefusal('E_UNAUTHORIZED');
          tell({ kind: 'warning', message: `${connection.id} is refused: ${complaint}` });
          return connection.close('E_UNAUTHORIZED', complaint);
        }
        refuseOtherModel(message);
        feed({ kind: 'message', worker: connection.id, message });
        timeline?.heard(connection.id, message);
      });
      void connection.closed.then(({ because }) => {
        connections.delete(connection.id);
        feed({ kind: 'disconnected', worker: connection.id, because });
      });
    },
  };
  const firstName = firstNameAfter(before);
  const control =
    nats === null
      ? openControl({ ...events, server: http.server, judge: (request) => http.judge(request), firstName })
      : await openNatsControl(nats, { ...events, run: config.run, token: options.token, firstName });
  void nats?.lost.then((error) => {
    if (error !== null)
      feed({
        kind: 'coordinator-failed',
        host: hostname(),
        pid: process.pid,
        code: error.code,
        message: error.message,
      });
  });

  void record(begun);
  await runDirectory.writeEndpoint({
    url: http.url,
    pid: process.pid,
    tokenFile: options.tokenFile,
    ...(options.identity !== null && { certificate: options.identity.cert }),
  });
  for (const message of runDirectory.notices) tell({ kind: 'warning', message });
  tell({ kind: 'listening', url: http.url });
  if (session !== null && kept === null) {
    const message = `the NATS server keeps no copy of the record: ${session.because}; journal.jsonl is the only one`;
    tell({ kind: 'warning', message });
  }
  if (session !== null && session.bucket !== null && session.bucket.because !== null) {
    const { replicas, because } = session.bucket;
    const message = `the copy of the record in JetStream lies on ${replicas} of the cluster's servers only: ${because}; while that one is down, it is out of reach`;
    tell({ kind: 'warning', message });
  }
  const isRestored = (resume?.restoredFrom ?? null) !== null;
  const ahead =
    resume === null || kept === null || isRestored ? null : aheadOf(resume.checkpoint?.step ?? 0, kept.before);
  if (ahead !== null) tell({ kind: 'warning', message: ahead });
  if (jobChangedFrom !== null) {
    const message = `the job is not the one that the checkpoint was made by (--allow-changed-job): from step ${(resume?.checkpoint?.step ?? 0) + 1} on the changed one is trained, and the run is not reproducible`;
    tell({ kind: 'warning', message });
  }
  if (resume !== null) tell({ kind: 'resumed', step: resume.checkpoint?.step ?? 0, from: resume.directory });
  const ticker = setInterval(() => {
    metrics.observeTick(TICK_MS);
    try {
      feed({ kind: 'tick' });
      timeline?.tick();
      options.onView(view());
      http.publish(performance.now());
    } catch (error) {
      rejectEnded(error);
    }
  }, TICK_MS);

  return {
    url: http.url,
    door: http.door,
    stop: askToStop,
    expect: (workers) => feed({ kind: 'workers-expected', workers }),
    processEnded: feed,
    ended,
  };
}
