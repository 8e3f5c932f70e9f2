// After which steps the weights are evaluated, and the state is kept: one rule, by which workers send what coordinators wait for.

import { stepsPerEpoch, type BatchPlan } from './batch-plan.ts';

export interface Milestones {
  readonly plan: BatchPlan;
  /** Of the whole run. */
  readonly steps: number;
  /** 0: at the ends of epochs only. */
  readonly checkpointEverySteps: number;
}

/** At the end of an epoch, and of the run. `step`: steps done. */
export function isEvaluatedAfter({ plan, steps }: Omit<Milestones, 'checkpointEverySteps'>, step: number): boolean {
  return step > 0 && (step % stepsPerEpoch(plan) === 0 || step === steps);
}

/** Where it is evaluated, and each so many steps besides. */
export function isKeptAfter(milestones: Milestones, step: number): boolean {
  const every = milestones.checkpointEverySteps;
  return isEvaluatedAfter(milestones, step) || (step > 0 && every > 0 && step % every === 0);
}
