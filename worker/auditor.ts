// Computes microbatches of another rank again, into memory of its own, so that the coordinator can compare the bits (coordinator/core/
// audits.ts). It rides on the step: after this rank's own share and before its sum, while all hold the same weights.
//
// Cost: one gradient for each audited microbatch, and a vector. Its owner waits with sending until the digest is made.

import { auditedRank, isAudited } from '../protocol/audit-plan.ts';
import type { AuditFinding } from '../protocol/messages.ts';
import { digestOf } from './engine/digest.ts';
import { contributionOf } from './engine/engine.ts';
import type { TrainingContext } from './train.ts';

export interface Auditor {
  readonly rate: number;
  /** What it gets for the audited microbatches of the rank that it audits, in the step after `step` steps. */
  recompute(step: number, at: { readonly epoch: number; readonly batch: number }): Promise<AuditFinding[]>;
}

/** Null where nothing is audited, or nobody else is there. */
export function auditorOf(
  context: Pick<TrainingContext, 'audit' | 'plan' | 'engine' | 'shares'> & {
    readonly collective: Pick<TrainingContext['collective'], 'rank' | 'worldSize'>;
  },
): Auditor | null {
  const { audit, plan, engine, collective, shares } = context;
  const { worldSize } = collective;
  const rank = auditedRank(collective.rank, worldSize);
  if (audit === null || rank === null) return null;
  const { rate, loader } = audit;
  const theirs = shares[rank] ?? [];
  const vector = new Float32Array(contributionOf(engine.layout).size);
  return {
    rate,
    recompute: async (step, at) => {
      const findings: AuditFinding[] = [];
      for (const microbatch of theirs) {
        if (!isAudited(plan.seed, rate, step, microbatch)) continue;
        const data = await loader.load({ ...at, microbatch });
        if (data.size === 0) continue;
        await engine.gradient({ ...data, random: { seed: plan.seed, step, microbatch } }, vector);
        findings.push({ microbatch, digest: digestOf(vector), as: 'auditor' });
      }
      return findings;
    },
  };
}
