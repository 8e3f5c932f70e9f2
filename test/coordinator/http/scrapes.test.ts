import { describe, expect, it } from 'vitest';
import { LAST_SCRAPE_MAX_MS, Scrapes } from '../../../coordinator/http/scrapes.ts';

const after = (...times: number[]): Scrapes => {
  const scrapes = new Scrapes();
  for (const at of times) scrapes.answered(at);
  return scrapes;
};

describe('how long a run that is over waits to be scraped once more', () => {
  it('half as long again as it took until now', () => {
    expect(after(0, 4000).patienceMs(5000)).toBe(5000);
    expect(after(0, 9000, 10_000).patienceMs(10_100)).toBe(1400);
  });

  it.each([
    ['when nobody asked', after(), 0],
    ['when somebody asked once', after(1000), 1001],
    ['when the next one is late', after(0, 1000), 2600],
  ])('not at all %s', (_case, scrapes, nowMs) => {
    expect(scrapes.patienceMs(nowMs)).toBe(0);
  });

  it('never longer than the limit', () => {
    expect(after(0, 600_000).patienceMs(600_000)).toBe(LAST_SCRAPE_MAX_MS);
  });

  it('until the next answer has left', async () => {
    const scrapes = after(0, 10_000);
    let isOver = false;
    const waiting = scrapes.oneMore(10_000).then(() => {
      isOver = true;
    });
    await new Promise(setImmediate);
    expect(isOver).toBe(false);
    scrapes.answered(11_000);
    await waiting;
  });

  it('not for somebody in a hurry', async () => {
    const scrapes = after(0, 10_000);
    const waiting = scrapes.oneMore(10_000);
    scrapes.hurry();
    await expect(waiting).resolves.toBe(undefined);
  });

  it('no longer than that when nobody comes', async () => {
    await expect(after(0, 10).oneMore(20)).resolves.toBe(undefined);
  });
});
