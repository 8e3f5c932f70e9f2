// What a training step costs, as a formula: the exchange by what it is made of (frames, bytes through links, bytes of vectors), the
// compute by how much it varies, the network by its speed. Its constants are fitted to measurements at some sizes and numbers of ranks, and
// it is believed as far as it foretells others. Pure.
//
// The exchange of a rank is work of its core: where ranks outnumber cores, the cores are shared, and a rank sleeps until a peer wakes it. On a
// network there is the wire besides: it is used while the cores work, so the longer of the two counts. What it leaves out:
// congestion, and memory that many cores share.

/** Ranks on hosts, as many on each, that sum vectors. */
export interface Layout {
  readonly ranks: number;
  readonly hosts: number;
  /** Of the vector. */
  readonly bytes: number;
  readonly bucketBytes: number;
}

/** What one rank sends in an all-reduce; it receives as much. */
export interface Sent {
  readonly frames: number;
  readonly bytes: number;
}

export interface Exchange {
  /** Within the host, and between hosts. */
  readonly local: Sent;
  readonly network: Sent;
  readonly buckets: number;
}

/**
 * Counts what plan.ts makes of it: reduce-scatter and all-gather, direct within a host, by a relay for each slice between hosts. Every
 * rank's microbatches are taken to be one node of the tree.
 */
export function exchangeOf({ ranks, hosts, bytes, bucketBytes }: Layout): Exchange {
  const buckets = Math.max(1, Math.ceil(bytes / bucketBytes));
  const neighbours = ranks / hosts - 1;
  const elsewhere = hosts - 1;
  // A slice of each bucket belongs to each rank. Of those owned here, and of those that each relay stands for: out to the neighbours'
  // collectors, and back from this rank's own. Without neighbours there is nobody to relay for, and every rank is its own host's.
  const localSlices = 2 * neighbours * (1 + elsewhere);
  const networkSlices = 2 * elsewhere;
  const slice = bytes / ranks;
  return {
    local: { frames: buckets * localSlices, bytes: slice * localSlices },
    network: { frames: buckets * networkSlices, bytes: slice * networkSlices },
    buckets,
  };
}

/** Seconds of a core: what the parts of an exchange cost over one transport. */
export interface Costs {
  /** A call, whatever it carries: turns of the event loop, waking. */
  readonly call: number;
  /** A frame sent, and one received. */
  readonly frame: number;
  /** A byte sent and one received, the sum added up; and what it takes more where vectors are larger than the cache. */
  readonly byte: number;
  readonly farByte: number;
  /** Waking, by each peer, where ranks outnumber cores. */
  readonly wake: number;
}

/** Vectors larger than this do not stay in a core's cache while they are exchanged. */
const CACHE_BYTES = 2 * 1024 * 1024;

/** How often each cost occurs in a call, in seconds of the clock: once where a core is a rank's alone. */
function occurrencesOf(layout: Layout, cores: number): Costs {
  const { ranks, hosts, bytes } = layout;
  const { local } = exchangeOf(layout);
  const here = ranks / hosts;
  const shared = Math.max(1, here / cores);
  // The vector is copied in and out besides.
  const moved = shared * (local.bytes + bytes);
  return {
    call: shared,
    frame: shared * local.frames,
    byte: moved,
    farByte: moved * farShare(bytes),
    wake: here > cores ? here - 1 : 0,
  };
}

const farShare = (bytes: number): number => Math.max(0, 1 - CACHE_BYTES / bytes);

const costOf = (costs: Costs, times: Costs): number =>
  costs.call * times.call +
  costs.frame * times.frame +
  costs.byte * times.byte +
  costs.farByte * times.farByte +
  costs.wake * times.wake;

export interface Sample {
  readonly layout: Layout;
  /** Of the host. */
  readonly cores: number;
  readonly seconds: number;
}

/** The costs, none below zero, with the least squares of relative errors over samples of one host. */
export function fitCosts(samples: readonly Sample[]): Costs {
  const rows = samples.map(({ layout, cores, seconds }) => {
    const { call, frame, byte, farByte, wake } = occurrencesOf(layout, cores);
    return [call, frame, byte, farByte, wake].map((count) => count / seconds);
  });
  const goals = rows.map(() => 1);
  const [call = 0, frame = 0, byte = 0, farByte = 0, wake = 0] = nonNegativeLeastSquares(rows, goals);
  return { call, frame, byte, farByte, wake };
}

export interface Wire {
  /** Of a host, each way. */
  readonly bytesPerSecond: number;
  readonly latencySeconds: number;
  /** What a core spends on it. */
  readonly costs: Costs;
}

