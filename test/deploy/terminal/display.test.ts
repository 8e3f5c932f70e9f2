// The display as a whole, on a stream that keeps what is written.

import { Writable } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import { describe, expect, test } from 'vitest';
import { createDisplay, type Display } from '../../../deploy/terminal/display.ts';
import type { RunEvent } from '../../../protocol/run-event.ts';
import { GATHERING, report, view } from './a-run.ts';

class Screen extends Writable {
  text = '';
  isTTY = false;
  columns = 80;
  rows = 40;

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }

  /** What was written since the last call. */
  taken(): string {
    const { text } = this;
    this.text = '';
    return text;
  }
}

function on(
  screen: Screen,
  options: { format?: 'pretty' | 'json'; level?: string; env?: Record<string, string> } = {},
): Display {
  const stdout = screen as unknown as NodeJS.WriteStream;
  return createDisplay({ format: 'pretty', level: 'info', env: {}, ...options, stdout });
}

const { fingerprint, precision: _, ...engine } = report().engine;
const ready = (worker: string): RunEvent => ({ kind: 'worker-ready', worker, engine, fingerprint });
const failed = (who: string): RunEvent => ({
  kind: 'failed',
  cause: {
    who,
    rank: 0,
    host: 'box',
    pid: 1,
    exitCode: 1,
    signal: null,
    code: null,
    message: 'm',
    lastLines: [],
    logFile: null,
  },
});
const epoch = (index: 0 | 1): RunEvent => {
  const found = report().byEpoch[index];
  if (found === undefined) throw new Error('no such epoch');
  return { kind: 'epoch', report: found, epochs: 2 };
};
const step: RunEvent = {
  kind: 'step',
  step: 1,
  generation: 1,
  loss: 2,
  accuracy: 0.1,
  gradientNorm: 1,
  samples: 64,
  seconds: 0.01,
  phases: { data: 0, compute: 0.01, allreduce: 0, apply: 0, wait: 0 },
};

describe('where the output is no terminal', () => {
  test('whole lines only, without escape sequences: each engine once, a head for the epochs, one root cause', () => {
    const screen = new Screen();
    const display = on(screen);
    display.configuration('Lockstep', [{ name: 'seed', value: '7', isDefault: false }]);
    display.view(GATHERING);
    for (const event of [ready('w0'), ready('w1'), step, epoch(0), epoch(1), failed('w1'), failed('w0')])
      display.event(event);
    display.close();
    expect(screen.taken().split('\n')).toEqual([
      'Lockstep',
      '  seed  7',
      '',
      'waiting for workers: 1 of 2 workers ready · w0○ w1◌',
      'engine     tensorflow (TensorFlow 2.21.0) on CPU, 1 thread a worker, fingerprint',
      '           9f86d081884c',
      '    epoch      loss  test loss  test accuracy     img/s         time',
      '      1/2    1.5000     1.2000         55.0 %     4,237       11.8 s',
      '      2/2    1.1000     0.8412         71.2 %     4,312       11.6 s',
      '┌─ Root cause (first observed failure) ─┐',
      '│ worker    w1, rank 0, host box, pid 1 │',
      '│ process   exit code 1                 │',
      '│ error     m                           │',
      '└───────────────────────────────────────┘',
      '',
    ]);
  });

  test('FORCE_COLOR colours it all the same', () => {
    const screen = new Screen();
    on(screen, { env: { FORCE_COLOR: '1' } }).event({ kind: 'warning', message: 'careful' });
    expect(screen.taken()).toBe('\u001B[33mwarning    \u001B[39mcareful\n');
  });

  test('at level warn, only what is wrong is said; at debug, all', () => {
    const events: RunEvent[] = [
      { kind: 'listening', url: 'u' },
      { kind: 'warning', message: 'careful' },
      ready('w0'),
      ready('w1'),
      epoch(0),
    ];
    const screen = new Screen();
    const quiet = on(screen, { level: 'warn' });
    quiet.view(GATHERING);
    for (const event of events) quiet.event(event);
    expect(screen.taken()).toBe('warning    careful\n');
    const talkative = on(screen, { level: 'debug' });
    for (const event of events) talkative.event(event);
    expect(screen.taken()).toContain('engine     w1: the same\n');
    const silent = on(screen, { level: 'error' });
    for (const event of events) silent.event(event);
    expect(screen.taken()).toBe('');
    silent.event(failed('w0'));
    expect(screen.taken()).toContain('Root cause');
  });
});

