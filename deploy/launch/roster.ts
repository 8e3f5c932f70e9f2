// Which hosts a launch is on: who is to be started, tried again, stopped or left out. A core: events and the time come in, effects come
// out; connections are remote-host.ts's.
//
// A host that fails is started again after a wait that doubles. One that has failed too often in a row, or in a way that will not change,
// is left out, and one that waited for a place (--nnodes MIN:MAX) takes it. What a discovery script no longer names is stopped; named
// again, it begins with a clean record.

import { waitAfter, type Backoff } from '../backoff.ts';
import { differenceOf, type Host } from './hosts.ts';

export interface RosterOptions {
  /** Hosts at a time; null: all. */
  readonly hostsMax: number | null;
  /** Failures in a row after which a host is left out. */
  readonly retryLimit: number;
  readonly backoff: Backoff;
  /** A host that was up for so long begins with a clean record when it fails. */
  readonly steadyMs: number;
}

export type Effect =
  | { readonly kind: 'start'; readonly host: Host }
  /** Its workers are to end. */
  | { readonly kind: 'stop'; readonly host: Host; readonly because: string }
  | { readonly kind: 'tell'; readonly level: 'info' | 'warn'; readonly host: string; readonly message: string };

/** How a host's connection ended. */
export type HostEnd =
  /** Its workers have done what there was to do. */
  | { readonly kind: 'well' }
  /** `isFinal`: another attempt would meet the same. */
  | { readonly kind: 'failed'; readonly because: string; readonly remedy: string; readonly isFinal: boolean };

type Standing =
  /** There is no place for it. */
  | { readonly kind: 'spare' }
  | { readonly kind: 'connecting' }
  | { readonly kind: 'up'; readonly slots: number; readonly sinceMs: number }
  | { readonly kind: 'resting'; readonly untilMs: number }
  /** It was told to stop; `next` is to be started when it has. */
  | { readonly kind: 'leaving'; readonly next: Host | null }
  | { readonly kind: 'out'; readonly because: string; readonly remedy: string; readonly isFinal: boolean }
  | { readonly kind: 'through' };

interface Entry {
  host: Host;
  standing: Standing;
  /** In a row. */
  failures: number;
  /** Workers that it had when it was last up. */
  slots: number | null;
}

export class Roster {
  private readonly options: RosterOptions;
  private listed: readonly Host[] = [];
  private readonly entries = new Map<string, Entry>();

  constructor(options: RosterOptions) {
    this.options = options;
  }

  /** The hosts as they are named now. */
  named(hosts: readonly Host[]): Effect[] {
    const { gone, come } = differenceOf(this.listed, hosts);
    this.listed = hosts;
    const effects = gone.flatMap((host) => this.remove(host));
    for (const host of come) {
      const entry = this.entries.get(host.name);
      if (entry?.standing.kind === 'leaving') entry.standing = { kind: 'leaving', next: host };
      else this.entries.set(host.name, { host, standing: { kind: 'spare' }, failures: 0, slots: null });
    }
    return [...effects, ...this.fill()];
  }

  private remove(host: Host): Effect[] {
    const entry = this.entries.get(host.name);
    const kind = entry?.standing.kind;
    if (entry === undefined || kind === 'leaving') return [];
    if (kind !== 'connecting' && kind !== 'up') {
      this.entries.delete(host.name);
      return [];
    }
    entry.standing = { kind: 'leaving', next: null };
    return [{ kind: 'stop', host, because: 'it is not among the hosts any more' }];
  }

  /** A host answers, and has places for so many workers. */
  up(name: string, slots: number, nowMs: number): void {
    const entry = this.entries.get(name);
    if (entry?.standing.kind !== 'connecting') return;
    entry.standing = { kind: 'up', slots, sinceMs: nowMs };
    entry.slots = slots;
  }

  /** One of its workers can't be kept alive. */
  fewer(name: string, slots: number): void {
    const entry = this.entries.get(name);
    if (entry?.standing.kind === 'up') entry.standing = { ...entry.standing, slots };
    if (entry !== undefined) entry.slots = slots;
  }

