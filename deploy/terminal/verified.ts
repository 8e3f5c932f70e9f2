// What `lockstep verify` says of a run: the account, then each thing that is wrong. Pure.

import type { Finding, RunAccount } from '../../coordinator/main.ts';
import { placeText } from '../../coordinator/main.ts';
import { counted, grouped, wrapped, type Style } from './text.ts';

const NAME_WIDTH = 15;
/** Generations, epochs and workers shown one by one; of more only the last are. */
const SHOWN_MOST = 12;

export function accountText(directory: string, account: RunAccount, style: Pick<Style, 'width'>): string {
  const { history, epochs, workers, digests, checkpoints, findings } = account;
  const rows: string[] = [];
  const say = (name: string, value: string): void => {
    for (const [i, row] of wrapped(value, Math.max(20, style.width - 2 - NAME_WIDTH)).entries())
      rows.push(`  ${(i === 0 ? name : '').padEnd(NAME_WIDTH)}${row}`);
  };
  const list = (name: string, values: readonly string[]): void => {
    if (values.length > SHOWN_MOST) say(name, `${grouped(values.length - SHOWN_MOST)} before these`);
    for (const [i, value] of values.slice(-SHOWN_MOST).entries())
      say(i === 0 && values.length <= SHOWN_MOST ? name : '', value);
  };
  const steps = history.config?.steps ?? history.steps;
  const redone = history.redone === 0 ? '' : `; ${counted(history.redone, 'step')} done anew after a resume`;
  const end = history.end ?? 'not on record';
  say('end', `${end}, after ${grouped(history.steps)} of ${counted(steps, 'step')}`);
  if (history.lost > 0) say('lost', counted(history.lost, 'worker'));
  say('begun', `${history.parts === 1 ? 'once' : `${history.parts} times`}${redone}`);
  const committed = new Map<number, number>();
  for (const { generation } of history.commits)
    if (generation !== null) committed.set(generation, (committed.get(generation) ?? 0) + 1);
  list(
    'generations',
    [...history.generations].map(
      ([generation, { members }]) =>
        `${generation}: ${counted(committed.get(generation) ?? 0, 'step')} by ${members.join(', ')}`,
    ),
  );
  const isOnce = !findings.some(({ code }) => code === 'E_RECORD_SAMPLES');
  const all = history.plan?.samples ?? 0;
  list(
    'epochs',
    epochs.map(
      ({ epoch, samples }) =>
        `${epoch}: ${grouped(samples)} of ${counted(all, 'sample')}${isOnce ? ', each of them once' : ''}`,
    ),
  );
  list(
    'workers',
    workers.map(
      ({ worker, microbatches, samples }) =>
        `${worker}: ${counted(samples, 'sample')}, in ${grouped(microbatches)} microbatches`,
    ),
  );
  say('digests', `of ${counted(digests.size, 'step')}, in ${counted(account.claims, 'place')}`);
  say('checkpoints', checkpoints.length === 0 ? 'none' : `whole: after ${checkpoints.map(grouped).join(', ')}`);
  if (account.modelStep !== null) say('model', `the weights after step ${grouped(account.modelStep)}`);
  for (const note of account.notes) say('note', note);
  const verdict =
    findings.length === 0 ? 'the record holds together' : `${counted(findings.length, 'thing')} wrong with the record`;
  return [`${directory}: ${verdict}`, '', ...rows].join('\n');
}

/** One line for each, as errors are told: code, place, what. */
export function findingsText(findings: readonly Finding[]): string {
  return findings.map((finding) => `lockstep: ${finding.code}: ${placeText(finding)}: ${finding.message}\n`).join('');
}
