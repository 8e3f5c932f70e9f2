// One seed, from the first process to the last: starts the coordinator and the workers, lets go wrong what is to go wrong, and holds
// what happens against checks.ts. Once nothing more goes wrong, the run must end.

import { METRICS_FILE, verifyRun } from '../../coordinator/core/verify.ts';
import type { Input, Outcome } from '../../coordinator/core/effects.ts';
import { Run, type RunOptions } from '../../coordinator/core/run.ts';
import type { FrameSink } from '../../protocol/frame.ts';
import { PROTOCOL_VERSION, type WorkerMessage } from '../../protocol/messages.ts';
import type { RunConfig } from '../../protocol/run-config.ts';
import { communicateOver } from '../../worker/collective/shell/communication.ts';
import type { Engine } from '../../worker/engine/engine.ts';
import { runWorker, type Surroundings, type WorkerOptions } from '../../worker/main.ts';
import { Chance } from './chance.ts';
import { Checks } from './checks.ts';
import { COORDINATOR_URL, startSimulatedCoordinator, type Disk, type SimulatedCoordinator } from './coordinator.ts';
import { simulatedControl } from './control-links.ts';
import { Network } from './network.ts';
import { simulatedMeeting } from './peer-links.ts';
import { drawScenario, type FaultKind, type Scenario } from './scenario.ts';
import { answerOf, toyEngine } from './toy.ts';
import { inVirtualTime, Violation, World, type Process } from './world.ts';

/** What a healthy simulation needs is a tenth of it. */
const EVENTS_MAX = 300_000;
/** After which somebody ends a process that hangs. */
const HUNG_US = 500_000_000;
/** That workers get to end by themselves when the run is over. */
const LAUNCHER_GRACE_US = 5_000_000;
/** Of a worker without a step: more than there are faults. */
const RESTARTS = 100;
/** Virtual time that a run may take once nothing goes wrong any more. */
const PATIENCE_S = 600;
/** Faults after which every worker is there as before. */
const SPARE_WORKERS: readonly FaultKind[] = [
  'coordinator crash',
  'coordinator replaced',
  'newcomer',
  'clock jump',
  'full disk',
  'stranger',
  'duplicate',
  'echo',
];

/** Where a planted bug gets in: what a test puts in the place of the product's. */
export interface Plants {
  readonly run?: (options: RunOptions) => Run;
  readonly engine?: (engine: Engine, worker: string) => Engine;
  /** What takes a link's frames. */
  readonly sink?: (sink: FrameSink) => FrameSink;
  /** Coordinators don't look whether another has the run. */
  readonly isBlind?: boolean;
  readonly surroundings?: (around: Surroundings, worker: string) => Surroundings;
}

export interface Simulated {
  readonly outcome: Outcome;
  readonly because: string;
  readonly steps: number;
  readonly generations: number;
  readonly microbatches: number;
  /** Of them those that their worker had computed before. */
  readonly computedAgain: number;
  readonly faults: Readonly<Partial<Record<FaultKind, number>>>;
  readonly failedWrites: number;
  readonly events: number;
  readonly virtualSeconds: number;
  readonly traceHash: string;
}

export class SimulationFailure extends Error {
  readonly violation: Violation;
  readonly tail: readonly string[];

  constructor(seed: number, violation: Violation, tail: readonly string[]) {
    super(`seed ${seed}: ${violation.message}`, { cause: violation });
    this.violation = violation;
    this.tail = tail;
  }
}

/** Throws SimulationFailure. */
export async function simulate(
  seed: number,
  options: {
    readonly plants?: Plants;
    readonly onEvent?: (line: string) => void;
    readonly change?: (scenario: Scenario) => Scenario;
  } = {},
): Promise<Simulated> {
  const drawn = drawScenario(new Chance(seed, 'scenario'));
  const scenario = options.change?.(drawn) ?? drawn;
  const world = new World(options.onEvent ?? null);
  try {
    return await inVirtualTime(world, () => new Simulation(seed, scenario, world, options.plants ?? {}).run());
  } catch (error) {
    if (error instanceof Violation) throw new SimulationFailure(seed, error, world.tail(60));
    throw error;
  }
}

