// Bugs, one of each kind, put in the place of what they spoil: a core with another decision, a collective with another sum. Each must
// be caught (simulation.test.ts), or the simulation would find none of its kind in the product either.

import type { Effect, Input } from '../../coordinator/core/effects.ts';
import { Run, type RunOptions } from '../../coordinator/core/run.ts';
import type { FrameSink } from '../../protocol/frame.ts';
import type { OpenCollective } from '../../worker/collective/shell/generation.ts';
import type { Surroundings } from '../../worker/main.ts';
import type { FaultKind, Scenario } from './scenario.ts';
import type { Plants } from './simulate.ts';

/** A core that does something else about `input` than the real one. */
function coreThat(change: (input: Input, run: Run, receive: (input: Input) => Effect[]) => Effect[]): Plants {
  return {
    run: (options: RunOptions) => {
      const run = new Run(options);
      const receive = run.receive.bind(run);
      run.receive = (input, nowMs) => change(input, run, (changed) => receive(changed, nowMs));
      return run;
    },
  };
}

/** Workers whose collective is another. */
function collectiveThat(
  change: (real: OpenCollective, generation: number) => Partial<OpenCollective>,
): NonNullable<Plants['surroundings']> {
  return (around: Surroundings): Surroundings => ({
    ...around,
    communicate: async (options) => {
      const communication = await around.communicate(options);
      return {
        ...communication,
        open: async (plan, members, signal) => {
          const real = await communication.open(plan, members, signal);
          const changed = change(real, plan.generation);
          return {
            ...real,
            ...changed,
            get failure() {
              return real.failure;
            },
          };
        },
      };
    },
  });
}

/** Faults of these kinds, in turns, every so many events. */
function often(kinds: readonly FaultKind[]): (scenario: Scenario) => Scenario {
  return (scenario) => ({
    ...scenario,
    faults: Array.from({ length: 12 }, (_, i) => ({
      atEvent: 150 + 60 * i,
      kind: kinds[i % kinds.length] ?? 'crash',
    })),
  });
}

export interface Planted {
  readonly bug: string;
  /** What its seeds are made to go through. */
  readonly change?: (scenario: Scenario) => Scenario;
  /** Made anew for each seed. */
  readonly plants: () => Plants;
  /** Properties of which one breaks. */
  readonly breaks: readonly string[];
}

