import { describe, expect, it } from 'vitest';
import { StateAssembly } from '../../coordinator/core/state-assembly.ts';
import { decodeWorkerMessage, encodeMessage, MAX_STATE_PART_FLOATS, type StatePart } from '../../protocol/messages.ts';
import { statePartsOf } from '../../protocol/state-parts.ts';
import { takeStatePart } from '../../worker/state-transfer.ts';

const DIGEST = 'd'.repeat(64);

/** As it arrives on the other side: through the codec. */
function sent(part: StatePart): StatePart {
  const message = decodeWorkerMessage(encodeMessage(part));
  if (message.kind !== 'state') throw new Error(message.kind);
  return message;
}

describe('a state in parts', () => {
  const weights = Float32Array.from({ length: MAX_STATE_PART_FLOATS + 3 }, (_, i) => Math.fround(i / 7));
  const slot = Float32Array.of(-0, 1e-40, 3);
  const vectors = [
    { name: 'weights', data: weights },
    { name: 'slot:m', data: slot },
  ];

  it('arrives whole at the coordinator, to the bit', () => {
    const assembly = new StateAssembly((name) => vectors.find((v) => v.name === name)?.data.length ?? null);
    const parts = [...statePartsOf(9, DIGEST, vectors)];
    expect(parts.map((p) => [p.vector, p.offset, p.bytes.byteLength / 4])).toEqual([
      ['weights', 0, MAX_STATE_PART_FLOATS],
      ['weights', MAX_STATE_PART_FLOATS, 3],
      ['slot:m', 0, 3],
    ]);
    const states = parts.map((part) => assembly.accept(sent(part)));
    expect(states.slice(0, 2)).toEqual([null, null]);
    const [state] = states.slice(-1);
    expect(state).toMatchObject({ step: 9, digest: DIGEST });
    for (const [i, { data }] of (state?.vectors ?? []).entries()) {
      expect(Buffer.from(data.buffer).equals(Buffer.from((vectors[i]?.data ?? new Float32Array()).buffer))).toBe(true);
    }
  });

  it('arrives whole at a worker', () => {
    const into = new Map([
      ['weights', new Float32Array(weights.length)],
      ['slot:m', new Float32Array(3)],
    ]);
    const ends = [...statePartsOf(9, DIGEST, vectors)].map((part) => takeStatePart(sent(part), into));
    expect(ends).toEqual([false, false, true]);
    expect(Buffer.from((into.get('weights') ?? weights).buffer).equals(Buffer.from(weights.buffer))).toBe(true);
    expect(Object.is(into.get('slot:m')?.[0], -0)).toBe(true);
  });

  it('of another model is refused by name', () => {
    const [part] = statePartsOf(9, DIGEST, [{ name: 'weights', data: slot }]);
    expect(() => takeStatePart(part as StatePart, new Map([['weights', new Float32Array(4)]]))).toThrow(
      'state vector "weights" of 3 floats',
    );
  });

  it('out of order, or of two states mixed, is refused', () => {
    const assembly = (): StateAssembly =>
      new StateAssembly((name) => vectors.find((v) => v.name === name)?.data.length ?? null);
    const [first, second, third] = [...statePartsOf(9, DIGEST, vectors)] as [StatePart, StatePart, StatePart];
    expect(() => assembly().accept(second)).toThrow('of another state');
    const skipping = assembly();
    skipping.accept(first);
    expect(() => skipping.accept({ ...second, step: 10 })).toThrow('of another state');
    expect(() => skipping.accept({ ...second, offset: second.offset + 1 })).toThrow(`at float ${second.offset + 1}`);
    const jumping = assembly();
    expect(() => jumping.accept(third)).toThrow(/slot:m/);
  });
});
