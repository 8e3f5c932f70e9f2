// Which request is answered: a table of who asks what from where.

import { describe, expect, it } from 'vitest';
import { needOf } from '../../coordinator/core/needs.ts';
import { judgeRequest, type AccessRules, type Asked } from '../../protocol/access.ts';
import { isLoopback } from '../../protocol/loopback.ts';
import { keysOf, makeToken, type Scope } from '../../protocol/token.ts';

const KEY = 'the key of the run, which is long enough';
const bearer = (scope: Scope): Record<string, string> => ({
  authorization: `Bearer ${makeToken(KEY, { scope, expiresAtSeconds: null, id: 'x' })}`,
});
const HERE: AccessRules = { keys: keysOf(KEY), isLoopback: true, needsCertificate: false, needOf };
const ELSEWHERE: AccessRules = { ...HERE, isLoopback: false };

function codeOf(url: string, headers: Record<string, string>, rules: AccessRules, more: Partial<Asked> = {}): string {
  const host = { host: rules.isLoopback ? '127.0.0.1:29400' : 'train.example:29400' };
  const answer = judgeRequest({ method: 'GET', url, socket: {}, ...more, headers: { ...host, ...headers } }, rules, 0);
  return answer.kind === 'allowed' ? 'allowed' : `${answer.status} ${answer.code}`;
}

const READ = ['/metrics', '/sd', '/api/run', '/api/events?since=1.2', '/api/samples', '/model/model.json', '/new'];

describe('reading', () => {
  it.each(READ)('%s is open on loopback, and takes `observe` elsewhere', (url) => {
    expect(codeOf(url, {}, HERE)).toBe('allowed');
    expect(codeOf(url, {}, ELSEWHERE)).toBe('401 E_UNAUTHORIZED');
    expect(codeOf(url, { authorization: 'Bearer wrong' }, ELSEWHERE)).toBe('401 E_UNAUTHORIZED');
    for (const scope of ['observe', 'work', 'control'] as const)
      expect(codeOf(url, bearer(scope), ELSEWHERE)).toBe('allowed');
    expect(codeOf(url, { authorization: `Bearer ${KEY}` }, ELSEWHERE)).toBe('allowed');
  });

  it.each(['/healthz', '/readyz', '/', '/page/main.js', '/page/vendor/tf.min.js'])('%s is open everywhere', (url) => {
    expect([codeOf(url, {}, HERE), codeOf(url, {}, ELSEWHERE)]).toEqual(['allowed', 'allowed']);
  });
});

describe('what changes something', () => {
  it.each([
    ['/api/stop', 'control', 'work'],
    ['/control', 'work', 'observe'],
    ['/heart', 'work', 'observe'],
  ] as const)('%s takes `%s`, on loopback, too', (url, scope, less) => {
    for (const rules of [HERE, ELSEWHERE]) {
      const ask = (headers: Record<string, string>): string => codeOf(url, headers, rules, { method: 'POST' });
      expect(ask({})).toBe('401 E_UNAUTHORIZED');
      expect(ask(bearer(less))).toBe('403 E_FORBIDDEN');
      expect(ask(bearer(scope))).toBe('allowed');
    }
  });
});

describe('a web page', () => {
  it.each<[string, Record<string, string>, string]>([
    ['of the coordinator', { origin: 'http://127.0.0.1:29400', 'sec-fetch-site': 'same-origin' }, 'allowed'],
    ['that is opened', { 'sec-fetch-site': 'none', 'sec-fetch-mode': 'navigate' }, 'allowed'],
    ['that a link leads to', { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' }, 'allowed'],
    ['of another site', { origin: 'https://evil.example' }, '403 E_ORIGIN'],
    ['of another port of this machine', { origin: 'http://127.0.0.1:8080' }, '403 E_ORIGIN'],
    ['of another port, by a picture', { 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'no-cors' }, '403 E_ORIGIN'],
    ['of another site, by a picture', { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' }, '403 E_ORIGIN'],
    ['out of a file', { origin: 'null' }, '403 E_ORIGIN'],
    ['whose name points here', { host: 'evil.example:29400', 'sec-fetch-site': 'same-origin' }, '403 E_HOST'],
    ['whose name points here, and says so', { host: 'evil.example', origin: 'http://evil.example' }, '403 E_HOST'],
    ['by this machine’s other names', { host: 'localhost:29400' }, 'allowed'],
    ['by its IPv6 address', { host: '[::1]:29400' }, 'allowed'],
  ])('%s', (_, headers, answer) => {
    expect(codeOf('/api/run', headers, HERE)).toBe(answer);
  });

  it('has no business at a worker’s door, of whatever origin', () => {
    expect(codeOf('/control', { origin: 'http://127.0.0.1:29400', ...bearer('work') }, HERE)).toBe('403 E_ORIGIN');
  });

  it('of another origin is refused elsewhere as well, whatever it shows; names are free there', () => {
    expect(codeOf('/api/run', { origin: 'https://evil.example', ...bearer('control') }, ELSEWHERE)).toBe(
      '403 E_ORIGIN',
    );
    expect(codeOf('/api/run', { host: 'any.name', ...bearer('observe') }, ELSEWHERE)).toBe('allowed');
  });
});

it('where certificates are asked for, nothing but the health is told without one', () => {
  const rules = { ...ELSEWHERE, needsCertificate: true };
  for (const socket of [{}, { authorized: false }]) {
    expect(codeOf('/api/run', bearer('control'), rules, { socket })).toBe('403 E_TLS');
    expect(codeOf('/', {}, rules, { socket })).toBe('403 E_TLS');
    expect(codeOf('/healthz', {}, rules, { socket })).toBe('allowed');
  }
  expect(codeOf('/api/run', bearer('observe'), rules, { socket: { authorized: true } })).toBe('allowed');
  expect(codeOf('/api/run', {}, rules, { socket: { authorized: true } })).toBe('401 E_UNAUTHORIZED');
});

it.each([
  ['127.0.0.1', true],
  ['127.1.2.3', true],
  ['localhost', true],
  ['LOCALHOST', true],
  ['::1', true],
  ['[::1]', true],
  ['127.0.0.1.example.org', false],
  ['localhost.example.org', false],
  ['0.0.0.0', false],
  ['::', false],
  ['10.0.0.1', false],
])('%s is this machine alone: %s', (host, expected) => {
  expect(isLoopback(host)).toBe(expected);
});
