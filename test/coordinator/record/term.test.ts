// The numbers of a run's coordinators, in a real directory.

import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { claimTerm, successorIn } from '../../../coordinator/record/term.ts';
import { temporaryDirectory } from './temporary.ts';

const me = (pid: number): { host: string; pid: number } => ({ host: 'red', pid });

it('each claim is one above the last, which an older holder is told of, by whom; the newest stays', () => {
  const path = temporaryDirectory();
  expect(claimTerm(path, me(1))).toBe(1);
  expect(successorIn(path, 1)).toBeNull();
  expect(claimTerm(path, me(2))).toBe(2);
  expect(claimTerm(path, me(3))).toBe(3);
  expect(successorIn(path, 1)).toEqual({ term: 3, host: 'red', pid: 3 });
  expect(successorIn(path, 3)).toBeNull();
  expect(readdirSync(path)).toEqual(['.term-3']);
});

it('goes on above a term that is known of elsewhere', () => {
  expect(claimTerm(temporaryDirectory(), me(1), 6)).toBe(7);
});

it('a claim that nobody has signed yet counts; where there is nothing to be read there is nobody', () => {
  const path = temporaryDirectory();
  writeFileSync(join(path, '.term-9'), '');
  expect(successorIn(path, 8)).toEqual({ term: 9, host: 'unknown', pid: 0 });
  expect(claimTerm(path, me(1))).toBe(10);
  rmSync(path, { recursive: true });
  expect(successorIn(path, 1)).toBeNull();
});
