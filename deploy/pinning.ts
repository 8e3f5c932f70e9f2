// Which processors a worker on the CPU is bound to. Pure; affinity.ts knows the machine and binds.
//
// On one memory node binding was measured to change nothing: one thread a worker, and the system keeps it where its caches are. So `auto`
// binds where memory is near to some processors and far from others: a worker to one node's, all of them, that the system may still
// choose among. `on` gives each worker cores of its own.

export interface Processor {
  /** As the system counts. */
  readonly id: number;
  /** The same text on the threads of one core. */
  readonly core: string;
  /** Its memory node. */
  readonly node: number;
}

export const PIN = ['auto', 'on', 'off'] as const;
export type Pin = (typeof PIN)[number];

export interface Place {
  readonly processors: readonly number[];
  /** Workers that have these processors, itself included. */
  readonly sharers: number;
}

/** Values in order of first sight, by key. */
function grouped(processors: readonly Processor[], keyOf: (one: Processor) => string | number): Processor[][] {
  const groups = new Map<string | number, Processor[]>();
  for (const one of processors) groups.set(keyOf(one), [...(groups.get(keyOf(one)) ?? []), one]);
  return [...groups.values()];
}

/** How many of `workers` fall to each of `places`, contiguous and as even as can be; and which one `rank` falls to. */
function placeOf(rank: number, workers: number, places: number): { readonly place: number; readonly sharers: number } {
  const of = (one: number): number => Math.floor((one * places) / workers);
  const place = of(rank);
  return { place, sharers: Array.from({ length: workers }, (_, one) => of(one)).filter((at) => at === place).length };
}

/** @param processors those that the launcher may use. Null: where the system likes. */
export function placeFor(pin: Pin, processors: readonly Processor[], rank: number, workers: number): Place | null {
  const idsOf = (groups: readonly Processor[][]): number[] => groups.flat().map(({ id }) => id);
  const nodes = grouped(processors, ({ node }) => node);
  if (pin === 'off' || (pin === 'auto' && nodes.length < 2)) return null;
  // Each more than enough: `rank` may be beyond `workers` where more were started.
  const local = rank % workers;
  if (pin === 'auto') {
    const { place, sharers } = placeOf(local, workers, nodes.length);
    return { processors: idsOf([nodes[place] ?? []]), sharers };
  }
  // Node by node, so that a worker's cores are near each other.
  const cores = nodes.flatMap((node) => grouped(node, ({ core }) => core));
  if (workers >= cores.length) {
    const { place, sharers } = placeOf(local, workers, cores.length);
    return { processors: idsOf([cores[place] ?? []]), sharers };
  }
  const from = (one: number): number => Math.floor((one * cores.length) / workers);
  return { processors: idsOf(cores.slice(from(local), from(local + 1))), sharers: 1 };
}

/** `0-3,8` as the kernel writes it. */
export function parseList(text: string): number[] {
  return text
    .trim()
    .split(',')
    .filter((part) => part !== '')
    .flatMap((part) => {
      const [first = 0, last = first] = part.split('-').map(Number);
      return Array.from({ length: last - first + 1 }, (_, i) => first + i);
    });
}

/** As `sched_setaffinity` takes it: a bit a processor, in words of 64. */
export function maskOf(processors: readonly number[]): Uint8Array {
  const mask = new Uint8Array(8 * Math.ceil((Math.max(0, ...processors) + 1) / 64));
  for (const id of processors) mask[id >> 3] = (mask[id >> 3] ?? 0) | (1 << (id & 7));
  return mask;
}
