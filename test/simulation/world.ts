// Virtual time: processes that live in one thread, and a queue of what happens to them. An event belongs to a process; all that its code
// does until it next waits (its microtasks, too) is part of the event and takes no time. Nothing else moves the clock, so a run is a
// function of its seed.
//
// Cost: about a microsecond an event beside what the event does. Between two events control goes back to Node, which is what runs the
// microtasks; several events share a turn of its loop.

import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';

const MICROSECONDS = 1000;
/** Of each simulated machine, whatever this one has: a seed is the same everywhere. */
const CORES = 4;
/** Events in one turn of Node's loop. */
const EVENTS_A_TURN = 128;
/** Of the trace: what a failure prints comes from it. */
const KEPT_EVENTS = 500;
/** Events that a trace is easier to read without. */
const IDLE: ReadonlySet<string> = new Set(['interval', 'looks']);
/** What setImmediate takes: a loop that waits for time to pass must see it pass. */
const TURN_US = 20;

/** Node's own, whoever has replaced them since. */
const immediately = setImmediate;

export interface Process {
  readonly id: number;
  readonly name: string;
  readonly host: string;
  readonly pid: number;
  /** Its monotonic clock's and its wall clock's reading at time 0, in milliseconds. */
  readonly clockMs: number;
  wallMs: number;
  alive: boolean;
  /** Since when; null: it runs. */
  pausedUs: number | null;
  /** It computes until then, and hears nothing. */
  busyUntilUs: number;
  /** What waits for it to be resumed. */
  readonly deferred: Event[];
}

interface Event {
  atUs: number;
  readonly order: number;
  /** Null: the simulator's own. */
  readonly process: Process | null;
  readonly what: string;
  readonly detail: (() => string) | null;
  readonly run: () => void;
  cancelled: boolean;
}

/** A property that does not hold, or a simulation that could not go on. */
export class Violation extends Error {
  readonly property: string;

  constructor(property: string, message: string, options: { cause?: unknown } = {}) {
    super(`${property}: ${message}`, options);
    this.name = 'Violation';
    this.property = property;
  }
}

export class World {
  nowUs = 0;
  /** Whose code runs; null outside of events. */
  current: Process | null = null;
  readonly processes: Process[] = [];
  events = 0;
  private readonly heap: Event[] = [];
  private order = 0;
  private hash = 0x811c9dc5;
  private readonly trace: Event[] = [];
  private readonly names = new Map<string, number>();
  private violation: Violation | null = null;
  private stopped = false;
  /** Called between events, before the next. */
  beforeEvent: () => void = () => {};
  private readonly onEvent: ((line: string) => void) | null;

  /** @param onEvent is told each event as it happens */
  constructor(onEvent: ((line: string) => void) | null = null) {
    this.onEvent = onEvent;
  }

  process(options: Pick<Process, 'name' | 'host' | 'clockMs' | 'wallMs'>): Process {
    const id = this.processes.length;
    const made = { ...options, id, pid: 1000 + id, alive: true, pausedUs: null, busyUntilUs: 0, deferred: [] };
    this.processes.push(made);
    return made;
  }

  /** The time in the process whose code runs: it may be computing past the event that made it. */
  localUs(process: Process | null = this.current): number {
    return Math.max(this.nowUs, process?.busyUntilUs ?? 0);
  }

  /** Plans an event, `delayUs` from now. */
  after(
    process: Process | null,
    delayUs: number,
    what: string,
    run: () => void,
    detail: (() => string) | null = null,
  ): Event {
    const atUs = this.localUs() + Math.max(0, Math.round(delayUs));
    const event = { atUs, order: this.order++, process, what, detail, run, cancelled: false };
    this.push(event);
    return event;
  }

  /** For the time that the code which runs now takes to compute, its process hears nothing. */
  compute(durationUs: number): void {
    if (this.current !== null) this.current.busyUntilUs = this.localUs() + durationUs;
  }

  pause(process: Process): void {
    process.pausedUs ??= this.nowUs;
  }

  resume(process: Process): void {
    process.pausedUs = null;
    for (const event of process.deferred.splice(0)) {
      event.atUs = this.nowUs;
      this.push(event);
    }
  }

  /** Its code never runs again. */
  end(process: Process): void {
    process.alive = false;
    process.deferred.length = 0;
  }

  /** A property is broken: the simulation ends with the first. */
  violate(violation: Violation): void {
    this.violation ??= violation;
    this.stopped = true;
  }

  stop(): void {
    this.stopped = true;
  }

  /** Mixes a number into the trace's hash. */
  note(number: number): void {
    this.hash = Math.imul(this.hash ^ (number & 0xffff), 0x01000193);
    this.hash = Math.imul(this.hash ^ ((number / 0x1_0000) & 0xffff_ffff), 0x01000193);
  }

