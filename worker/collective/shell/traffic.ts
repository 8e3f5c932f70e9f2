// What a step's all-reduce took and carried, from figures that count from the beginning.

import type { AllReduceTiming } from '../../train.ts';
import type { StepFigures, Traffic } from './exchange.ts';

export class TrafficMeter {
  private before = new Map<number, Traffic>();

  /** @param seconds that the training loop spent in the all-reduce, from its last vector to the sum */
  timing({ waitSeconds, traffic }: StepFigures, seconds: number): Omit<AllReduceTiming, 'marks'> {
    const carried = traffic.map((now) => {
      const before = this.before.get(now.peer);
      return {
        peer: now.peer,
        transport: now.transport,
        bytesOut: now.bytesOut - (before?.bytesOut ?? 0),
        bytesIn: now.bytesIn - (before?.bytesIn ?? 0),
      };
    });
    this.before = new Map(traffic.map((now) => [now.peer, now]));
    const wait = Math.min(waitSeconds, seconds);
    return { waitSeconds: wait, reduceSeconds: seconds - wait, traffic: carried };
  }
}
