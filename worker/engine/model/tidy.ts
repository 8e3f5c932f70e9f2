import type { Tf } from '../../../jobs/contract.ts';

/** `tf.tidy` for a body that returns something else than tensors: all tensors that it made are gone afterwards. */
export function tidily<T>(tf: Tf, body: () => T): T {
  const results: T[] = [];
  tf.tidy(() => {
    results.push(body());
  });
  return results[0] as T;
}
