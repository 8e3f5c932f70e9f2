// Evaluations that are not whole yet: each member tells of its chunks of the test set (worker/data/evaluation-chunks.ts), and the digest of
// the weights that it used. One is whole when everybody who has a part of it has told it.

import type { EvaluationReport } from './progress.ts';

export interface WholeEvaluation {
  readonly step: number;
  readonly digest: string;
  readonly chunks: EvaluationReport['chunks'];
}

export interface Evaluators {
  /** Members of the generation that began last; none before this coordinator's first. */
  readonly members: readonly string[];
  readonly testSamples: number;
  /** How many were together with a worker that is back; undefined where it is a newcomer. */
  readonly togetherWith: (worker: string) => number | undefined;
}

export class Evaluations {
  /** The last step whose evaluation is whole. */
  step: number;
  /** By step, then by worker. */
  private readonly reports = new Map<number, Map<string, EvaluationReport>>();

  constructor(step: number) {
    this.step = step;
  }

  /** Takes a member's part; returns the digest of the weights that another one used, where that differs. */
  accept(worker: string, report: EvaluationReport): string | null {
    const known = this.reports.get(report.step) ?? new Map<string, EvaluationReport>();
    const [first] = known.values();
    if (first !== undefined && first.digest !== report.digest) return first.digest;
    this.reports.set(report.step, known.set(worker, report));
    return null;
  }

  /** The first one that is whole and not after `step`; it is forgotten by that. */
  nextWhole(step: number, evaluators: Evaluators): WholeEvaluation | null {
    const steps = [...this.reports.keys()].filter((known) => known <= step).toSorted((a, b) => a - b);
    for (const known of steps) {
      const reports = this.reports.get(known) ?? new Map<string, EvaluationReport>();
      const [first] = reports.values();
      // A piece that two have evaluated counts once: it has the same bits.
      const all = [...reports.values()].flatMap(({ chunks }) => chunks);
      const chunks = [...new Map(all.map((chunk) => [chunk.index, chunk])).values()];
      if (first === undefined || !isWhole(reports, chunks, evaluators)) continue;
      this.reports.delete(known);
      this.step = known;
      return { step: known, digest: first.digest, chunks };
    }
    return null;
  }

  /** Another generation has other parts. */
  clear(): void {
    this.reports.clear();
  }
}

/** Who has a part this coordinator does not know before its first generation. */
function isWhole(
  reports: ReadonlyMap<string, EvaluationReport>,
  chunks: EvaluationReport['chunks'],
  { members, testSamples, togetherWith }: Evaluators,
): boolean {
  if (members.length > 0) return members.every((id) => reports.has(id));
  if (testSamples === 0) {
    const [id = ''] = reports.keys();
    return reports.size === togetherWith(id);
  }
  return chunks.reduce((sum, { samples }) => sum + samples, 0) === testSamples;
}
