import { describe, expect, it } from 'vitest';
import { targetsOf } from '../../../coordinator/http/discovery.ts';
import type { WorkerView } from '../../../protocol/run-view.ts';
import { VIEW } from './view.ts';

const found = (host: string, metricsUrl: string | null): string[] => {
  const worker: WorkerView = { ...VIEW.workers[0]!, host, metricsUrl };
  return targetsOf({ run: 'r', coordinator: { pid: 1, host: 'here' }, workers: [worker] }).flatMap(
    ({ targets }) => targets,
  );
};

describe('targets for Prometheus', () => {
  it.each([
    ['here', 'http://127.0.0.1:4000/metrics', ['127.0.0.1:4000']],
    ['there', 'http://10.0.0.7:4000/metrics', ['10.0.0.7:4000']],
    ['there', 'http://[fd00::7]:4000/metrics', ['[fd00::7]:4000']],
  ])('%s %s is one', (host, url, targets) => {
    expect(found(host, url)).toEqual(targets);
  });

  it.each([['http://127.0.0.1:4000/metrics'], ['http://localhost:4000/metrics'], ['http://[::1]:4000/metrics']])(
    'the loopback of another machine, %s, is none: it would be Prometheus’s own',
    (url) => {
      expect(found('there', url)).toEqual([]);
    },
  );

  it('who serves none, or is gone, is none', () => {
    expect(found('here', null)).toEqual([]);
  });
});