export const PLANTED: readonly Planted[] = [
  {
    bug: 'sums taken in the order of the microbatches instead of in the tree',
    breaks: ['the weights after a step are the same'],
    plants: () => {
      const byRounds = new Map<string, Map<number, Float32Array>>();
      return {
        surroundings: collectiveThat((real, generation) => {
          let rounds = 0;
          let mine: [number, Float32Array][] = [];
          return {
            slot: async (index) => {
              const vector = await real.slot(index);
              mine.push([index, vector]);
              return vector;
            },
            ready: (bucket) => {
              // Folding may write to the vector: it is copied once it is whole, before its last bucket leaves.
              if (bucket === real.buckets.length - 1)
                mine = mine.map(([m, vector], i) => (i === mine.length - 1 ? [m, vector.slice()] : [m, vector]));
              real.ready(bucket);
            },
            allReduce: async () => {
              const round = `${generation}/${rounds++}`;
              const all = byRounds.get(round) ?? new Map<number, Float32Array>();
              byRounds.set(round, all);
              for (const [m, vector] of mine) all.set(m, vector);
              mine = [];
              const { sum, ...timing } = await real.allReduce();
              const ordered = [...all].toSorted(([a], [b]) => a - b).map(([, vector]) => vector);
              const folded = sum.slice().fill(0);
              for (const vector of ordered)
                for (let i = 0; i < folded.length; i++) folded[i] = (folded[i] ?? 0) + (vector[i] ?? 0);
              return { ...timing, sum: folded };
            },
          };
        }),
      };
    },
  },
  {
    bug: 'a worker that leaves out its first microbatch',
    breaks: ['the weights after a step are the same'],
    plants: () => ({
      surroundings: collectiveThat((real) => {
        let isLeftOut = false;
        let scratch = new Float32Array(0);
        return {
          slot: async (index) => {
            isLeftOut = index === 0;
            if (!isLeftOut) return real.slot(index);
            await real.absent(index);
            scratch = new Float32Array(
              real.buckets.reduce((end, { offset, length }) => Math.max(end, offset + length), 0),
            );
            return scratch;
          },
          ready: (bucket) => {
            if (!isLeftOut) real.ready(bucket);
          },
        };
      }),
    }),
  },
  {
    bug: 'a survivor that leaves out its first microbatch of the step in flight',
    breaks: ['the weights after a step are the same', 'the run ends as done'],
    change: often(['crash']),
    plants: () => ({
      surroundings: collectiveThat((real, generation) => {
        let isFirst = true;
        let isLeftOut = false;
        return {
          slot: async (index) => {
            isLeftOut = generation > 1 && isFirst;
            isFirst = false;
            if (!isLeftOut) return real.slot(index);
            await real.absent(index);
            return new Float32Array(
              real.buckets.reduce((end, { offset, length }) => Math.max(end, offset + length), 0),
            );
          },
          ready: (bucket) => {
            if (!isLeftOut) real.ready(bucket);
          },
        };
      }),
    }),
  },
  {
    bug: 'a newcomer who trains on without the state of the others',
    breaks: ['the weights after a step are the same', 'a step has one loss sum'],
    change: often(['newcomer', 'crash']),
    plants: () =>
      coreThat((input, _run, receive) =>
        receive(input).map((effect) =>
          effect.kind === 'send' && effect.message.kind === 'begin'
            ? { ...effect, message: { ...effect.message, source: { kind: 'held' } } }
            : effect,
        ),
      ),
  },
  {
    bug: 'a report of an older generation that counts',
    breaks: ['what is stale has no effect'],
    change: often(['crash', 'echo']),
    plants: () =>
      coreThat((input, run, receive) => {
        if (input.kind !== 'message' || input.message.kind !== 'report') return receive(input);
        const generation = run.workers.get(input.worker)?.generation ?? 0;
        return receive({ ...input, message: { ...input.message, generation } });
      }),
  },
  {
    bug: 'a frame of an older generation that counts',
    breaks: ['the weights after a step are the same'],
    change: (scenario) => ({ ...often(['crash'])(scenario), manners: { ...scenario.manners, stale: 0.01 } }),
    plants: () => ({
      sink: (sink: FrameSink): FrameSink => {
        let newest = 0;
        return {
          begin: (header) => {
            newest = Math.max(newest, header.generation);
            sink.begin({ ...header, generation: newest });
          },
          data: (bytes) => sink.data(bytes),
          end: () => sink.end(),
        };
      },
    }),
  },
  {
    bug: 'a number of a generation that is used again',
    breaks: ['a generation has a number of its own'],
    change: often(['crash']),
    plants: () =>
      coreThat((input, run, receive) => {
        if (run.generation > 2 && input.kind === 'disconnected') run.generation--;
        return receive(input);
      }),
  },
  {
    bug: 'a coordinator that begins to count generations anew',
    breaks: ['a generation has a number of its own'],
    change: often(['coordinator crash']),
    plants: () => ({ run: (options) => new Run({ ...options, lastGeneration: 0 }) }),
  },
  {
    bug: 'a coordinator that wakes and does not look whether another has its run',
    breaks: ['an older coordinator has no effect'],
    change: often(['coordinator replaced']),
    plants: () => ({ isBlind: true }),
  },
  {
    bug: 'a generation that is told before it is on record',
    breaks: ['a generation is on record before it is told'],
    plants: () =>
      coreThat((input, _run, receive) =>
        receive(input).flatMap((effect) =>
          effect.kind === 'journal' ? [...(effect.afterwards ?? []), { ...effect, afterwards: [] }] : [effect],
        ),
      ),
  },
  {
    bug: 'a lost worker whom nobody mourns',
    breaks: ['the run ends'],
    change: often(['crash']),
    plants: () =>
      coreThat((input, _run, receive) =>
        input.kind === 'disconnected' || input.kind === 'process-ended' ? [] : receive(input),
      ),
  },
  {
    bug: 'a step that is committed twice',
    breaks: ['a step commits once'],
    plants: () =>
      coreThat((input, _run, receive) => {
        const effects = receive(input);
        const commit = effects.find(
          (effect) => effect.kind === 'tell' && effect.event.kind === 'step' && effect.event.step === 2,
        );
        return commit === undefined ? effects : [...effects, commit];
      }),
  },
  {
    bug: 'a step whose commit is lost',
    breaks: ['steps commit in their order', 'no step is lost'],
    plants: () =>
      coreThat((input, _run, receive) =>
        receive(input).filter(
          (effect) => !(effect.kind === 'tell' && effect.event.kind === 'step' && effect.event.step === 2),
        ),
      ),
  },
  {
    bug: 'a run that does not hear that a worker has finished',
    breaks: ['the run ends'],
    plants: () =>
      coreThat((input, _run, receive) =>
        input.kind === 'message' && input.message.kind === 'finished' ? [] : receive(input),
      ),
  },
  {
    bug: 'a checkpoint of other bits',
    breaks: ['the weights after a step are the same'],
    plants: () =>
      coreThat((input, _run, receive) => {
        if (input.kind !== 'message' || input.message.kind !== 'state') return receive(input);
        const bytes = input.message.bytes.slice();
        bytes[5] = (bytes[5] ?? 0) ^ 1;
        return receive({ ...input, message: { ...input.message, bytes } });
      }),
  },
  {
    bug: 'a core that throws',
    breaks: ['no code throws where nobody catches'],
    plants: () =>
      coreThat((input, run, receive) => {
        if (input.kind === 'tick' && run.step > 1) throw new Error('planted');
        return receive(input);
      }),
  },
];
