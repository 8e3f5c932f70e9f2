// Tokens: what they look like, who may do what by them and until when, and that nothing of one can be changed.

import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bearerOf,
  CLOCK_TOLERANCE_MS,
  includes,
  judge,
  keysOf,
  makeToken,
  permit,
  scopeKeyOf,
  SCOPES,
  secretOf,
  secretOfClaim,
  type Scope,
} from '../../protocol/token.ts';

const KEY = 'k'.repeat(43);
const KEYS = keysOf(KEY);
const EXPIRES = 1_800_000_000;
const NOW_MS = 1000 * EXPIRES - 1;
const made = (scope: Scope, expiresAtSeconds: number | null = EXPIRES): string =>
  makeToken(KEY, { scope, expiresAtSeconds, id: 'abc-1' });

describe('a token', () => {
  it('is its claim, and an HMAC-SHA-256 of that by a key of its scope', () => {
    const hmac = (key: string, text: string): string => createHmac('sha256', key).update(text).digest('base64url');
    const claim = 'lockstep1.work.1800000000.abc-1';
    const scopeKey = hmac(KEY, '["token","work"]');
    expect(made('work')).toBe(`${claim}.${hmac(scopeKey, JSON.stringify([claim]))}`);
  });

  it('a key may do everything, and is taken for itself alone', () => {
    expect(judge(KEY, KEYS, NOW_MS)).toEqual({ kind: 'granted', scope: 'control', who: 'the key' });
    for (const other of ['', null, `${KEY}k`, KEY.slice(1), KEY.toUpperCase()]) {
      expect(judge(other, KEYS, NOW_MS)).toMatchObject({ kind: 'refused', code: 'E_UNAUTHORIZED' });
    }
  });

  it.each<[Scope, Scope, boolean]>([
    ['observe', 'observe', true],
    ['observe', 'work', false],
    ['observe', 'control', false],
    ['work', 'observe', true],
    ['work', 'work', true],
    ['work', 'control', false],
    ['control', 'observe', true],
    ['control', 'work', true],
    ['control', 'control', true],
  ])('of %s, for what takes %s: %s', (held, wanted, isAllowed) => {
    expect(includes(held, wanted)).toBe(isAllowed);
    expect(permit(made(held), wanted, KEYS, NOW_MS)).toMatchObject(
      isAllowed ? { kind: 'allowed', who: 'abc-1' } : { kind: 'refused', code: 'E_FORBIDDEN' },
    );
  });

  it('is taken until its expiry, and for the tolerance of clocks after it; not a millisecond longer', () => {
    const lastMs = 1000 * EXPIRES + CLOCK_TOLERANCE_MS;
    expect(judge(made('work'), KEYS, lastMs)).toMatchObject({ kind: 'granted' });
    expect(judge(made('work'), KEYS, lastMs + 1)).toEqual({
      kind: 'refused',
      code: 'E_TOKEN_EXPIRED',
      because: 'the token abc-1 has expired 60 s ago',
    });
    expect(judge(made('work', null), KEYS, Number.MAX_SAFE_INTEGER)).toMatchObject({ kind: 'granted' });
  });

  it('with another scope, expiry or name than it was made with is none', () => {
    const lies = [
      ['observe', 'control'],
      ['1800000000', 'never'],
      ['1800000000', '1900000000'],
      ['abc-1', 'abc-2'],
      ['lockstep1', 'lockstep2'],
    ] as const;
    for (const [from, to] of lies) {
      const lie = made('observe').replace(from, to);
      expect(judge(lie, KEYS, NOW_MS)).toMatchObject({ kind: 'refused', code: 'E_UNAUTHORIZED' });
    }
  });

  it('with any one character changed, or of another key, is none; that it has expired is told of none', () => {
    const token = made('control', 1);
    fc.assert(
      fc.property(fc.nat({ max: token.length - 1 }), fc.string({ minLength: 1, maxLength: 1 }), (at, letter) => {
        fc.pre(letter !== token[at]);
        const lie = `${token.slice(0, at)}${letter}${token.slice(at + 1)}`;
        expect(judge(lie, KEYS, NOW_MS)).toMatchObject({ kind: 'refused', code: 'E_UNAUTHORIZED' });
      }),
    );
    expect(judge(makeToken('other', { scope: 'work', expiresAtSeconds: 1, id: 'x' }), KEYS, NOW_MS)).toMatchObject({
      code: 'E_UNAUTHORIZED',
    });
  });

  it('whatever is shown, what is no token of the key is refused, and nothing throws', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.string().map((text) => `lockstep1.work.never.x.${text}`),
        ),
        (text) => {
          expect(judge(text, KEYS, NOW_MS)).toMatchObject({ kind: 'refused', code: 'E_UNAUTHORIZED' });
        },
      ),
    );
  });
});

describe('who has a part of the key', () => {
  it('and the key for observing tells tokens of that scope, and makes no other', () => {
    const part = { whole: null, scopeKey: (scope: Scope) => (scope === 'observe' ? scopeKeyOf(KEY, 'observe') : null) };
    expect(permit(made('observe'), 'observe', part, NOW_MS)).toMatchObject({ kind: 'allowed' });
    expect(permit(KEY, 'observe', part, NOW_MS)).toMatchObject({ code: 'E_UNAUTHORIZED' });
    // It signs by what it has, as if that were the key.
    const forged = SCOPES.map((scope) =>
      makeToken(scopeKeyOf(KEY, 'observe'), { scope, expiresAtSeconds: null, id: 'x' }),
    );
    for (const token of forged) expect(judge(token, KEYS, NOW_MS)).toMatchObject({ code: 'E_UNAUTHORIZED' });
  });

  it('a token’s holder and the key’s come to one secret without its being sent; for no other claim', () => {
    const { claim, secret } = secretOf(made('work'));
    expect(secretOfClaim(claim, 'work', KEYS, NOW_MS)).toEqual({ secret });
    expect(secretOf(KEY)).toEqual({ claim: '', secret: KEY });
    expect(secretOfClaim(secretOf(made('observe')).claim, 'work', KEYS, NOW_MS)).toMatchObject({ code: 'E_FORBIDDEN' });
    expect(secretOfClaim(secretOf(made('work', 1)).claim, 'work', KEYS, NOW_MS)).toMatchObject({
      code: 'E_TOKEN_EXPIRED',
    });
    for (const text of ['', 'lockstep1.work', 'x', KEY]) {
      expect(secretOfClaim(text, 'work', KEYS, NOW_MS)).toMatchObject({ code: 'E_UNAUTHORIZED' });
    }
  });
});

it.each([
  ['Bearer abc', 'abc'],
  ['bearer abc', 'abc'],
  ['Bearer ', null],
  ['Basic abc', null],
  [undefined, null],
])('the token in the header %j is %j', (header, token) => {
  expect(bearerOf(header)).toBe(token);
});