describe('on a terminal', () => {
  const terminal = (): Screen => Object.assign(new Screen(), { isTTY: true });

  test('the live line is replaced, and stays below what is said', () => {
    const screen = terminal();
    const display = on(screen, { env: { NO_COLOR: '1' } });
    display.view(GATHERING);
    expect(screen.taken()).toBe('waiting for workers: 1 of 2 workers ready · w0○ w1◌\n');
    display.event({ kind: 'listening', url: 'http://h:1' });
    // Up and away with the live line, the message, the live line again.
    const [cleared, ...rest] = screen.taken().split('listening');
    expect(stripVTControlCharacters(cleared ?? 'x')).toBe('');
    expect(rest.join('')).toBe(
      '  http://h:1 (page, /metrics, /api/run)\nwaiting for workers: 1 of 2 workers ready · w0○ w1◌\n',
    );
    display.view(view());
    expect(screen.taken()).toContain('epoch  3/10 391/782');
    display.close();
    expect(stripVTControlCharacters(screen.taken())).toBe('');
  });

  test('the live line is shorter than the terminal is wide', () => {
    const screen = terminal();
    const display = on(screen, { env: { NO_COLOR: '1' } });
    for (screen.columns = 30; screen.columns < 130; screen.columns++) {
      display.view(view({ epochStep: screen.columns }));
      const text = screen.taken();
      for (const line of stripVTControlCharacters(text).split('\n')) expect(line.length).toBeLessThan(screen.columns);
    }
  });

  test('a live line that a narrower terminal has broken into rows is cleared whole', () => {
    const screen = terminal();
    const display = on(screen, { env: { NO_COLOR: '1' } });
    display.view(view());
    expect(screen.taken()).toHaveLength(78);
    screen.columns = 30;
    screen.emit('resize');
    // 77 characters are three rows of 30: two below the first, then log-update's own.
    expect(screen.taken().startsWith('\u001B[2A\u001B[J')).toBe(true);
    display.close();
    screen.emit('resize');
    expect(screen.listenerCount('resize')).toBe(0);
  });

  test('TERM=dumb gets plain lines', () => {
    const screen = terminal();
    const display = on(screen, { env: { TERM: 'dumb' } });
    display.view(GATHERING);
    display.event({ kind: 'listening', url: 'http://h:1' });
    expect(screen.taken()).not.toContain('\u001B');
  });

  test('after the summary no live line comes back', () => {
    const screen = terminal();
    const display = on(screen, { env: { NO_COLOR: '1' } });
    display.view(view());
    display.event({ kind: 'finished', report: report(), runDirectory: 'runs/r' });
    display.view(view({ phase: 'done' }));
    display.close();
    expect(screen.taken().split('\n').at(-2)).toContain('runs/r/report.json');
  });
});

describe('--log-format json', () => {
  interface Line {
    readonly level: string;
    readonly time: string;
    readonly kind: string;
    readonly msg: string;
  }
  const linesOf = (screen: Screen): Line[] =>
    screen
      .taken()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Line);

  test('each event is an object a line, with a level, a time and a sentence; steps are for debugging', () => {
    const screen = new Screen();
    const display = on(screen, { format: 'json' });
    display.configuration('Lockstep', [{ name: 'seed', value: '7', isDefault: false }]);
    display.view(GATHERING);
    for (const event of [step, ready('w0'), epoch(0), failed('w1')]) display.event(event);
    display.event({ kind: 'warning', message: 'care\nful' });
    display.event({ kind: 'finished', report: report(), runDirectory: 'runs/r' });
    display.close();
    const lines = linesOf(screen);
    expect(lines.map(({ level, kind, msg }) => [level, kind, msg])).toEqual([
      ['info', 'configuration', 'Lockstep'],
      ['info', 'progress', 'waiting for workers: 1 of 2 workers ready · w0○ w1◌'],
      [
        'info',
        'worker-ready',
        'w0 is ready: tensorflow (TensorFlow 2.21.0) on CPU, 1 thread a worker, fingerprint 9f86d081884c',
      ],
      ['info', 'epoch', 'epoch 1 of 2'],
      ['error', 'failed', 'w1 failed: m'],
      ['warn', 'warning', 'care\nful'],
      ['info', 'finished', 'done after step 1564'],
    ]);
    for (const { time } of lines) expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(lines[0]).toMatchObject({ settings: { seed: '7' } });
    expect(lines.at(-1)).toMatchObject({ report: { digest: report().digest } });
  });

  test('levels leave lines out', () => {
    const screen = new Screen();
    on(screen, { format: 'json', level: 'debug' }).event(step);
    expect(linesOf(screen)).toMatchObject([{ level: 'debug', kind: 'step', step: 1, loss: 2 }]);
    on(screen, { format: 'json', level: 'warn' }).event(epoch(0));
    expect(screen.taken()).toBe('');
  });
});