class Simulation {
  private readonly scenario: Scenario;
  private readonly world: World;
  private readonly plants: Plants;
  private readonly chance: Chance;
  private readonly network: Network;
  private readonly checks: Checks;
  private readonly disk: Disk = { term: 0, journal: [], checkpoint: null, failures: 0, failed: 0 };
  private readonly config: RunConfig;
  private coordinator: SimulatedCoordinator | null = null;
  /** Those that another has taken the run from, and that still live. */
  private readonly older = new Set<Process>();
  /** Those that live; the others than the launcher's were started by hand, and are again when they end. */
  private readonly workers = new Map<Process, { readonly localRank: number; readonly byHand: boolean }>();
  private workersStarted = 0;
  private coordinatorsStarted = 0;
  private readonly injected: Partial<Record<FaultKind, number>> = {};
  /** Processes of the launcher that have ended and were not started anew: each coordinator is told of them. */
  private readonly ended = new Map<number, Extract<Input, { kind: 'process-ended' }>>();
  /** Those in whose memory a bit is to flip. */
  private readonly flips = new Set<Process>();
  /** Those whose engine does not come back from its next call. */
  private readonly hung = new Set<Process>();
  private nextFault = 0;
  /** Virtual time after which nothing goes wrong any more. */
  private calmUs = 0;
  /** Something that this version does not survive has happened. */
  private mayFail = false;
  private mayStop = false;
  private isEnded = false;

  constructor(seed: number, scenario: Scenario, world: World, plants: Plants) {
    this.scenario = scenario;
    this.world = world;
    this.plants = plants;
    this.chance = new Chance(seed, 'faults');
    this.network = new Network(world, new Chance(seed, 'network'), scenario.weather);
    const { job } = scenario;
    this.checks = new Checks(job, answerOf(job), (violation) => world.violate(violation));
    this.config = {
      run: 'simulated',
      job: { kind: 'built-in', name: 'toy', sha256: '0'.repeat(64) },
      jobName: 'toy',
      seed: job.plan.seed,
      globalBatch: job.plan.globalBatch,
      microbatches: job.plan.microbatches,
      epochs: job.epochs,
      steps: job.steps,
      learningRate: job.learningRate,
      augment: true,
      trainSamples: job.plan.samples,
      testSamples: job.testSamples,
      engine: 'toy',
      engineMode: 'eager',
      precision: 'float32',
      transport: 'ws',
      gradientCompression: 'none',
      bucketBytes: 4 * scenario.bucketFloats,
      dataThreads: 0,
      checkpointEverySteps: scenario.checkpointEverySteps,
      digestEverySteps: scenario.digestEverySteps,
      auditRate: scenario.auditRate,
    };
  }

  async run(): Promise<Simulated> {
    const { world, scenario } = this;
    this.startCoordinator();
    for (let i = 0; i < scenario.workers; i++) this.startWorker(i);
    for (let i = 0; i < scenario.spares; i++) this.startWorker(scenario.workers + i, true);
    world.beforeEvent = () => this.maybeFault();
    this.watch();
    await world.run(EVENTS_MAX);
    const { coordinator } = this;
    if (coordinator === null) throw new Violation('the run ends', 'nothing is left to happen');
    const { run } = coordinator;
    const outcome = coordinator.outcome ?? 'failed';
    if (outcome === 'failed' && !this.mayFail) throw new Violation('the run ends as done', `it failed: ${run.because}`);
    if (outcome === 'stopped' && !this.mayStop)
      throw new Violation('the run ends as done', `it stopped: ${run.because}`);
    if (coordinator.outcome !== null) {
      this.network.checkNoneOpen();
      this.verifyRecord();
    }
    return {
      outcome,
      because: run.because,
      steps: this.checks.steps,
      generations: this.checks.generations,
      microbatches: this.checks.microbatches,
      computedAgain: this.checks.computedAgain,
      faults: this.injected,
      failedWrites: this.disk.failed,
      events: world.events,
      virtualSeconds: world.nowUs / 1e6,
      traceHash: world.traceHash,
    };
  }

