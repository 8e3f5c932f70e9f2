import { describe, expect, it } from 'vitest';
import { CheckpointUploads } from '../../../coordinator/nats/checkpoint-store.ts';

describe('checkpoints on their way to the object store', () => {
  it('go one at a time, and of those that come meanwhile the newest; a failure is told and stops none', async () => {
    const sent: number[] = [];
    const ends: unknown[] = [];
    const finish: (() => void)[] = [];
    const uploads = new CheckpointUploads(
      async (step) => {
        sent.push(step);
        await new Promise<void>((resolve) => {
          finish.push(resolve);
        });
        if (step === 8) throw new Error('no room');
      },
      (failure) => ends.push(failure),
    );
    uploads.add(4);
    for (const step of [5, 6, 8]) uploads.add(step);
    expect(sent).toEqual([4]);
    finish.shift()?.();
    await expect.poll(() => sent).toEqual([4, 8]);
    uploads.add(9);
    finish.shift()?.();
    await expect.poll(() => sent).toEqual([4, 8, 9]);
    finish.shift()?.();
    await uploads.settled();
    expect(ends).toEqual([null, new Error('no room'), null]);
    uploads.add(10);
    expect(sent).toEqual([4, 8, 9, 10]);
    finish.shift()?.();
    await uploads.settled();
  });
});
