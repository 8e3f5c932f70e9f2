import { JetStreamApiError } from '@nats-io/jetstream';
import { errors } from '@nats-io/transport-node';
import { describe, expect, it } from 'vitest';
import { patiently } from '../../nats/patience.ts';

const refusal = (err_code: number): JetStreamApiError =>
  new JetStreamApiError({ code: 503, err_code, description: 'as the server says it' });

/** Fails by `failures`, one after the other, then comes to 7. */
function flaky(...failures: readonly Error[]): { attempt: () => Promise<number>; attempts: () => number } {
  let attempts = 0;
  return {
    attempt: () => {
      const failure = failures[attempts++];
      return failure === undefined ? Promise.resolve(7) : Promise.reject(failure);
    },
    attempts: () => attempts,
  };
}

describe('what is asked of JetStream', () => {
  it('is asked again while nobody answers, or there is no leader', async () => {
    const { attempt, attempts } = flaky(new errors.TimeoutError(), refusal(10_008));
    expect([await patiently(attempt), attempts()]).toEqual([7, 3]);
  });

  // A full store, a stream that other limits forbid, another value there, an account without JetStream: all of them come with status 503.
  it.each([10_077, 10_023, 10_071, 10_039])('is not asked again when it is refused by %i', async (code) => {
    const { attempt, attempts } = flaky(refusal(code));
    await expect(patiently(attempt)).rejects.toMatchObject({ code });
    expect(attempts()).toBe(1);
  });

  it('is asked no longer than the limit, and not when nobody wants it any more', async () => {
    const always = (): Promise<number> => Promise.reject(new errors.TimeoutError());
    await expect(patiently(always, () => false, 0)).rejects.toThrow(errors.TimeoutError);
    await expect(patiently(always, () => true)).rejects.toThrow(errors.TimeoutError);
  });
});
