// What is wrong with a run's record: where, what, and a code that programs match on.

import type { ErrorCode } from '../../protocol/errors.ts';

export type FindingCode = Extract<ErrorCode, `E_RECORD_${string}` | 'E_CHECKPOINT_CORRUPT'>;

export interface Finding {
  readonly code: FindingCode;
  /** Relative to the run directory. */
  readonly file: string;
  /** From 1; null for a file without lines. */
  readonly line: number | null;
  readonly message: string;
}

export type Report = (code: FindingCode, line: number | null, message: string) => void;

/** Collects what is wrong with one file. */
export function findingsIn(file: string, findings: Finding[]): Report {
  return (code, line, message) => findings.push({ code, file, line, message });
}

/** `journal.jsonl:7`. */
export function placeText({ file, line }: Pick<Finding, 'file' | 'line'>): string {
  return line === null ? file : `${file}:${line}`;
}