  /** The journal tells one story, as `lockstep verify` reads it. */
  private verifyRecord(): void {
    const { journal, checkpoint } = this.disk;
    const { findings } = verifyRun({
      journal: journal.map((record, i) => ({ line: i + 1, record })),
      metrics: [],
      checkpoints: checkpoint === null ? [] : [{ ...checkpoint.state, file: 'checkpoint' }],
      report: null,
      modelDigest: null,
      isUnderWay: false,
      findings: [],
      notes: [],
    });
    const [found] = findings.filter(({ file }) => file !== METRICS_FILE);
    if (found !== undefined) throw new Violation('the record holds', `${found.file}:${found.line} ${found.message}`);
  }

  // ---------------------------------------------------------------- processes

  private startCoordinator(which: 'the first' | 'another' = 'the first'): void {
    const { world, scenario } = this;
    const process = world.process({
      name: `c${world.processes.length}`,
      host: 'host0',
      clockMs: this.chance.below(1e9),
      wallMs: 0,
    });
    world.after(process, 0, 'starts', () => {
      const stepsLost = which === 'another' ? this.checks.resumed(this.disk.checkpoint?.state.step ?? 0) : 0;
      const started = startSimulatedCoordinator({
        network: this.network,
        process,
        chance: this.chance,
        disk: this.disk,
        checks: this.checks,
        isFirst: this.coordinatorsStarted++ === 0,
        stepsLost,
        run: {
          config: this.config,
          plan: scenario.job.plan,
          workers: scenario.workers,
          allowMixedEngines: false,
          supervised: scenario.supervised,
          minWorkers: scenario.minWorkers,
          maxWorkers: scenario.maxWorkers,
          restartLimit: RESTARTS,
          stragglerLimit: scenario.stragglerLimit,
          progressLimitMs: 20_000,
          waitLimitMs: 1000 * PATIENCE_S,
        },
        startWorker: (localRank) => {
          this.ended.delete(localRank);
          this.startWorker(localRank);
        },
        isBeforeHung: this.older.size > 0,
        isBlind: this.plants.isBlind === true,
        endWorker: (pid) => {
          const victim = [...this.workers.keys()].find((worker) => worker.pid === pid);
          if (victim !== undefined) this.kill(victim, 'killed');
        },
        makeRun: this.plants.run ?? ((options) => new Run(options)),
        ended: () => {
          this.calmUs = world.nowUs;
          this.isEnded = true;
          this.older.delete(process);
          this.coordinator ??= started;
          // After what it has said by then has left.
          world.end(process);
          this.network.died(process, 'exited');
          this.endWorkers();
        },
        stoodAside: () => {
          this.older.delete(process);
          world.end(process);
          this.network.died(process, 'exited');
        },
      });
      this.coordinator = started;
      for (const message of this.ended.values()) this.tellEnd(started, message);
    });
  }

