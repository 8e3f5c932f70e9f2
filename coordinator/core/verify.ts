// `lockstep verify`: whether a run's files tell one story. Pure: what was read from the run directory in, the account of the run and all
// that is wrong with it out. What can't be known any more (a coordinator that was killed wrote up to a second less than was done) is
// a note, not a finding.

import { stepsPerEpoch } from '../../protocol/batch-plan.ts';
import { findingsIn, placeText, type Finding } from './finding.ts';
import { readHistory, type DigestClaim, type History, type JournalLine } from './history.ts';
import { countSamples, samplesOfStep, type EpochCount, type WorkerCount } from './sample-count.ts';

export interface MetricsLine {
  readonly line: number;
  readonly step: number;
  readonly samples: number;
  /** Null: not a finite number. */
  readonly loss: number | null;
  readonly accuracy: number | null;
  readonly gradientNorm: number | null;
}

export interface RecordedRun {
  readonly journal: readonly JournalLine[];
  readonly metrics: readonly MetricsLine[];
  /** Those that are whole: every file's hash was compared. */
  readonly checkpoints: readonly { readonly step: number; readonly digest: string; readonly file: string }[];
  readonly report: {
    readonly state: string;
    readonly steps: number;
    readonly digest: string | null;
    /** Of the weights of that digest; without it, `steps`. */
    readonly digestStep?: number | null | undefined;
    readonly finalLoss: number | null;
    readonly reproducible: boolean;
  } | null;
  /** Of the exported model's weights, all shards together; null: there is none. */
  readonly modelDigest: string | null;
  /** A coordinator holds the directory: the record grows while it is read. */
  readonly isUnderWay: boolean;
  /** What was wrong in reading. */
  readonly findings: readonly Finding[];
  readonly notes: readonly string[];
}

export interface RunAccount {
  readonly history: History;
  readonly epochs: readonly EpochCount[];
  readonly workers: readonly WorkerCount[];
  /** Places that name a digest. */
  readonly claims: number;
  /** By step, what the first of them says. */
  readonly digests: ReadonlyMap<number, DigestClaim>;
  readonly checkpoints: readonly number[];
  /** The step after which the exported weights are those of the model; null: no model, or not known. */
  readonly modelStep: number | null;
  readonly notes: readonly string[];
  readonly findings: readonly Finding[];
}

export const METRICS_FILE = 'metrics.jsonl';
export const REPORT_FILE = 'report.json';
export const MODEL_FILE = 'model/model.json';

export function verifyRun(run: RecordedRun): RunAccount {
  const { history, findings: inJournal } = readHistory(run.journal);
  const samples = countSamples(history);
  const notes = [...run.notes];
  const findings = [...run.findings, ...inJournal, ...samples.findings];
  // A coordinator that was killed, or is at work, has more to tell than it has written.
  const isOpen = history.end === null;
  if (run.isUnderWay) notes.push('the run is under way: this is the record up to now');
  else if (isOpen) notes.push('its last coordinator ended without a word: up to a second of its record may be missing');
  if (history.untold.size > 0) {
    const steps = [...history.untold];
    const which = steps.length === 1 ? `step ${steps[0]}` : `${steps.length} steps up to ${Math.max(...steps)}`;
    notes.push(`${which}: done, but on no record: it was lost with the coordinator and those who did them`);
  }
  findings.push(...epochsMissing(history, isOpen, notes));
  findings.push(...metricsWrong(run, history, isOpen, notes));
  const checkpoints = run.checkpoints.filter(({ step, file }) => {
    if (step <= history.steps) return true;
    const message = `it is of step ${step}, and the record knows ${history.steps} steps`;
    if (run.isUnderWay) notes.push(`${file}: ${message}`);
    else findings.push({ code: 'E_RECORD_STEPS', file, line: null, message });
    return false;
  });
  const claims = [...history.claims, ...checkpoints.map((c): DigestClaim => ({ ...c, line: null }))];
  const known = digestsOf(claims, (run.report?.reproducible ?? true) && !history.isDistrusted, findings);
  findings.push(...reportWrong(run, history, known, notes));
  const modelStep = modelStepOf(run, history, known, findings);
  return {
    history,
    epochs: samples.epochs,
    workers: samples.workers,
    claims: claims.length,
    digests: known,
    checkpoints: checkpoints.map(({ step }) => step),
    modelStep,
    notes,
    findings,
  };
}

/**
 * Every epoch that was trained through has its record. The last one's may still be due; and those that ended while there was no coordinator,
 * or somebody was lost, may have none, as nobody heard their evaluation.
 */
