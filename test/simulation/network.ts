// Connections between simulated processes: ordered both ways, each arrival after a latency of its own. What a process sent and did not
// see leave is lost with it; a cut network holds what is under way until it is whole again, as TCP does by sending again.

import { Violation, type Process, type World } from './world.ts';
import type { Chance } from './chance.ts';

const SECOND_US = 1_000_000;
/** Between two looks whether somebody takes a call. */
const QUEUE_US = 100_000;

/** What arrives at an end, in order. */
interface Item {
  readonly what: string;
  readonly detail: (() => string) | null;
  readonly run: () => void;
  /** The word that the other end has closed. */
  readonly isClose: boolean;
}

export interface Weather {
  /** Microseconds: most arrivals take between these. */
  readonly leastUs: number;
  readonly mostUs: number;
  /** Share of arrivals that take up to `spikeUs`. */
  readonly spikes: number;
  readonly spikeUs: number;
}

/** One end of a connection. */
export class End {
  readonly process: Process;
  readonly name: string;
  isOpen = true;
  /** After which silence of the other side this one gives up; null: never. */
  silenceMs: number | null = null;
  /** Told once, in its process, when the other end has closed or is lost. */
  onClose: (because: string) => void = () => {};
  readonly items: Item[] = [];
  /** Arrivals that a cut has held up. */
  heldTokens = 0;
  arrivesUs = 0;
  quietSinceUs: number | null = null;
  private otherEnd: End | null = null;

  constructor(process: Process, name: string) {
    this.process = process;
    this.name = name;
  }

  get other(): End {
    if (this.otherEnd === null) throw new Error('an end has another');
    return this.otherEnd;
  }

  static pair(a: Process, b: Process, name: string): [End, End] {
    const [left, right] = [new End(a, name), new End(b, name)];
    left.otherEnd = right;
    right.otherEnd = left;
    return [left, right];
  }
}

interface Listener {
  readonly process: Process;
  readonly accept: (end: End, greeting: unknown) => void;
}

export class Network {
  readonly world: World;
  weather: Weather;
  private readonly chance: Chance;
  /** By address; several where a socket is shared. */
  private readonly listeners = new Map<string, readonly Listener[]>();
  private readonly ends = new Set<End>();
  private readonly cuts = new Set<string>();

  constructor(world: World, chance: Chance, weather: Weather) {
    this.world = world;
    this.chance = chance;
    this.weather = weather;
  }

  latencyUs(): number {
    const { leastUs, mostUs, spikes, spikeUs } = this.weather;
    return this.chance.happens(spikes) ? this.chance.spread(mostUs, spikeUs) : this.chance.between(leastUs, mostUs);
  }

  /** From now on, what calls `address` comes to `accept`. */
  listen(process: Process, address: string, accept: Listener['accept']): () => void {
    const listener = { process, accept };
    this.listeners.set(address, [...this.listenersAt(address), listener]);
    return () => this.deafen(address, listener);
  }

  private listenersAt(address: string): readonly Listener[] {
    return this.listeners.get(address) ?? [];
  }

  private deafen(address: string, listener: Listener): void {
    this.listeners.set(
      address,
      this.listenersAt(address).filter((other) => other !== listener),
    );
  }

  /** Of several who share a socket one that is awake takes the call. */
  private answering(address: string): Listener | undefined {
    const all = this.listenersAt(address);
    const awake = all.filter(({ process }) => process.pausedUs === null);
    return awake.length > 1 ? this.chance.pick(awake) : (awake[0] ?? all.at(-1));
  }

  /** Calls `address`; rejects where nobody listens, or nobody answers in time. */
  async dial(process: Process, address: string, greeting: unknown, timeoutMs: number): Promise<End> {
    return new Promise((resolve, reject) => {
      let isOver = false;
      this.world.after(process, timeoutMs * 1000, 'no answer', () => {
        if (!isOver) reject(new Error(`no answer within ${timeoutMs / 1000} s`));
        isOver = true;
      });
      const arrive = (): void => {
        const listener = this.answering(address);
        const back = (what: string, run: () => void): void => {
          this.world.after(process, this.latencyUs(), what, () => {
            if (!isOver) run();
          });
        };
        if (listener !== undefined && this.isCut(process, listener.process)) {
          this.world.after(null, SECOND_US, 'calls again', arrive);
          return;
        }
        if (listener !== undefined && listener.process.pausedUs !== null) {
          // In the socket's queue, for whoever wakes first.
          if (!isOver) this.world.after(null, QUEUE_US, 'waits', arrive);
          return;
        }
        if (listener === undefined || !listener.process.alive) {
          back('refused', () => {
            isOver = true;
            reject(new Error('ECONNREFUSED'));
          });
          return;
        }
        this.world.after(
          listener.process,
          0,
          'is called',
          () => {
            if (isOver || !process.alive) return;
            if (!this.listenersAt(address).includes(listener)) {
              arrive();
              return;
            }
            const [near, far] = End.pair(process, listener.process, `${process.name}-${listener.process.name}`);
            this.ends.add(near).add(far);
            listener.accept(far, greeting);
            this.deliverAfter(near, {
              what: 'is answered',
              detail: null,
              isClose: false,
              run: () => {
                if (isOver) this.close(near, 'too late');
                else {
                  isOver = true;
                  resolve(near);
                }
              },
            });
          },
          () => address,
        );
      };
      this.world.after(null, this.latencyUs(), 'calls', arrive, () => `${process.name} ${address}`);
    });
  }

