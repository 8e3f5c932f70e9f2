// The losses of a run in bounded memory: when there are too many, every two become their mean. Pure.

const MOST = 2048;

export class LossCurve {
  /** Means of `stretch` losses each, in order. */
  private means: number[] = [];
  private stretch = 1;
  private sum = 0;
  private count = 0;

  add(loss: number): void {
    this.sum += loss;
    this.count++;
    if (this.count < this.stretch) return;
    this.means.push(this.sum / this.count);
    this.sum = 0;
    this.count = 0;
    if (this.means.length < MOST) return;
    this.means = Array.from(
      { length: MOST / 2 },
      (_, i) => ((this.means[2 * i] ?? 0) + (this.means[2 * i + 1] ?? 0)) / 2,
    );
    this.stretch *= 2;
  }

  get points(): readonly number[] {
    return this.means;
  }
}
