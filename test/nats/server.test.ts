import { describe, expect, it } from 'vitest';
import { parseNatsUrl, secretUrlOf, subjectOf } from '../../nats/server.ts';

const plain = { tls: false, ca: null, user: null, password: null, token: null, credentials: null };

describe('the URL of a NATS server', () => {
  it.each([
    ['nats://h:4333', { ...plain, url: 'nats://h:4333', hostPort: 'h:4333' }, ''],
    ['nats://H', { ...plain, url: 'nats://h:4222', hostPort: 'h:4222' }, ''],
    ['h:4333', { ...plain, url: 'nats://h:4333', hostPort: 'h:4333' }, ''],
    ['nats://[::1]:1', { ...plain, url: 'nats://[::1]:1', hostPort: '[::1]:1' }, ''],
    ['tls://h:1/', { ...plain, url: 'tls://h:1', hostPort: 'h:1', tls: true }, ''],
    ['nats://h:1/a%20run', { ...plain, url: 'nats://h:1', hostPort: 'h:1' }, 'a run'],
    ['nats://u:p%40ss@h:1', { ...plain, url: 'nats://h:1', hostPort: 'h:1', user: 'u', password: 'p@ss' }, ''],
    ['nats://s3cret@h:1/r', { ...plain, url: 'nats://h:1', hostPort: 'h:1', token: 's3cret' }, 'r'],
    [
      'tls://u:p@A,b:1,c:4333/r',
      { ...plain, url: 'tls://a:4222,b:1,c:4333', hostPort: 'a:4222,b:1,c:4333', tls: true, user: 'u', password: 'p' },
      'r',
    ],
    ['nats://a:1,nats://b:2', { ...plain, url: 'nats://a:1,b:2', hostPort: 'a:1,b:2' }, ''],
  ])('%s is taken apart', (text, server, path) => {
    expect(parseNatsUrl(text)).toEqual({ server, path });
  });

  it.each([
    '',
    'http://h:1',
    'nats://',
    'nats://h:port',
    'nats://h:1?x',
    'nats://%ZZ@h:1',
    'nats:///run',
    'nats://a:1,',
    'nats://a:1,tls://b:2',
  ])('%j is none', (text) => {
    expect(parseNatsUrl(text)).toBeNull();
  });

  it.each(['nats://u:p%40ss@h:1', 'nats://s3cret@h:1', 'tls://h:1', 'nats://u:%2F@[::1]:1', 'tls://u:p@a:1,b:2'])(
    '%s keeps its secrets only where they are asked for',
    (text) => {
      const server = parseNatsUrl(text)?.server;
      expect(server).toBeDefined();
      if (server === undefined) return;
      expect(secretUrlOf(server)).toBe(text);
      expect(server.url).not.toMatch(/@/);
    },
  );
});

describe("a run's name in subjects", () => {
  it.each([
    ['cifar10-cnn-20261126-170000', 'cifar10-cnn-20261126-170000'],
    ['a.b', 'b64-YS5i'],
    ['*', 'b64-Kg'],
    ['b64-Kg', 'b64-YjY0LUtn'],
  ])('%s is %s: one token, and no two names share one', (run, subject) => {
    expect(subjectOf(run)).toBe(subject);
  });
});
