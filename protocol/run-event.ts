// What happens in a run that people and records are told of: each is shown by the terminal, logged as structured text and,
// where it matters for the record, journalled. Values only; who shows them decides how.

import type { z } from 'zod';
import type { engineInfoSchema, PhaseSeconds } from './messages.ts';
import type { EpochReport, RunReport } from './report.ts';

/** What is known of a failure: the first error observed, and where. */
export interface RootCause {
  /** Worker id, or `coordinator`. */
  readonly who: string;
  readonly rank: number | null;
  readonly host: string;
  readonly pid: number | null;
  /** Exit code or signal, when the launcher saw the process end. */
  readonly exitCode: number | null;
  readonly signal: string | null;
  /** The first error: its code and sentence. */
  readonly code: string | null;
  readonly message: string;
  /** The last lines that it wrote. */
  readonly lastLines: readonly string[];
  readonly logFile: string | null;
}

export type RunEvent =
  | { readonly kind: 'listening'; readonly url: string }
  | { readonly kind: 'resumed'; readonly step: number; readonly from: string }
  | { readonly kind: 'warning'; readonly message: string }
  | {
      readonly kind: 'worker-joined';
      readonly worker: string;
      readonly host: string;
      readonly pid: number;
    }
  | {
      readonly kind: 'worker-ready';
      readonly worker: string;
      readonly engine: z.infer<typeof engineInfoSchema>;
      readonly fingerprint: string;
    }
  | {
      readonly kind: 'worker-refused';
      readonly worker: string;
      readonly code: string;
      readonly because: string;
    }
  | {
      readonly kind: 'generation';
      readonly generation: number;
      readonly worldSize: number;
      readonly spares: number;
      readonly because: string;
    }
  /** There are too few workers to train. */
  | { readonly kind: 'waiting'; readonly because: string }
  | { readonly kind: 'worker-lost'; readonly cause: RootCause }
  | {
      readonly kind: 'step';
      /** Steps done. */
      readonly step: number;
      /** That its members were in when they did it. */
      readonly generation: number;
      readonly loss: number;
      readonly accuracy: number;
      readonly gradientNorm: number;
      readonly samples: number;
      readonly seconds: number;
      readonly phases: PhaseSeconds;
    }
  | { readonly kind: 'epoch'; readonly report: EpochReport; readonly epochs: number }
  | {
      readonly kind: 'checkpoint';
      readonly step: number;
      readonly directory: string;
      readonly seconds: number;
    }
  /** Bits that must be equal are not: of the members' weights after a step, or of a microbatch that two computed. */
  | {
      readonly kind: 'mismatch';
      readonly what: 'weights' | 'microbatch';
      readonly step: number;
      /** Who deviates, as far as that can be told. */
      readonly workers: readonly string[];
      readonly because: string;
    }
  | { readonly kind: 'stopping'; readonly because: string }
  | { readonly kind: 'failed'; readonly cause: RootCause }
  | { readonly kind: 'finished'; readonly report: RunReport; readonly runDirectory: string };