  /** Equal for equal traces. */
  get traceHash(): string {
    return (this.hash >>> 0).toString(16).padStart(8, '0');
  }

  /** The last events, as text. */
  tail(lines: number): string[] {
    return this.trace.slice(-lines).map(lineOf);
  }

  /** Lets things happen until it is stopped or nothing is left to happen. Throws the Violation, if there is one. */
  async run(eventsMax: number): Promise<void> {
    const rejected = (reason: unknown): void => {
      this.violate(
        new Violation('no promise is left to fail', `in ${this.current?.name ?? 'the simulator'}: ${String(reason)}`, {
          cause: reason,
        }),
      );
    };
    process.on('unhandledRejection', rejected);
    try {
      await new Promise<void>((resolve) => {
        const turn = (): void => {
          for (let i = 0; i < EVENTS_A_TURN; i++) immediately(() => this.next(eventsMax));
          immediately(() => {
            this.current = null;
            if (this.stopped || this.heap.length === 0) resolve();
            else turn();
          });
        };
        turn();
      });
    } finally {
      process.off('unhandledRejection', rejected);
    }
    if (this.violation !== null) throw this.violation;
  }

  private next(eventsMax: number): void {
    this.current = null;
    if (this.stopped) return;
    this.beforeEvent();
    const event = this.pop();
    if (event === undefined) return;
    if (this.events++ >= eventsMax) {
      this.violate(new Violation('the run ends', `${eventsMax} events without an end`));
      return;
    }
    const { process } = event;
    this.nowUs = event.atUs;
    this.mix(event);
    this.current = process;
    try {
      event.run();
    } catch (error) {
      this.violate(
        error instanceof Violation
          ? error
          : new Violation(
              'no code throws where nobody catches',
              `${process?.name ?? 'the simulator'}: ${String(error)}`,
              {
                cause: error,
              },
            ),
      );
    }
  }

  /** The next event of a process that can have it. */
  private pop(): Event | undefined {
    for (;;) {
      const event = this.popAny();
      if (event === undefined) return undefined;
      const { process } = event;
      if (event.cancelled || process?.alive === false) continue;
      if (process !== null && process.pausedUs !== null) {
        process.deferred.push(event);
        continue;
      }
      if (process !== null && process.busyUntilUs > event.atUs) {
        event.atUs = process.busyUntilUs;
        this.push(event);
        continue;
      }
      return event;
    }
  }

  private mix(event: Event): void {
    let name = this.names.get(event.what);
    if (name === undefined) {
      name = this.names.size;
      this.names.set(event.what, name);
    }
    this.note(event.atUs);
    this.note(name * 64 + (event.process?.id ?? 63));
    if (IDLE.has(event.what)) return;
    if (this.trace.length >= 2 * KEPT_EVENTS) this.trace.splice(0, KEPT_EVENTS);
    this.trace.push(event);
    this.onEvent?.(lineOf(event));
  }

  private push(event: Event): void {
    const { heap } = this;
    let i = heap.length;
    heap.push(event);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (isBefore(heap[parent] as Event, event)) break;
      heap[i] = heap[parent] as Event;
      i = parent;
    }
    heap[i] = event;
  }

  private popAny(): Event | undefined {
    const { heap } = this;
    const top = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Event, heap[child] as Event)) child++;
      if (isBefore(last, heap[child] as Event)) break;
      heap[i] = heap[child] as Event;
      i = child;
    }
    heap[i] = last;
    return top;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atUs < b.atUs || (a.atUs === b.atUs && a.order < b.order);
}

function lineOf(event: Event): string {
  const time = (event.atUs / 1e6).toFixed(6).padStart(11);
  const detail = event.detail === null ? '' : ` ${event.detail()}`;
  return `${time} ${(event.process?.name ?? '-').padEnd(6)} ${event.what}${detail}`;
}

// ---------------------------------------------------------------- the process's own clock, timers and figures

/** Wall time at time 0 of a process whose wall clock is right. */
const EPOCH_MS = Date.UTC(2026, 0, 1);

class VirtualTimer {
  private readonly world: World;
  private readonly process: Process;
  private readonly repeatUs: number | null;
  private readonly delayUs: number;
  private readonly run: () => void;
  private event: Event;

  constructor(world: World, process: Process, delayUs: number, repeats: boolean, what: string, run: () => void) {
    this.world = world;
    this.process = process;
    this.delayUs = delayUs;
    this.repeatUs = repeats ? Math.max(MICROSECONDS, delayUs) : null;
    this.run = run;
    this.event = world.after(process, delayUs, what, () => this.fire());
  }