  private startWorker(localRank: number, byHand = !this.scenario.supervised): void {
    const { world, scenario, network, chance } = this;
    const host = `host${localRank % scenario.hosts}`;
    const process = world.process({ name: `p${world.processes.length}`, host, clockMs: chance.below(1e9), wallMs: 0 });
    const worker = { localRank, byHand };
    this.workers.set(process, worker);
    this.workersStarted++;
    const [least, most] = scenario.computeUs;
    const computing = new Chance(chance.uint32(), 'computing');
    const slowness = computing.pick([1, 1, 1, 4]);
    const sleep = (us: number): Promise<void> =>
      new Promise((resolve) => {
        world.after(process, us, 'computes', resolve);
      });
    const compute = async (microbatches: number): Promise<void> => {
      if (this.hung.has(process)) return new Promise(() => {});
      const us = Math.round(computing.between(least, most) * microbatches * slowness);
      if (scenario.blocking) world.compute(us);
      else await sleep(us);
    };
    const engine = toyEngine(this.checks.watcher(process.name), () => this.flips.delete(process), compute);
    const { definition, data } = scenario.job;
    const options: WorkerOptions = {
      coordinator: { kind: 'http', url: COORDINATOR_URL },
      token: null,
      localRank: byHand ? null : localRank,
      workersHere: scenario.workers + scenario.spares,
      lockstepVersion: '0.0.0',
      peerListen: null,
      localWays: { unix: false, shm: false },
      tls: null,
      openJob: async () => definition,
      openEngine: async () => {
        await sleep(computing.spread(1000, 2_000_000));
        return this.plants.engine?.(engine, process.name) ?? engine;
      },
      openData: async () => data(),
      dataSource: () => {
        throw new Error('data is read when it is needed');
      },
      log: () => {},
    };
    const links = new Chance(chance.uint32(), 'links');
    const around: Surroundings = {
      host,
      connect: () => simulatedControl(network, process, COORDINATOR_URL, links),
      communicate: async () =>
        communicateOver(
          simulatedMeeting(network, process, links, scenario.manners, this.plants.sink ?? ((sink) => sink)),
          {},
        ),
      expose: () => Promise.resolve(null),
    };
    world.after(process, computing.spread(100, 300_000), 'starts', () => {
      runWorker(options, this.plants.surroundings?.(around, process.name) ?? around).then(
        () => this.exit(process, 0),
        () => this.exit(process, 1),
      );
    });
  }

  /** A launcher leaves none of its own behind; what was started by hand ends by itself. */
  private endWorkers(): void {
    this.world.after(null, LAUNCHER_GRACE_US, 'launcher', () => {
      for (const [process, { byHand }] of this.workers) {
        if (byHand) continue;
        if (process.pausedUs !== null) this.world.resume(process);
        this.kill(process, 'killed');
      }
    });
  }

  /** Its code has come to its end. */
  private exit(process: Process, exitCode: number): void {
    this.world.end(process);
    this.network.died(process, 'exited');
    this.tellLauncher(process, exitCode, null);
  }

  private kill(process: Process, how: 'killed' | 'silently'): void {
    this.world.end(process);
    this.network.died(process, how);
    this.tellLauncher(process, null, 'SIGKILL');
  }

  private tellEnd(coordinator: SimulatedCoordinator, message: Extract<Input, { kind: 'process-ended' }>): void {
    this.world.after(coordinator.process, 0, 'process ended', () => coordinator.feed(message));
  }

  /** Who started it hears that it has ended, and may start another in its place. */
  /** Another begins with what is on disk. */
  private killCoordinator({ process }: SimulatedCoordinator): void {
    const { world, network, chance } = this;
    world.end(process);
    network.died(process, 'killed');
    this.coordinator = null;
    this.later(chance.spread(10_000, 5_000_000), () => {
      this.startCoordinator('another');
    });
  }

  private tellLauncher(process: Process, exitCode: number | null, signal: string | null): void {
    const { world, chance } = this;
    const worker = this.workers.get(process);
    this.workers.delete(process);
    if (worker === undefined || this.isEnded) return;
    const end = { exitCode, signal, lastLines: [], logFile: null };
    if (!worker.byHand) {
      const { localRank } = worker;
      const message = { kind: 'process-ended' as const, pid: process.pid, localRank, end };
      world.after(null, chance.spread(100, 50_000), 'launcher', () => {
        this.ended.set(localRank, message);
        if (this.coordinator !== null) this.tellEnd(this.coordinator, message);
      });
    } else {
      world.after(null, chance.spread(10_000, 5_000_000), 'starts again', () => {
        if (!this.isEnded) this.startWorker(worker.localRank, true);
      });
    }
  }

  // ---------------------------------------------------------------- what goes wrong

