// Reports of steps, several to a message: a coordinator that wakes for each step of each worker takes a tenth of a core from them.

import { MAX_REPORTED_STEPS, type LinkTraffic, type StepReport, type WorkerMessage } from '../protocol/messages.ts';

/** How long a report may wait for the next ones: too short for anybody who watches. */
const BATCH_MS = 50;

export class ReportBatch {
  private readonly generation: number;
  private readonly send: (message: WorkerMessage) => void;
  private readonly trace: () => WorkerMessage | null;
  private steps: StepReport[] = [];
  /** Since the last report, by link. */
  private links = new Map<number, LinkTraffic>();
  private timer: NodeJS.Timeout | null = null;

  /** @param trace what has been recorded for a timeline since the last call: it goes with the reports */
  constructor(
    generation: number,
    send: (message: WorkerMessage) => void,
    trace: () => WorkerMessage | null = () => null,
  ) {
    this.generation = generation;
    this.send = send;
    this.trace = trace;
  }

  add(step: StepReport, traffic: readonly LinkTraffic[]): void {
    this.steps.push(step);
    for (const link of traffic) {
      const { bytesOut = 0, bytesIn = 0 } = this.links.get(link.peer) ?? {};
      this.links.set(link.peer, { ...link, bytesOut: bytesOut + link.bytesOut, bytesIn: bytesIn + link.bytesIn });
    }
    if (this.steps.length >= MAX_REPORTED_STEPS) this.flush();
    else this.timer ??= setTimeout(() => this.flush(), BATCH_MS);
  }

  /** Sends `message`, and before it what is known of the steps so far: a message speaks of what has been reported. */
  before(message: WorkerMessage): void {
    this.flush();
    this.send(message);
  }

  flush(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    const { steps, links, generation } = this;
    this.steps = [];
    this.links = new Map();
    if (steps.length > 0) this.send({ kind: 'report', generation, steps, links: [...links.values()] });
    const trace = this.trace();
    if (trace !== null) this.send(trace);
  }
}
