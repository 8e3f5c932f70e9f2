// `--nnodes MIN:MAX --nproc-per-node N` as torchrun's users write it, in Lockstep's own words: how many workers are waited for, at least
// and at most. Pure. Whoever says the same thing in both ways is asked to say it once.

import { LockstepError } from '../../protocol/errors.ts';
import { MAX_MICROBATCHES, MAX_WORKERS, type TrainFlags } from './flags.ts';
import type { NodeRange } from './values.ts';

/** Whether a flag was given at all. */
type IsGiven = (key: keyof TrainFlags) => boolean;

/** How the range was written. */
export function rangeText({ min, max }: NodeRange): string {
  return min === max ? `${min}` : `${min}:${max}`;
}

function refuse(message: string, remedy: string): never {
  throw new LockstepError('E_USAGE', message, { remedy });
}

/** Throws E_USAGE where other flags contradict those of nodes. */
function refuseBoth(flags: TrainFlags, isGiven: IsGiven): void {
  const nodes = [
    ...(flags.nnodes === undefined ? [] : [`--nnodes ${rangeText(flags.nnodes)}`]),
    ...(flags.nprocPerNode === undefined ? [] : [`--nproc-per-node ${flags.nprocPerNode}`]),
  ];
  if (nodes.length === 0) return;
  const counts = { workers: '--workers', minWorkers: '--min-workers', maxWorkers: '--max-workers' } as const;
  for (const [key, flag] of Object.entries(counts) as [keyof typeof counts, string][]) {
    // How many are needed and used is another matter than how many there are.
    if (!isGiven(key) || (key !== 'workers' && flags.nnodes === undefined)) continue;
    refuse(
      `${nodes.join(' ')} and ${flag} ${flags[key]} both say how many workers there are`,
      'Leave one of them out.',
    );
  }
}

/** For `train`, on one machine. Throws E_USAGE. */
export function nodesOfOneMachine(flags: TrainFlags, isGiven: IsGiven): TrainFlags {
  refuseBoth(flags, isGiven);
  const { nnodes, nprocPerNode } = flags;
  if (nnodes !== undefined && nnodes.min > 1) {
    refuse(
      `--nnodes ${rangeText(nnodes)}: \`lockstep train\` is on one machine`,
      'Use `lockstep launch -H HOST1,HOST2 JOB`, or `lockstep coordinator` and `lockstep worker`.',
    );
  }
  return typeof nprocPerNode === 'number' ? { ...flags, workers: nprocPerNode } : flags;
}

/** For a coordinator whose workers are started elsewhere. Throws E_USAGE. */
export function nodesOfCoordinator(flags: TrainFlags, isGiven: IsGiven): TrainFlags {
  refuseBoth(flags, isGiven);
  const { nnodes, nprocPerNode } = flags;
  if (nnodes === undefined && nprocPerNode === undefined) return flags;
  if (nprocPerNode === 'auto' || nprocPerNode === undefined) {
    refuse(
      `--nnodes ${nnodes === undefined ? '1' : rangeText(nnodes)}: a coordinator does not know how many workers a machine has`,
      'Give --nproc-per-node N, the number that each machine starts.',
    );
  }
  const { min, max } = nnodes ?? { min: 1, max: 1 };
  const most = max * nprocPerNode;
  if (most > MAX_WORKERS) {
    refuse(
      `--nnodes ${rangeText({ min, max })} --nproc-per-node ${nprocPerNode} are ${most} workers`,
      `There may be ${MAX_WORKERS}.`,
    );
  }
  // No more than the microbatches ever compute at a time, so no more are ever needed.
  const needed = Math.min(min * nprocPerNode, MAX_MICROBATCHES);
  return {
    ...flags,
    workers: min * nprocPerNode,
    ...(nnodes !== undefined && { minWorkers: needed, maxWorkers: most }),
  };
}

/** For `launch`: what its hosts have is known when they answer. Throws E_USAGE. */
export function nodesOfLaunch(flags: TrainFlags, isGiven: IsGiven): TrainFlags {
  refuseBoth(flags, isGiven);
  if (isGiven('workers')) {
    refuse(
      `--workers ${flags.workers}: a launch has as many as its hosts have slots`,
      'Give slots, -H HOST:SLOTS, or --nproc-per-node N.',
    );
  }
  return flags;
}