  /** Sends from `end`: `run` happens in the other end's process. */
  post(end: End, what: string, run: () => void, detail: (() => string) | null = null): void {
    if (end.isOpen) this.deliverAfter(end.other, { what, detail, run, isClose: false });
  }

  /** Closes an end; the other is told, after what was sent before. */
  close(end: End, because: string): void {
    if (!end.isOpen) return;
    end.isOpen = false;
    end.items.length = 0;
    this.ends.delete(end);
    this.tellClosed(end.other, because);
  }

  private tellClosed(end: End, because: string): void {
    this.deliverAfter(end, {
      what: 'is closed',
      detail: () => because,
      isClose: true,
      run: () => this.lose(end, because),
    });
  }

  private lose(end: End, because: string): void {
    if (!end.isOpen) return;
    end.isOpen = false;
    end.items.length = 0;
    this.ends.delete(end);
    end.onClose(because);
  }

  private deliverAfter(to: End, item: Item): void {
    to.items.push(item);
    this.planArrival(to);
  }

  private planArrival(to: End): void {
    const { world } = this;
    to.arrivesUs = Math.max(to.arrivesUs, world.localUs() + this.latencyUs());
    let item: Item | undefined;
    world.after(
      to.process,
      to.arrivesUs - world.localUs(),
      'hears',
      () => {
        if (!to.isOpen) return;
        if (this.isCut(to.process, to.other.process)) {
          to.heldTokens++;
          return;
        }
        item = to.items.shift();
        item?.run();
      },
      () => {
        const told = item ?? to.items[0];
        return told === undefined ? 'nothing' : `${told.what} ${told.detail?.() ?? ''}`;
      },
    );
  }

  // ---------------------------------------------------------------- faults

  /**
   * The process has ended: its connections break. Killed, what it had not sent is lost; silently: with its machine, so that nobody is
   * told.
   */
  died(process: Process, how: 'exited' | 'killed' | 'silently'): void {
    for (const [address, all] of this.listeners) {
      const mine = all.find((listener) => listener.process === process);
      if (mine !== undefined) this.deafen(address, mine);
    }
    for (const end of this.ends) {
      if (end.process !== process) continue;
      const { other } = end;
      end.isOpen = false;
      this.ends.delete(end);
      if (!other.isOpen) continue;
      const closes = other.items.some((item) => item.isClose);
      if (!closes && how !== 'exited') other.items.length = this.chance.below(other.items.length + 1);
      if (how === 'silently') this.hush(other);
      else if (!closes) this.tellClosed(other, 'the other side ended');
    }
  }

  /** Nothing passes between the two from now on. */
  cut(a: Process, b: Process): void {
    this.cuts.add(keyOf(a, b));
    for (const end of this.ends) if (this.isCut(end.process, end.other.process)) this.hush(end);
  }

  heal(a: Process, b: Process): void {
    if (!this.cuts.delete(keyOf(a, b))) return;
    for (const end of this.ends) {
      if (this.isCut(end.process, end.other.process)) continue;
      this.unhush(end);
      for (let tokens = end.heldTokens; tokens > 0; tokens--) this.planArrival(end);
      end.heldTokens = 0;
    }
  }

  isCut(a: Process, b: Process): boolean {
    return this.cuts.size > 0 && this.cuts.has(keyOf(a, b));
  }

  paused(process: Process): void {
    for (const end of this.ends) if (end.other.process === process) this.hush(end);
  }

  resumed(process: Process): void {
    for (const end of this.ends) if (end.other.process === process) this.unhush(end);
  }

  /** Nothing comes to this end any more, not even a sign of life. */
  private hush(end: End): void {
    if (end.quietSinceUs !== null) return;
    const since = this.world.nowUs;
    end.quietSinceUs = since;
    if (end.silenceMs === null) return;
    const { silenceMs } = end;
    this.world.after(end.process, 1000 * silenceMs, 'looks for signs of life', () => {
      if (end.quietSinceUs !== since || !end.isOpen) return;
      this.tellClosed(end.other, 'nothing was heard of this side');
      this.lose(end, `nothing was heard of it for ${silenceMs / 1000} s`);
    });
  }

  private unhush(end: End): void {
    const { process: other } = end.other;
    if (other.alive && other.pausedUs === null && !this.isCut(end.process, other)) end.quietSinceUs = null;
  }

  /** Throws unless no connection is left open between living processes. */
  checkNoneOpen(): void {
    for (const end of this.ends) {
      if (end.process.alive && end.other.process.alive) {
        throw new Violation('no connection is left open', `${end.name} at ${end.process.name}`);
      }
    }
  }
}

function keyOf(a: Process, b: Process): string {
  return a.id < b.id ? `${a.id} ${b.id}` : `${b.id} ${a.id}`;
}
