// What launcher and supervisor say to each other: through a login shell that talks, and in whatever pieces it comes.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromHostLine, Lines, readFromHost, readToHost, toHostLine } from '../../../deploy/launch/channel.ts';

describe('the channel', () => {
  it('is told from what a login shell writes', () => {
    const line = fromHostLine({ kind: 'line', localRank: 1, text: 'a "quoted" ä\u0007' });
    expect(readFromHost(line.trimEnd())).toEqual({ kind: 'line', localRank: 1, text: 'a "quoted" ä\u0007' });
    for (const other of [
      'Welcome to gpu1!',
      '{"kind":"through"}',
      '\u0001lockstep {"kind":"dance"}',
      '\u0001lockstep {',
    ]) {
      expect(readFromHost(other)).toBeNull();
    }
  });

  it('takes no order that is not whole', () => {
    expect(readToHost(toHostLine({ kind: 'end', isUrgent: true }).trimEnd())).toEqual({ kind: 'end', isUrgent: true });
    for (const bad of ['', 'beat', '{"kind":"end"}', '{"kind":"start","token":"x"}', '[]', 'null']) {
      expect(readToHost(bad)).toBeNull();
    }
  });

  it('has the same lines however the stream is cut, in the middle of a character, too', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ unit: 'grapheme' })), fc.array(fc.nat(9)), (texts, cuts) => {
        const lines = texts.map((text) => text.replaceAll(/[\r\n]/g, ''));
        const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''));
        const reader = new Lines();
        const seen: string[] = [];
        let at = 0;
        for (const cut of cuts) {
          seen.push(...reader.take(bytes.subarray(at, at + cut)));
          at += cut;
        }
        seen.push(...reader.take(bytes.subarray(at)), ...reader.end());
        expect(seen).toEqual(lines);
      }),
    );
  });
});