  private fire(): void {
    if (this.repeatUs !== null) {
      this.event = this.world.after(this.process, this.repeatUs, 'interval', () => this.fire());
    }
    this.run();
  }

  cancel(): void {
    this.event.cancelled = true;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }

  refresh(): this {
    this.event.cancelled = true;
    this.event = this.world.after(this.process, this.delayUs, 'timer', () => this.fire());
    return this;
  }

  [Symbol.dispose](): void {
    this.cancel();
  }
}

/**
 * Runs `body` with the timers, the clocks and the process's own figures replaced for code that runs in a simulated process; any other
 * code has the real ones.
 */
export async function inVirtualTime<T>(world: World, body: () => Promise<T>): Promise<T> {
  const real = {
    setTimeout: globalThis.setTimeout,
    setInterval: globalThis.setInterval,
    setImmediate: globalThis.setImmediate,
    clearTimeout: globalThis.clearTimeout,
    clearInterval: globalThis.clearInterval,
    clearImmediate: globalThis.clearImmediate,
    Date: globalThis.Date,
  };
  const start = (kind: 'timer' | 'interval' | 'turn', delayMs: number, run: () => void): VirtualTimer => {
    const process = world.current as Process;
    // As Node's: at least 1 ms, and so where it is not a number.
    const delayUs = kind === 'turn' ? TURN_US : MICROSECONDS * (delayMs >= 1 ? delayMs : 1);
    return new VirtualTimer(world, process, delayUs, kind === 'interval', kind, run);
  };
  const clear =
    (realClear: (timer: never) => void) =>
    (timer: unknown): void => {
      if (timer instanceof VirtualTimer) timer.cancel();
      else realClear(timer as never);
    };
  type Callback = (...args: unknown[]) => void;
  const timers = {
    setTimeout: Object.assign(
      (run: Callback, delayMs = 0, ...args: unknown[]) =>
        world.current === null ? real.setTimeout(run, delayMs, ...args) : start('timer', delayMs, () => run(...args)),
      real.setTimeout,
    ),
    setInterval: (run: Callback, delayMs = 0, ...args: unknown[]) =>
      world.current === null ? real.setInterval(run, delayMs, ...args) : start('interval', delayMs, () => run(...args)),
    setImmediate: Object.assign(
      (run: Callback, ...args: unknown[]) =>
        world.current === null ? real.setImmediate(run, ...args) : start('turn', 0, () => run(...args)),
      real.setImmediate,
    ),
    clearTimeout: clear(real.clearTimeout),
    clearInterval: clear(real.clearInterval),
    clearImmediate: clear(real.clearImmediate),
  };
  const wallMs = (): number =>
    world.current === null
      ? real.Date.now()
      : EPOCH_MS + world.current.wallMs + Math.floor(world.localUs() / MICROSECONDS);
  const VirtualDate = new Proxy(real.Date, {
    construct: (target, args: unknown[]) => Reflect.construct(target, args.length === 0 ? [wallMs()] : args) as object,
    get: (target, key) => (key === 'now' ? wallMs : (Reflect.get(target, key) as unknown)),
  });
  const realCores = os.availableParallelism;
  const realNow = performance.now.bind(performance);
  const realPid = process.pid;
  const own: [object, string, PropertyDescriptor][] = [
    ...Object.entries({ ...timers, Date: VirtualDate }).map(([name, value]): [object, string, PropertyDescriptor] => [
      globalThis,
      name,
      { value, configurable: true, writable: true },
    ]),
    [
      performance,
      'now',
      {
        value: () => {
          const { current } = world;
          return current === null ? realNow() : current.clockMs + world.localUs() / MICROSECONDS;
        },
        configurable: true,
        writable: true,
      },
    ],
    [process, 'pid', { get: () => world.current?.pid ?? realPid, configurable: true }],
    // A module's export: told of by syncBuiltinESMExports.
    [
      os,
      'availableParallelism',
      { value: () => (world.current === null ? realCores() : CORES), configurable: true, writable: true },
    ],
    [process.memoryUsage, 'rss', { value: () => 100_000_000, configurable: true, writable: true }],
    [process, 'resourceUsage', { value: () => ({ maxRSS: 100_000 }), configurable: true, writable: true }],
  ];
  const before = own.map(([object, name]) => Object.getOwnPropertyDescriptor(object, name));
  for (const [object, name, descriptor] of own) Object.defineProperty(object, name, descriptor);
  syncBuiltinESMExports();
  try {
    return await body();
  } finally {
    for (const [i, [object, name]] of own.entries()) {
      const descriptor = before[i];
      if (descriptor === undefined) Reflect.deleteProperty(object, name);
      else Object.defineProperty(object, name, descriptor);
    }
    syncBuiltinESMExports();
  }
}