/** Seconds of an all-reduce on hosts of `cores` cores each; `wire` is what is between them, and isn't looked at for one host. */
export function allReduceSeconds(layout: Layout, cores: number, local: Costs, wire: Wire | null): number {
  const here = costOf(local, occurrencesOf(layout, cores));
  if (layout.hosts === 1 || wire === null) return here;
  const { network } = exchangeOf(layout);
  const shared = Math.max(1, layout.ranks / layout.hosts / cores);
  const { frame, byte, farByte } = wire.costs;
  const there = shared * (frame * network.frames + (byte + farByte * farShare(layout.bytes)) * network.bytes);
  const onTheWire = (network.bytes * (layout.ranks / layout.hosts)) / wire.bytesPerSecond;
  // Parts go to their owners and sums come back.
  return Math.max(here + there, onTheWire) + 2 * wire.latencySeconds;
}

/** The mean of the largest of `n` draws from what was seen, each draw by itself: sorted, the i-th of k is it in (i/k)^n - ((i-1)/k)^n of the cases. */
export function expectedMaximum(seen: readonly number[], n: number): number {
  const sorted = seen.toSorted((a, b) => a - b);
  const k = sorted.length;
  return sorted.reduce((sum, value, i) => sum + value * (((i + 1) / k) ** n - (i / k) ** n), 0);
}

export interface StepModel {
  /** Seconds in which one worker's share of a step was computed, data included, again and again. */
  readonly compute: readonly number[];
  readonly workers: number;
  /** Of its host: computing is shared, too. */
  readonly workersPerCore: number;
  /** The update of the weights, and all else that follows. */
  readonly after: number;
  readonly exchange: number;
  /** Seconds of the computing that go on while the exchange does; and the part of the exchange that can't begin before the end. */
  readonly overlap: number;
  readonly lastPart: number;
}

export interface StepTime {
  readonly seconds: number;
  readonly compute: number;
  /** For the slowest, on average. */
  readonly wait: number;
  /** The exchange, as far as it isn't hidden. */
  readonly exchange: number;
  /** Against one worker alone: its share of work in a step of its own. */
  readonly efficiency: number;
}

export function stepTime(model: StepModel): StepTime {
  const { workers, after } = model;
  const shared = Math.max(1, model.workersPerCore);
  const mean = expectedMaximum(model.compute, 1);
  const compute = shared * mean;
  const wait = shared * (expectedMaximum(model.compute, workers) - mean);
  const exchange = workers === 1 ? 0 : Math.max(model.exchange - model.overlap, model.exchange * model.lastPart);
  const seconds = compute + wait + exchange + shared * after;
  return { seconds, compute, wait, exchange, efficiency: (shared * (mean + after)) / seconds };
}

/** The x >= 0 with the least |A x - b|^2: of all choices of columns, each solved freely, the best one without a negative. For a few columns. */
export function nonNegativeLeastSquares(rows: readonly (readonly number[])[], goals: readonly number[]): number[] {
  const columns = rows[0]?.length ?? 0;
  let best: { readonly x: number[]; readonly error: number } | null = null;
  for (let choice = 1; choice < 2 ** columns; choice++) {
    const chosen = Array.from({ length: columns }, (_, i) => i).filter((i) => ((choice >> i) & 1) === 1);
    const normal = chosen.map((i) => [
      ...chosen.map((j) => rows.reduce((sum, row) => sum + (row[i] ?? 0) * (row[j] ?? 0), 0)),
      rows.reduce((sum, row, at) => sum + (row[i] ?? 0) * (goals[at] ?? 0), 0),
    ]);
    const solved = solve(normal);
    if (solved === null || solved.some((value) => value < 0)) continue;
    const x = Array.from({ length: columns }, (_, i) => solved[chosen.indexOf(i)] ?? 0);
    const error = rows.reduce(
      (sum, row, at) => sum + (row.reduce((total, a, i) => total + a * (x[i] ?? 0), 0) - (goals[at] ?? 0)) ** 2,
      0,
    );
    if (best === null || error < best.error) best = { x, error };
  }
  return best?.x ?? Array.from({ length: columns }, () => 0);
}

/** Solves a system whose rows end with the right side, by elimination; null when it has not one solution. */
function solve(system: readonly (readonly number[])[]): number[] | null {
  const n = system.length;
  // Columns of very different sizes (seconds a call, seconds a byte) are scaled to one.
  const scales = system.map((row, i) => 1 / Math.sqrt(row[i] ?? 1));
  const rows = system.map((row, i) => row.map((value, j) => value * (scales[i] ?? 1) * (j < n ? (scales[j] ?? 1) : 1)));
  const at = (i: number, j: number): number => rows[i]?.[j] ?? 0;
  for (let column = 0; column < n; column++) {
    const order = rows.map((_, i) => i).filter((i) => i >= column);
    const pivot = order.toSorted((a, b) => Math.abs(at(b, column)) - Math.abs(at(a, column)))[0] ?? column;
    [rows[column], rows[pivot]] = [rows[pivot] ?? [], rows[column] ?? []];
    const head = at(column, column);
    if (!(Math.abs(head) > 1e-9)) return null;
    for (let i = 0; i < n; i++) {
      if (i === column) continue;
      const factor = at(i, column) / head;
      rows[i] = (rows[i] ?? []).map((value, j) => value - factor * at(column, j));
    }
  }
  return rows.map((_, i) => (at(i, n) / at(i, i)) * (scales[i] ?? 1));
}
