// Tokens: who may do what, and until when. A run's key is a line of text in a file; who shows it may do everything. From it others are made:
//
//     lockstep1.<scope>.<expires>.<id>.<signature>        expires: Unix seconds, or `never`
//
// The signature is by a key of the scope's own, which follows from the run's. So a worker that is told the key for observing can tell who
// may read its metrics, and can't make a token that may do more. Nothing is kept of tokens that were made: one is taken back by its expiry, or
// with all others by another key. Pure: the time comes in.

import { isSameSecret, proofBy } from './keys.ts';

/** Each may what those before it may: who computes has the weights anyway. */
export const SCOPES = ['observe', 'work', 'control'] as const;
export type Scope = (typeof SCOPES)[number];

/** So long after its expiry a token is still taken: clocks of machines differ. */
export const CLOCK_TOLERANCE_MS = 60_000;
/** Longest token that is looked at, in characters. */
export const MAX_TOKEN_LENGTH = 512;

const FORM = 'lockstep1';
const TOKEN = /^lockstep1\.(observe|work|control)\.(never|\d{1,12})\.([\w-]{1,32})\.([\w-]{43})$/;

export function includes(held: Scope, wanted: Scope): boolean {
  return SCOPES.indexOf(held) >= SCOPES.indexOf(wanted);
}

/** Made from a key, as its first letters tell; it may be malformed. */
export function isDerived(text: string): boolean {
  return text.startsWith(`${FORM}.`);
}

export interface TokenParts {
  readonly scope: Scope;
  /** Unix time; null: never. */
  readonly expiresAtSeconds: number | null;
  readonly id: string;
  /** All but the signature: no secret. */
  readonly claim: string;
  readonly signature: string;
}

/** Null for what is no token that was made from a key. */
export function partsOf(text: string): TokenParts | null {
  const found = text.length > MAX_TOKEN_LENGTH ? null : TOKEN.exec(text);
  if (found === null) return null;
  const [, scope = '', expires = '', id = '', signature = ''] = found;
  return {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the pattern has no other
    scope: scope as Scope,
    expiresAtSeconds: expires === 'never' ? null : Number(expires),
    id,
    claim: text.slice(0, -signature.length - 1),
    signature,
  };
}

/** The key that signs tokens of one scope. */
export function scopeKeyOf(runKey: string, scope: Scope): string {
  return proofBy(runKey, 'token', scope);
}

/** @param id letters, digits, `-` and `_`: what tells tokens apart in a log */
export function makeToken(
  runKey: string,
  { scope, expiresAtSeconds, id }: Pick<TokenParts, 'scope' | 'expiresAtSeconds' | 'id'>,
): string {
  const claim = [FORM, scope, expiresAtSeconds ?? 'never', id].join('.');
  return `${claim}.${proofBy(scopeKeyOf(runKey, scope), claim)}`;
}

/** What is known of what was shown: whose, and what it may; or the code and the reason why it is not taken. */
export type Standing =
  | { readonly kind: 'granted'; readonly scope: Scope; readonly who: string }
  | { readonly kind: 'refused'; readonly code: 'E_UNAUTHORIZED' | 'E_TOKEN_EXPIRED'; readonly because: string };

/** Which keys can tell: the run's, which can for all scopes, or one scope's alone. */
export interface Keys {
  /** The run's key, or another text that is taken as it is. */
  readonly whole: string | null;
  scopeKey(scope: Scope): string | null;
}

export function keysOf(runKey: string): Keys {
  const made = new Map(SCOPES.map((scope) => [scope, scopeKeyOf(runKey, scope)]));
  return { whole: runKey, scopeKey: (scope) => made.get(scope) ?? null };
}

function refused(code: 'E_UNAUTHORIZED' | 'E_TOKEN_EXPIRED', because: string): Standing {
  return { kind: 'refused', code, because };
}

/** Judges a token as it was shown; null or empty: none was. An expired one is told so only when the signature is right. */
export function judge(shown: string | null, keys: Keys, nowMs: number): Standing {
  if (shown === null || shown === '') return refused('E_UNAUTHORIZED', 'no token is shown');
  if (keys.whole !== null && isSameSecret(shown, keys.whole)) {
    return { kind: 'granted', scope: 'control', who: 'the key' };
  }
  const parts = partsOf(shown);
  const key = parts === null ? null : keys.scopeKey(parts.scope);
  if (parts === null || key === null || !isSameSecret(parts.signature, proofBy(key, parts.claim))) {
    return refused('E_UNAUTHORIZED', 'the token is not one of this run');
  }
  const { expiresAtSeconds, id, scope } = parts;
  if (expiresAtSeconds !== null && nowMs > 1000 * expiresAtSeconds + CLOCK_TOLERANCE_MS) {
    return refused(
      'E_TOKEN_EXPIRED',
      `the token ${id} has expired ${Math.round(nowMs / 1000) - expiresAtSeconds} s ago`,
    );
  }
  return { kind: 'granted', scope, who: id };
}

export type Permission =
  | { readonly kind: 'allowed'; readonly who: string }
  | {
      readonly kind: 'refused';
      readonly code: 'E_UNAUTHORIZED' | 'E_TOKEN_EXPIRED' | 'E_FORBIDDEN';
      readonly because: string;
    };

/** Whether who shows this may do what takes `wanted`. */
export function permit(shown: string | null, wanted: Scope, keys: Keys, nowMs: number): Permission {
  const standing = judge(shown, keys, nowMs);
  if (standing.kind === 'refused') return standing;
  const { scope, who } = standing;
  if (includes(scope, wanted)) return { kind: 'allowed', who };
  return {
    kind: 'refused',
    code: 'E_FORBIDDEN',
    because: `the token ${who} is for "${scope}"; this takes "${wanted}"`,
  };
}

/** The same for who has not shown the token, but what its claim is (`secretOf`): what only its holder knows, when that may do what takes `wanted`. */
export function secretOfClaim(
  claim: string,
  wanted: Scope,
  keys: Keys,
  nowMs: number,
): { readonly secret: string } | Extract<Permission, { kind: 'refused' }> {
  const scope = SCOPES.find((one) => claim.startsWith(`${FORM}.${one}.`));
  const key = scope === undefined ? null : keys.scopeKey(scope);
  const token = key === null ? '' : `${claim}.${proofBy(key, claim)}`;
  const found = permit(token, wanted, keys, nowMs);
  return found.kind === 'refused' ? found : { secret: secretOf(token).secret };
}

/** The token in an Authorization header; null: none of this scheme. */
export function bearerOf(header: string | undefined): string | null {
  return /^Bearer (.+)$/i.exec(header ?? '')?.[1] ?? null;
}

/**
 * What only the holder of a token and the holder of the key know: a proof by it needs no token to be sent. For a key it is the key itself,
 * and the claim is empty.
 */
export function secretOf(token: string): { readonly claim: string; readonly secret: string } {
  const parts = partsOf(token);
  return parts === null ? { claim: '', secret: token } : { claim: parts.claim, secret: parts.signature };
}
