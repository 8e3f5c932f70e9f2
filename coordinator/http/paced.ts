// An answer that is made so often and no oftener, however many ask: who asks sooner waits for the next one, and all who wait get the same.
// An observer that asks again as soon as it is answered, or a hundred of them, cost the coordinator no more than one that asks at
// that pace; without it a scraper in a loop takes a core from the training.

/** `make` at most once each `everyMs`. The first after a pause is made at once. */
export function paced<T>(make: () => T | Promise<T>, everyMs: number): () => Promise<T> {
  let madeAtMs = -Infinity;
  let next: Promise<T> | null = null;
  const now = async (): Promise<T> => {
    madeAtMs = performance.now();
    return make();
  };
  const later = async (waitMs: number): Promise<T> => {
    await new Promise((resolve) => {
      setTimeout(resolve, waitMs);
    });
    next = null;
    return now();
  };
  return async () => {
    if (next !== null) return next;
    const waitMs = madeAtMs + everyMs - performance.now();
    if (waitMs <= 0) return now();
    next = later(waitMs);
    return next;
  };
}