  /** A host's connection ended. */
  ended(name: string, end: HostEnd, nowMs: number): Effect[] {
    const entry = this.entries.get(name);
    if (entry === undefined) return [];
    const { standing } = entry;
    if (standing.kind === 'leaving') {
      this.entries.delete(name);
      const { next } = standing;
      if (next !== null) {
        this.entries.set(name, { host: next, standing: { kind: 'spare' }, failures: 0, slots: null });
      }
      return this.fill();
    }
    if (end.kind === 'well') {
      entry.standing = { kind: 'through' };
      return [];
    }
    const wasSteady = standing.kind === 'up' && nowMs - standing.sinceMs >= this.options.steadyMs;
    entry.failures = (wasSteady ? 0 : entry.failures) + 1;
    // One that has been up was right once: a name server or a disk may be away for a while.
    const isFinal = end.isFinal && entry.slots === null;
    if (isFinal || entry.failures > this.options.retryLimit) {
      entry.standing = { kind: 'out', because: end.because, remedy: end.remedy, isFinal };
      const often = isFinal ? '' : `, for the ${ordinal(entry.failures)} time in a row`;
      const message = `it is left out: ${end.because}${often} -> ${end.remedy}`;
      return [{ kind: 'tell', level: 'warn', host: name, message }, ...this.fill()];
    }
    const waitMs = waitAfter(entry.failures, this.options.backoff);
    entry.standing = { kind: 'resting', untilMs: nowMs + waitMs };
    const again = waitMs === 0 ? 'it is started again' : `it is started again in ${waitMs / 1000} s`;
    return [{ kind: 'tell', level: 'warn', host: name, message: `${end.because}; ${again}` }, ...this.tick(nowMs)];
  }

  tick(nowMs: number): Effect[] {
    return [...this.entries.values()].flatMap((entry) =>
      entry.standing.kind === 'resting' && nowMs >= entry.standing.untilMs ? [this.start(entry)] : [],
    );
  }

  private start(entry: Entry): Effect {
    entry.standing = { kind: 'connecting' };
    return { kind: 'start', host: entry.host };
  }

  /** Gives places that are free to those that wait for one, in the order in which they were named. */
  private fill(): Effect[] {
    const effects: Effect[] = [];
    for (const { name } of this.listed) {
      const entry = this.entries.get(name);
      const { hostsMax } = this.options;
      if (hostsMax !== null && this.taken >= hostsMax) break;
      if (entry?.standing.kind === 'spare') effects.push(this.start(entry));
    }
    return effects;
  }

  private count(...kinds: readonly Standing['kind'][]): number {
    return [...this.entries.values()].filter(({ standing }) => kinds.includes(standing.kind)).length;
  }

  private get taken(): number {
    return this.count('connecting', 'up', 'resting', 'leaving');
  }

  /** Hosts that are up. */
  get present(): number {
    return this.count('up');
  }

  /** Each that is to be there answers, or has failed at least once. */
  get isSettled(): boolean {
    return [...this.entries.values()].every(({ standing, failures }) => standing.kind !== 'connecting' || failures > 0);
  }

  /** Nobody is there, and nobody will come of those who are named. */
  get isHopeless(): boolean {
    return this.count('connecting', 'up', 'resting', 'leaving', 'spare') === 0;
  }

  /** Workers of the hosts that are up. */
  get slotsPresent(): number {
    return [...this.entries.values()].reduce(
      (sum, { standing }) => sum + (standing.kind === 'up' ? standing.slots : 0),
      0,
    );
  }

  /** Those of the hosts that may come back, too. */
  get slotsExpected(): number {
    const coming: readonly Standing['kind'][] = ['up', 'connecting', 'resting'];
    return [...this.entries.values()].reduce(
      (sum, { standing, slots, host }) => sum + (coming.includes(standing.kind) ? (slots ?? host.slots ?? 0) : 0),
      0,
    );
  }

  /** Those that are left out, with why. */
  get leftOut(): readonly {
    readonly host: Host;
    readonly because: string;
    readonly remedy: string;
    readonly isFinal: boolean;
  }[] {
    return [...this.entries.values()].flatMap(({ host, standing }) =>
      standing.kind === 'out' ? [{ host, ...standing }] : [],
    );
  }
}

function ordinal(count: number): string {
  const ending = ['th', 'st', 'nd', 'rd'];
  const isTeen = count % 100 >= 11 && count % 100 <= 13;
  return `${count}${isTeen ? 'th' : (ending[count % 10] ?? 'th')}`;
}