  /** Looks from time to time whether the run is over, or takes too long. */
  private watch(): void {
    const { world } = this;
    world.after(null, 100_000, 'looks', () => {
      if (this.workers.size === 0 && this.isEnded && this.older.size === 0) world.stop();
      else if (world.nowUs - this.calmUs > PATIENCE_S * 1e6) {
        const who = [...this.workers.keys()].map((process) => process.name).join(', ');
        throw new Violation(
          'the run ends',
          `after ${PATIENCE_S} s without a fault it is "${this.coordinator?.run.phase}" (${this.coordinator?.run.because}); alive: ${who}`,
        );
      } else this.watch();
    });
  }

  private maybeFault(): void {
    const { faults } = this.scenario;
    for (;;) {
      const fault = faults[this.nextFault];
      if (fault === undefined || fault.atEvent > this.world.events) return;
      this.nextFault++;
      if (this.inject(fault.kind)) {
        this.injected[fault.kind] = (this.injected[fault.kind] ?? 0) + 1;
        this.calmUs = Math.max(this.calmUs, this.world.nowUs);
      }
    }
  }

  /** False where there is nobody for it to happen to. */
  private inject(kind: FaultKind): boolean {
    const { world, chance, network } = this;
    const workers = [...this.workers.keys()].filter((process) => process.alive && process.pausedUs === null);
    const isOver = (this.coordinator?.outcome ?? null) !== null;
    if (workers.length === 0 || isOver) return false;
    const victim = chance.pick(workers);
    // A worker that does not reach the coordinator at first is taken for one that never will.
    const delays = ['pause', 'coordinator pause', 'cut', 'delays'].includes(kind);
    this.mayFail ||= delays && this.coordinator?.run.phase === 'gathering';
    const note = (what: string): void => {
      world.after(
        null,
        0,
        kind,
        () => {},
        () => what,
      );
    };
    if (!SPARE_WORKERS.includes(kind)) this.checks.workerMissing();
    switch (kind) {
      case 'crash':
        note(victim.name);
        this.kill(victim, 'killed');
        return true;
      case 'crash of several':
      case 'crash of all': {
        const struck = workers.filter(
          (process) => process === victim || kind === 'crash of all' || chance.happens(0.5),
        );
        note(struck.map((process) => process.name).join(', '));
        for (const process of struck) this.kill(process, 'killed');
        return true;
      }
      case 'coordinator crash': {
        const { coordinator } = this;
        if (coordinator === null) return false;
        // Who can't reach it at first is taken for one that never will.
        this.mayFail ||= coordinator.run.generation === 0;
        this.killCoordinator(coordinator);
        return true;
      }
      case 'newcomer':
        this.startWorker(this.workersStarted, true);
        return true;
      case 'lost host':
        note(victim.name);
        this.kill(victim, 'silently');
        return true;
      case 'pause': {
        const us = chance.spread(1000, 60_000_000);
        note(`${victim.name} for ${us / 1e6} s`);
        world.pause(victim);
        network.paused(victim);
        this.later(us, () => {
          world.resume(victim);
          network.resumed(victim);
        });
        return true;
      }
      case 'coordinator pause': {
        const { coordinator } = this;
        if (coordinator === null || coordinator.process.pausedUs !== null) return false;
        const us = chance.spread(1000, 60_000_000);
        note(`for ${us / 1e6} s`);
        world.pause(coordinator.process);
        network.paused(coordinator.process);
        this.later(us, () => {
          world.resume(coordinator.process);
          network.resumed(coordinator.process);
        });
        return true;
      }
      case 'coordinator replaced': {
        const { coordinator } = this;
        if (coordinator === null || coordinator.process.pausedUs !== null) return false;
        this.mayFail ||= coordinator.run.generation === 0;
        const { process } = coordinator;
        // It may also wake just before.
        const us = chance.spread(500_000, 60_000_000);
        const takeoverUs = chance.spread(100_000, 5_000_000);
        note(`${process.name}, after ${takeoverUs / 1e6} s; it wakes after ${us / 1e6} s`);
        world.pause(process);
        network.paused(process);
        this.older.add(process);
        this.coordinator = null;
        this.later(takeoverUs, () => {
          // The launcher sees that the one that woke has brought the run to its end.
          if (!this.isEnded) this.startCoordinator('another');
        });
        this.later(us, () => {
          world.resume(process);
          network.resumed(process);
        });
        return true;
      }
      case 'cut': {
        const others = world.processes.filter((process) => process !== victim && process.alive);
        if (others.length === 0) return false;
        const from = chance.happens(0.5) ? [chance.pick(others)] : others;
        const us = chance.spread(1000, 60_000_000);
        note(`${victim.name} from ${from.map((process) => process.name).join(', ')} for ${us / 1e6} s`);
        for (const other of from) network.cut(victim, other);
        this.later(us, () => {
          for (const other of from) network.heal(victim, other);
        });
        return true;
      }
      case 'stop': {
        const { coordinator } = this;
        if (coordinator === null) return false;
        this.mayStop = true;
        // Where nobody is left to leave a checkpoint, it is as the last of them ended.
        this.mayFail = true;
        world.after(coordinator.process, 0, 'stop', () => coordinator.stop('asked to'));
        return true;
      }
      case 'delays': {
        const { weather } = network;
        network.weather = { ...weather, spikes: 0.5, spikeUs: 2_000_000 };
        this.later(chance.spread(10_000, 5_000_000), () => {
          network.weather = weather;
        });
        return true;
      }
      case 'clock jump':
        chance.pick(world.processes).wallMs += chance.pick([-1, 1]) * chance.spread(1, 1e10);
        return true;
      case 'full disk':
        this.disk.failures = chance.pick([0.5, 1]);
        this.later(chance.spread(10_000, 60_000_000), () => {
          this.disk.failures = 0;
        });
        return true;
      case 'duplicate': {
        const hello = this.helloOf(victim);
        world.after(victim, 0, 'joins once more', () => {
          simulatedControl(network, victim, COORDINATOR_URL, chance).then(
            (control) => {
              control.send(hello);
              world.after(victim, chance.spread(100, 20_000_000), 'hangs up', () => void control.close());
            },
            () => {},
          );
        });
        return true;
      }
      case 'echo': {
        const { coordinator } = this;
        const { stale } = this.checks;
        if (coordinator === null || stale.length === 0) return false;
        const again = chance.pick(stale);
        world.after(
          coordinator.process,
          0,
          'hears again',
          () => coordinator.feed(again),
          () => `${again.message.kind} of ${again.worker}`,
        );
        return true;
      }
      case 'hang':
        note(victim.name);
        this.hung.add(victim);
        // Alone it is nobody's to judge; and where nobody watches a process somebody ends it by hand.
        this.later(HUNG_US, () => {
          if (this.workers.has(victim)) this.kill(victim, 'killed');
        });
        return true;
      case 'bit flip':
        note(victim.name);
        this.flips.add(victim);
        // Where no majority says who is right, nobody can go on.
        this.mayFail = true;
        this.checks.excuse();
        return true;
      case 'stranger':
        world.after(victim, 0, 'calls as a stranger', () => {
          network.dial(victim, COORDINATOR_URL, { kind: 'control' }, 10_000).then(
            (end) =>
              world.after(victim, chance.spread(100, 20_000_000), 'hangs up', () => network.close(end, 'enough')),
            () => {},
          );
        });
        return true;
    }
  }

  private helloOf(process: Process): WorkerMessage {
    const worker = this.workers.get(process);
    return {
      kind: 'hello',
      protocol: PROTOCOL_VERSION,
      lockstep: '0.0.0',
      node: 'v0',
      host: process.host,
      pid: process.pid,
      localRank: worker === undefined || worker.byHand ? null : worker.localRank,
      rejoin: null,
    };
  }

  private later(us: number, run: () => void): void {
    this.calmUs = Math.max(this.calmUs, this.world.nowUs + us);
    this.world.after(null, us, 'is over', run);
  }
}
