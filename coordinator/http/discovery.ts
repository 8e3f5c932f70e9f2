// /sd: where Prometheus finds the workers' own metrics, in the form of its HTTP service discovery. Living workers only, and of those on
// other machines none that listens on its loopback: Prometheus would ask its own machine.

import { isLoopback } from '../../protocol/loopback.ts';
import type { RunView } from '../../protocol/run-view.ts';

export interface TargetGroup {
  readonly targets: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

export function targetsOf(view: Pick<RunView, 'run' | 'workers' | 'coordinator'>): TargetGroup[] {
  return view.workers.flatMap(({ id, host, metricsUrl }): TargetGroup[] => {
    if (metricsUrl === null || !URL.canParse(metricsUrl)) return [];
    const url = new URL(metricsUrl);
    if (isLoopback(url.hostname) && host !== view.coordinator.host) return [];
    const scheme = url.protocol === 'https:' ? { __scheme__: 'https' } : {};
    // The port is always there: it is picked, and no scheme's own.
    return [{ targets: [url.host], labels: { run: view.run, worker: id, host, ...scheme } }];
  });
}
