import { describe, expect, test } from 'vitest';
import { interleaved, lastCore, median, runsPerSecond, startMeasuring } from '../../bench/measure.ts';

describe('median', () => {
  test.each([
    [[3, 1, 2], 2],
    [[10, 9, 1, 2], 5.5],
    [[100, 20, 3], 20],
    [[7], 7],
  ])('of %j is %d', (values, middle) => {
    expect(median(values)).toBe(middle);
  });

  test('of nothing is not a number', () => {
    expect(median([])).toBeNaN();
  });

  test('leaves the values in their order', () => {
    const values = [3, 1, 2];
    median(values);
    expect(values).toEqual([3, 1, 2]);
  });
});

describe('interleaving', () => {
  test('each round holds everything once and starts one item later', () => {
    expect(interleaved(['a', 'b', 'c'], 4)).toEqual(['a', 'b', 'c', 'b', 'c', 'a', 'c', 'a', 'b', 'a', 'b', 'c']);
  });

  test('of nothing is nothing', () => {
    expect(interleaved([], 3)).toEqual([]);
  });
});

test.each([
  ['0-1', 1],
  ['3', 3],
  ['0,2-5', 5],
  [' 0-3,12\n', 12],
  ['', null],
  ['none', null],
])('the last core of %j is %j', (list, core) => {
  expect(lastCore(list)).toBe(core);
});

describe('a window', () => {
  test('counts whole runs until the time is over, and not the two before it', async () => {
    let now = 0;
    let runs = 0;
    const step = (): void => {
      runs += 1;
      now += runs <= 2 ? 5000 : 400;
    };
    // 400, 800, 1200 ms: the third run ends after a second.
    expect(await runsPerSecond(step, 1, () => now)).toBeCloseTo(2.5, 12);
    expect(runs).toBe(5);
  });

  test('holds at least one run, however long', async () => {
    let now = 0;
    const step = async (): Promise<void> => {
      now += 4000;
      await Promise.resolve();
    };
    expect(await runsPerSecond(step, 1, () => now)).toBe(0.25);
  });
});

describe('a measuring process', () => {
  const request = { work: 'step', batch: 64, microbatch: 16, seconds: 0.5 } as const;
  const child = (script: string): string[] => [process.execPath, '-e', script];

  test('greets, answers a line with a line, and its chatter is not an answer', async () => {
    const script = `
      console.log('Hello from a library');
      console.log(JSON.stringify({ about: process.env.LOCKSTEP_TEST }));
      require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
        const { batch, microbatch, seconds } = JSON.parse(line);
        console.log('busy');
        console.log(JSON.stringify({ rate: batch * 100 + microbatch + seconds }));
      });`;
    const measuring = await startMeasuring(child(script), { LOCKSTEP_TEST: 'a test' });
    if ('missing' in measuring) throw new Error(measuring.missing);
    expect(measuring.about).toBe('a test');
    expect(await measuring.rate(request)).toBe(6416.5);
    expect(await measuring.rate({ ...request, batch: 1 })).toBe(116.5);
    measuring.stop();
  });

  test('may say that it has nothing to measure', async () => {
    const script = `console.log('{"missing":"no such engine"}')`;
    expect(await startMeasuring(child(script), {})).toEqual({ missing: 'no such engine' });
  });

  test('that dies is an error with its last words', async () => {
    await expect(startMeasuring(child(`console.error('no memory'); process.exit(3)`), {})).rejects.toThrow(
      /ended with 3\nno memory/,
    );
  });

  test('that dies in a window is an error too', async () => {
    const script = `console.log('{"about":"x"}'); process.stdin.once('data', () => process.exit(4));`;
    const measuring = await startMeasuring(child(script), {});
    if ('missing' in measuring) throw new Error(measuring.missing);
    await expect(measuring.rate(request)).rejects.toThrow(/ended with 4/);
  });

  test('that cannot be started is an error', async () => {
    await expect(startMeasuring(['lockstep-has-no-such-program'], {})).rejects.toThrow(/ENOENT/);
  });
});