function epochsMissing(history: History, isOpen: boolean, notes: string[]): Finding[] {
  const findings: Finding[] = [];
  if (history.plan === null) return findings;
  const perEpoch = stepsPerEpoch(history.plan);
  const done = Math.floor(history.steps / perEpoch);
  const ends = new Map(history.commits.map((commit) => [commit.step, commit]));
  const lastGeneration = Math.max(0, ...history.generations.keys());
  let unheard = 0;
  for (let epoch = 1; epoch <= done; epoch++) {
    // A run that stops when nobody is left has nobody who could evaluate, either.
    const mayBeDue = epoch === done && (isOpen || history.end !== 'finished');
    if (history.epochs.has(epoch) || mayBeDue) continue;
    const end = ends.get(epoch * perEpoch);
    // Who is lost before it has told its part, takes it along: the others are past that step.
    if (
      end?.isToldAgain === true ||
      (end !== undefined && ((end.generation ?? 0) < lastGeneration || history.lost > 0))
    ) {
      unheard++;
      continue;
    }
    const message = `the end of epoch ${epoch}, after step ${epoch * perEpoch}, is not on record`;
    findings.push({ code: 'E_RECORD_STEPS', file: 'journal.jsonl', line: end?.line ?? null, message });
  }
  if (unheard > 0) {
    const count = unheard === 1 ? '1 epoch' : `${unheard} epochs`;
    notes.push(`${count} ended while a worker or the coordinator was lost, whose evaluation nobody heard`);
  }
  return findings;
}

/** A line a step, in order, of as many samples as the plan has for it. */
function metricsWrong(run: RecordedRun, history: History, isOpen: boolean, notes: string[]): Finding[] {
  const findings: Finding[] = [];
  const report = findingsIn(METRICS_FILE, findings);
  let last = 0;
  for (const { line, step, samples } of run.metrics) {
    while (history.untold.has(last + 1) && last + 1 < step) last++;
    if (step !== last + 1) report('E_RECORD_STEPS', line, `step ${step} follows step ${last}`);
    last = Math.max(last, step);
    const due = history.plan === null ? samples : samplesOfStep(history.plan, step);
    if (samples !== due) report('E_RECORD_SAMPLES', line, `step ${step} has ${samples} samples, not ${due}`);
  }
  while (history.untold.has(last + 1)) last++;
  if (last === history.steps) return findings;
  const message = `it has ${last} steps, and journal.jsonl ${history.steps}`;
  if (isOpen) notes.push(`${METRICS_FILE}: ${message}`);
  else report('E_RECORD_STEPS', run.metrics.at(-1)?.line ?? null, message);
  return findings;
}

/** By step: what all places agree on. Those that disagree with the first are findings. */
function digestsOf(
  claims: readonly DigestClaim[],
  isReproducible: boolean,
  findings: Finding[],
): Map<number, DigestClaim> {
  const known = new Map<number, DigestClaim>();
  for (const claim of claims) {
    const first = known.get(claim.step);
    // With engines that compute other bits a step that is done anew may come to others; the newest counts.
    if (first === undefined || (!isReproducible && claim.line !== null)) known.set(claim.step, claim);
    else if (first.digest !== claim.digest) {
      const message = `the weights after step ${claim.step} have the digest ${claim.digest.slice(0, 16)}, and ${first.digest.slice(0, 16)} in ${placeText(first)}`;
      findings.push({ code: 'E_RECORD_DIGEST', file: claim.file, line: claim.line, message });
    }
  }
  return known;
}

/** The report is of the last part's end. */
function reportWrong(
  run: RecordedRun,
  history: History,
  known: ReadonlyMap<number, DigestClaim>,
  notes: string[],
): Finding[] {
  const findings: Finding[] = [];
  const { report } = run;
  if (history.end === null) return findings;
  if (report === null) {
    notes.push('there is no report.json');
    return findings;
  }
  const tell = findingsIn(REPORT_FILE, findings);
  const state = history.end === 'finished' ? 'done' : history.end;
  if (report.state !== state) tell('E_RECORD_STEPS', null, `it says "${report.state}", and the journal "${state}"`);
  if (report.steps !== history.steps)
    tell('E_RECORD_STEPS', null, `it has ${report.steps} steps, and the journal ${history.steps}`);
  const digest = known.get(report.digestStep ?? history.steps);
  // One that failed, or was stopped before its first step, has none, or that of an earlier step.
  const hasDigest = history.end === 'finished' || (history.end === 'stopped' && report.digest !== null);
  if (hasDigest && digest !== undefined && report.digest !== digest.digest)
    tell(
      'E_RECORD_DIGEST',
      null,
      `its digest is ${report.digest?.slice(0, 16) ?? 'none'}, and ${digest.digest.slice(0, 16)} in ${placeText(digest)}`,
    );
  const last = run.metrics.at(-1);
  if (last !== undefined && last.step === history.steps && !Object.is(report.finalLoss, last.loss))
    tell(
      'E_RECORD_DIGEST',
      null,
      `its final loss is ${report.finalLoss}, and ${last.loss} in ${METRICS_FILE}:${last.line}`,
    );
  return findings;
}

function modelStepOf(
  run: RecordedRun,
  history: History,
  known: ReadonlyMap<number, DigestClaim>,
  findings: Finding[],
): number | null {
  const { modelDigest } = run;
  if (modelDigest === null) return null;
  const found = [...known.values()].find(({ digest }) => digest === modelDigest);
  const due = history.end === 'finished' ? known.get(history.steps) : undefined;
  if (found !== undefined && (due === undefined || due.digest === modelDigest)) return found.step;
  const instead =
    due === undefined ? 'no step on record has it' : `${due.digest.slice(0, 16)} is that of ${placeText(due)}`;
  const message = `its weights have the digest ${modelDigest.slice(0, 16)}; ${instead}`;
  findings.push({ code: 'E_RECORD_DIGEST', file: MODEL_FILE, line: null, message });
  return null;
}
