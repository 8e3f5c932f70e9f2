// `lockstep status --watch`, with a clock and a coordinator of the test's.

import { expect, it } from 'vitest';
import { watched } from '../../deploy/status.ts';
import { LockstepError } from '../../protocol/errors.ts';
import type { RunView } from '../../protocol/run-view.ts';
import { view } from './terminal/a-run.ts';

const AWAY = new LockstepError('E_COORDINATOR_LOST', 'no answer');

/** What is shown, as step and milliseconds without an answer, of answers that come a second apart; then nobody answers. */
async function watch(...answers: (RunView | LockstepError)[]): Promise<{ shown: [number, number][]; last: RunView }> {
  let ms = 0;
  const shown: [number, number][] = [];
  const last = await watched({
    ask: async () => {
      const answer = answers.shift() ?? AWAY;
      if (answer instanceof Error) throw answer;
      return answer;
    },
    show: (seen, awayMs) => shown.push([seen.step, awayMs]),
    pause: async () => void (ms += 1000),
    now: () => ms,
  });
  return { shown, last };
}

it('shows each answer, and for how long there has been none, through a coordinator’s restart', async () => {
  const { shown, last } = await watch(
    view({ step: 1 }),
    AWAY,
    AWAY,
    view({ step: 9 }),
    view({ step: 10, phase: 'done' }),
  );
  expect(shown).toEqual([
    [1, 0],
    [1, 1000],
    [1, 2000],
    [9, 0],
    [10, 0],
  ]);
  expect(last.phase).toBe('done');
});

it('ends with what was seen last when nobody has answered for 20 seconds', async () => {
  const { shown, last } = await watch(view({ step: 1 }), view({ step: 2 }));
  expect(shown.at(-1)).toEqual([2, 20_000]);
  expect(last.step).toBe(2);
});

it('fails when nobody answers the first time, and for what is no silence', async () => {
  await expect(watch()).rejects.toBe(AWAY);
});
