// What a rank says of a step's exchange - how long it waited for slower ranks, how long the exchange took then, what each link
// carried - on a clock and over links that the test moves by hand.

import { describe, expect, it } from 'vitest';
import { rankMicrobatches } from '../../../protocol/batch-plan.ts';
import { FRAME_HEADER_BYTES, type FrameHeader, type FrameSink } from '../../../protocol/frame.ts';
import type { Link } from '../../../protocol/link.ts';
import { AllReduce, planMemory } from '../../../worker/collective/all-reduce.ts';
import { planCollective } from '../../../worker/collective/plan.ts';
import { Exchange, type StepFigures } from '../../../worker/collective/shell/exchange.ts';
import { TrafficMeter } from '../../../worker/collective/shell/traffic.ts';
import { plainMemory } from './plain-memory.ts';

class Clock {
  seconds = 0;
}

/** Frames that are under way, delivered when the test says so. */
class Network {
  private readonly queue: (() => void)[] = [];
  private readonly sinks = new Map<string, FrameSink>();
  private readonly bytes = new Map<string, number>();

  link(from: number, to: number): Link {
    const count = (a: number, b: number): number => this.bytes.get(`${a}>${b}`) ?? 0;
    return {
      transport: from + to === 1 ? 'shm' : 'tcp',
      send: (header: FrameHeader, payload: Uint8Array) => {
        this.bytes.set(`${from}>${to}`, count(from, to) + FRAME_HEADER_BYTES + payload.byteLength);
        this.queue.push(() => {
          const sink = this.sinks.get(`${from}>${to}`);
          sink?.begin(header);
          sink?.data(payload);
          sink?.end();
        });
      },
      receive: (sink) => this.sinks.set(`${to}>${from}`, sink),
      closed: new Promise(() => {}),
      drained: () => Promise.resolve(),
      close: () => {},
      cut: () => {},
      get bytesOut() {
        return count(from, to);
      },
      get bytesIn() {
        return count(to, from);
      },
    };
  }

  deliver(): void {
    for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift()) next();
  }
}

const FLOATS = 6;

function world(worldSize: number, microbatches: number) {
  const clock = new Clock();
  const network = new Network();
  const figures: (StepFigures | null)[] = [];
  let step = -1;
  const plan = { worldSize, microbatches, length: FLOATS, generation: 1, firstStep: 0 };
  const ranks = Array.from({ length: worldSize }, (_, rank) => {
    const others = Array.from({ length: worldSize }, (_unused, peer) => peer).filter((peer) => peer !== rank);
    return new Exchange({
      plan: { ...plan, rank },
      links: new Map(others.map((peer) => [peer, network.link(rank, peer)])),
      memory: plainMemory(planMemory(planCollective(plan), rank).floats),
      finished: (done) => {
        figures[rank] = done;
      },
      freed: () => {},
      nameOf: String,
      failed: (error) => {
        throw error;
      },
      stirred: () => {},
      now: () => clock.seconds,
    });
  });
  return {
    figures,
    begin: () => {
      step++;
      for (const [rank, exchange] of ranks.entries()) {
        figures[rank] = null;
        exchange.begin();
      }
    },
    /** At `seconds`, `rank` has computed its microbatch number `nth` (all by default), and what it sends arrives. */
    computed: (rank: number, seconds: number, nth: number | null = null) => {
      clock.seconds = seconds;
      const { start, end } = rankMicrobatches(microbatches, worldSize, rank);
      const [from, to] = nth === null ? [start, end] : [start + nth, start + nth + 1];
      const slots = AllReduce.slotsOf(planMemory(planCollective(plan), rank), step);
      for (let m = from; m < to; m++) ranks[rank]?.offer(m, 0, slots[m - start] ?? null);
      network.deliver();
    },
  };
}

const waitsOf = (figures: readonly (StepFigures | null)[]): (number | undefined)[] =>
  figures.map((one) => one?.waitSeconds);

describe('waiting', () => {
  it('is for the slowest: a straggler shows in the others’ wait and not in its own', () => {
    const { figures, begin, computed } = world(3, 4);
    for (const t of [0, 100]) {
      begin();
      computed(0, t + 10);
      computed(2, t + 11);
      expect(figures).toEqual([null, null, null]);
      computed(1, t + 15);
      expect(waitsOf(figures)).toEqual([5, 0, 4]);
      expect(figures.map((one) => one?.reduceSeconds)).toEqual([0, 0, 0]);
    }
  });

  it('lasts until the last of a rank’s parts: with several, the first is no sign that it has computed', () => {
    // Rank 1 of 3 has the microbatches 2, 3 and 4 of 8: the nodes [2, 3] and [4], which it can't join.
    expect(rankMicrobatches(8, 3, 1)).toEqual({ start: 2, end: 5 });
    const { figures, begin, computed } = world(3, 8);
    begin();
    computed(0, 1);
    computed(2, 1);
    computed(1, 2, 0);
    computed(1, 5, 1);
    computed(1, 8, 2);
    expect(waitsOf(figures)).toEqual([7, 0, 7]);
  });
});

it('bytes are told by link, and what one rank sends another receives', () => {
  const { figures, begin, computed } = world(3, 4);
  const meter = new TrafficMeter();
  const steps = [0, 1].map(() => {
    begin();
    for (const rank of [0, 1, 2]) computed(rank, rank);
    return figures.map((one) => one?.traffic);
  });
  // A part of two floats from each rank to each owner, a sum of two floats from each owner to each rank.
  const step = 2 * (FRAME_HEADER_BYTES + 2 * 4);
  const link = (peer: number, transport: string, bytes: number) => ({
    peer,
    transport,
    bytesOut: bytes,
    bytesIn: bytes,
  });
  for (const [done, traffic] of steps.entries()) {
    const bytes = (done + 1) * step;
    expect(traffic).toEqual([
      [link(1, 'shm', bytes), link(2, 'tcp', bytes)],
      [link(0, 'shm', bytes), link(2, 'tcp', bytes)],
      [link(0, 'tcp', bytes), link(1, 'tcp', bytes)],
    ]);
    const told = { waitSeconds: 0, reduceSeconds: 0, traffic: traffic[0] ?? [] };
    expect(meter.timing(told, 1).traffic).toEqual([link(1, 'shm', step), link(2, 'tcp', step)]);
  }
});
