// Why a worker is gone. Its process's exit, reported by the launcher, and its own last error are put together into one account; errors
// that only follow from another's death are consequences.

import type { RootCause } from '../../protocol/run-event.ts';

/** How long to wait, after the first sign of a failure, for the rest of its story. */
export const FAILURE_GRACE_MS = 1500;

export interface ProcessEnd {
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly lastLines: readonly string[];
  readonly logFile: string | null;
}

interface Suspect {
  readonly who: string;
  rank: number | null;
  host: string;
  pid: number | null;
  /** Its own account; a lost link when it gave none. */
  code: string | null;
  message: string | null;
  end: ProcessEnd | null;
}

const CONSEQUENCES: ReadonlySet<string> = new Set(['E_PEER_LOST', 'E_COORDINATOR_LOST']);

/** Of the job, the data, the set-up or the command line: another attempt would meet the same. */
const INHERENT: ReadonlySet<string> = new Set([
  'E_NOT_FINITE',
  'E_TRACE',
  'E_JOB_NOT_FOUND',
  'E_JOB_INVALID',
  'E_JOB_CHANGED',
  'E_DATA_CORRUPT',
  'E_ENGINE_UNAVAILABLE',
  'E_NOT_SUPPORTED',
  'E_FINGERPRINT',
  'E_USAGE',
  'E_HASH',
  'E_TLS',
  'E_UNAUTHORIZED',
  'E_LISTEN',
  'E_PORT_IN_USE',
]);

export function isConsequence(code: string): boolean {
  return CONSEQUENCES.has(code);
}

/** True where going on with other workers, or with the same one started anew, would lead to the same error. */
export function isInherent(code: string): boolean {
  return INHERENT.has(code);
}

export class FailureInquiry {
  private readonly suspects: Suspect[] = [];
  private readonly openedAtMs: number;
  private readonly supervised: boolean;

  /** `supervised`: a launcher will report how the process ended. */
  constructor(nowMs: number, supervised: boolean) {
    this.openedAtMs = nowMs;
    this.supervised = supervised;
  }

  private suspect(who: string, place: { rank: number | null; host: string; pid: number | null }): Suspect {
    const known = this.suspects.find((s) => s.who === who);
    if (known !== undefined) return known;
    const added: Suspect = { who, ...place, code: null, message: null, end: null };
    this.suspects.push(added);
    return added;
  }

  /** A worker told its own error, or was refused for it. */
  error(
    who: string,
    place: { rank: number | null; host: string; pid: number | null },
    code: string,
    message: string,
  ): void {
    const suspect = this.suspect(who, place);
    suspect.code ??= code;
    suspect.message ??= message;
  }

  linkLost(who: string, place: { rank: number | null; host: string; pid: number | null }): void {
    this.suspect(who, place);
  }

  processEnded(who: string, place: { rank: number | null; host: string; pid: number | null }, end: ProcessEnd): void {
    this.suspect(who, place).end ??= end;
  }

  private culprit(): Suspect | undefined {
    const direct = this.suspects.filter((s) => s.code === null || !CONSEQUENCES.has(s.code));
    // A process that ended by a signal or with an error of its own is a better account than a link that merely closed.
    return direct.find((s) => s.code !== null) ?? direct.find((s) => s.end !== null) ?? direct[0] ?? this.suspects[0];
  }

  /** The root cause when its story is whole or the time for it is over; null while it pays to wait. */
  conclude(nowMs: number): RootCause | null {
    const suspect = this.culprit();
    if (suspect === undefined) return null;
    const consequence = suspect.code !== null && CONSEQUENCES.has(suspect.code);
    const whole = !consequence && (suspect.end !== null || (!this.supervised && suspect.code !== null));
    if (!whole && nowMs - this.openedAtMs < FAILURE_GRACE_MS) return null;
    return {
      who: suspect.who,
      rank: suspect.rank,
      host: suspect.host,
      pid: suspect.pid,
      exitCode: suspect.end?.exitCode ?? null,
      signal: suspect.end?.signal ?? null,
      code: suspect.code,
      message: suspect.message ?? describeEnd(suspect.end),
      lastLines: suspect.end?.lastLines ?? [],
      logFile: suspect.end?.logFile ?? null,
    };
  }
}

function describeEnd(end: ProcessEnd | null): string {
  if (end === null) return 'its link to the coordinator closed';
  if (end.signal !== null) return `killed by ${end.signal}`;
  return `exited with code ${end.exitCode} without saying why`;
}
