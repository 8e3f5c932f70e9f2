import { describe, expect, it } from 'vitest';
import { StepTimes, stragglerOf } from '../../../coordinator/core/step-times.ts';
import type { PhaseSeconds } from '../../../protocol/messages.ts';

const phases = (compute: number, wait: number): PhaseSeconds => ({ data: 0, compute, allreduce: 0.5, apply: 0, wait });

describe('StepTimes', () => {
  it('means: of the last 50 steps for who watches, of all for the report', () => {
    const times = new StepTimes();
    expect([times.now, times.mean, times.steps]).toEqual([null, null, 0]);
    for (let i = 0; i < 50; i++) times.add(phases(1, 4));
    expect(times.now).toEqual({ data: 0, compute: 1, allreduce: 0.5, apply: 0, wait: 4 });
    for (let i = 0; i < 50; i++) times.add(phases(2, 0));
    expect(times.now).toEqual({ data: 0, compute: 2, allreduce: 0.5, apply: 0, wait: 0 });
    expect(times.mean).toEqual({ data: 0, compute: 1.5, allreduce: 0.5, apply: 0, wait: 2 });
    expect(times.steps).toBe(100);
  });
});

describe('a straggler', () => {
  const timed = (worker: string, compute: number, wait: number, steps = 20) => ({
    worker,
    steps,
    phases: phases(compute, wait),
  });

  it('is who waits least, when the others wait a tenth of their step longer', () => {
    expect(stragglerOf([timed('w0', 6, 3.5), timed('w1', 9, 0.5), timed('w2', 7, 2.5)])).toEqual({
      worker: 'w1',
      waitedSeconds: 2.5,
      because: 'the others wait 2500.00 ms a step for it (25 %): it computes for 9000.00 ms, they for 6500.00 ms',
    });
  });

  it('is nobody where all wait alike, as they do when each is last by turns', () => {
    expect(stragglerOf([timed('w0', 8, 1.5), timed('w1', 9, 0.6)])).toBeNull();
    expect(stragglerOf([timed('w0', 8, 1.5), timed('w1', 8.5, 0.5)])?.worker).toBe('w1');
  });

  it('is nobody alone, or before every member has done 20 steps', () => {
    expect(stragglerOf([])).toBeNull();
    expect(stragglerOf([timed('w0', 9, 0)])).toBeNull();
    expect(stragglerOf([timed('w0', 1, 8), timed('w1', 9, 0, 19)])).toBeNull();
    expect(stragglerOf([timed('w0', 1, 8), timed('w1', 9, 0), { worker: 'w2', steps: 0, phases: null }])).toBeNull();
  });
});
