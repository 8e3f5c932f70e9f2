import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { lastStepOf, openMetricsLog } from '../../../coordinator/record/metrics-log.ts';
import { temporaryDirectory } from './temporary.ts';

const fileIn = (directory: string): string => join(directory, 'metrics.jsonl');
const text = (directory: string): string => readFileSync(fileIn(directory), 'utf8');

describe('metrics.jsonl', () => {
  it('has a line a step, in order', async () => {
    const directory = temporaryDirectory();
    const log = await openMetricsLog(directory, { keepSteps: 0 });
    log.append({ step: 1, loss: 2.5 });
    log.append({ step: 2, loss: 2.25 });
    await log.close();
    expect(text(directory)).toBe('{"step":1,"loss":2.5}\n{"step":2,"loss":2.25}\n');
    expect(await lastStepOf(directory)).toBe(2);
  });

  it('what was appended is in the file when a flush resolves', async () => {
    const directory = temporaryDirectory();
    const log = await openMetricsLog(directory, { keepSteps: 0 });
    log.append({ step: 1 });
    await log.flush();
    expect(text(directory)).toBe('{"step":1}\n');
    await log.close();
  });

  it('opened to go on after step 2, it keeps the lines of steps 1 and 2, once each, and no torn one', async () => {
    const directory = temporaryDirectory();
    writeFileSync(
      fileIn(directory),
      '{"step":1,"a":0}\n{"step":2,"a":0}\nnonsense\n{"step":2,"a":1}\n{"step":3,"a":0}\n{"step":4,',
    );
    const log = await openMetricsLog(directory, { keepSteps: 2 });
    log.append({ step: 3, a: 2 });
    await log.close();
    expect(text(directory)).toBe('{"step":1,"a":0}\n{"step":2,"a":0}\n{"step":3,"a":2}\n');
  });

  it('goes back: the lines after a step make room for those of the same steps done again, none of which is lost meanwhile', async () => {
    const directory = temporaryDirectory();
    const log = await openMetricsLog(directory, { keepSteps: 0 });
    for (const step of [1, 2, 3]) log.append({ step, a: 0 });
    log.rewind(1);
    log.append({ step: 2, a: 1 });
    await log.flush();
    log.append({ step: 3, a: 1 });
    await log.close();
    expect(text(directory)).toBe('{"step":1,"a":0}\n{"step":2,"a":1}\n{"step":3,"a":1}\n');
  });

  it('without a file the last step is 0, and none is made', async () => {
    const directory = temporaryDirectory();
    expect(await lastStepOf(directory)).toBe(0);
    expect(existsSync(fileIn(directory))).toBe(false);
  });
});
