// What follows from a run's key (the content of its token file): one-way, so that who holds a part can't come to the whole. A worker with a
// token of its own is told what it needs of these by its coordinator (coordinator/credentials.ts), and never the key.

// oxlint-disable-next-line no-restricted-imports -- a hash is a function of its arguments: no clock, chance, socket or disk
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';

/** HMAC-SHA-256 by `key` over a list of words, which no other list has; 43 characters of base64url. */
export function proofBy(key: string, ...words: readonly (string | number)[]): string {
  return createHmac('sha256', key).update(JSON.stringify(words)).digest('base64url');
}

/** Compares by hash, in the same time whatever the two are: neither content nor length of a secret shows in it. */
export function isSameSecret(shown: string, expected: string): boolean {
  const hash = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(hash(shown), hash(expected));
}

/** By it any worker of the run proves to another that it is one. */
export function peerKeyOf(runKey: string, run: string): string {
  return proofBy(runKey, 'peers', run);
}

/** By it the two ranks of one generation know each other, and nobody else can take the place of either. */
export function pairKeyOf(runKey: string, run: string, generation: number, one: number, other: number): string {
  return proofBy(runKey, 'pair', run, generation, Math.min(one, other), Math.max(one, other));
}

/** That the run has had a coordinator of this term: only one that holds the key can have said so. */
export function termProofOf(runKey: string, run: string, term: number): string {
  return proofBy(runKey, 'term', run, term);
}

/** That who shows it was a member of this generation, of so many. */
export function memberProofOf(runKey: string, run: string, generation: number, worldSize: number): string {
  return proofBy(runKey, 'member', run, generation, worldSize);
}
