// The line to paste on a worker's machine: it must work there as it stands.

import { describe, expect, it } from 'vitest';
import { joinLine, urlForOthers, type Joining } from '../../deploy/join-line.ts';

const JOINING: Joining = {
  url: 'http://127.0.0.1:29400',
  listen: { host: '127.0.0.1', port: 29_400 },
  addresses: ['10.0.0.5', '192.168.1.7'],
  tokenFile: 'runs/a/token',
  job: 'cifar10-cnn',
  tlsCert: undefined,
  tlsKey: undefined,
  tlsCa: undefined,
};
const EVERYWHERE = { listen: { host: '0.0.0.0', port: 29_400 } };

describe('the address in it', () => {
  it('is the one that was listened on', () => {
    expect(urlForOthers(JOINING)).toBe('http://127.0.0.1:29400');
    expect(urlForOthers({ ...JOINING, url: 'http://10.1.1.1:7', listen: { host: '10.1.1.1', port: 7 } })).toBe(
      'http://10.1.1.1:7',
    );
  });

  it('of all of a machine’s is one that others are likely to reach', () => {
    expect(urlForOthers({ ...JOINING, ...EVERYWHERE })).toBe('http://10.0.0.5:29400');
    const url = 'https://127.0.0.1:29400';
    expect(urlForOthers({ ...JOINING, ...EVERYWHERE, url })).toBe('https://10.0.0.5:29400');
    expect(urlForOthers({ ...JOINING, ...EVERYWHERE, addresses: ['2001:db8::1'] })).toBe('http://[2001:db8::1]:29400');
    expect(urlForOthers({ ...JOINING, ...EVERYWHERE, addresses: [] })).toBe('http://127.0.0.1:29400');
  });
});

it('has what the worker must be told, and quotes what a shell would take apart', () => {
  expect(joinLine(JOINING)).toBe(
    'npx lockstep worker --coordinator http://127.0.0.1:29400 --token-file runs/a/token --job cifar10-cnn',
  );
  expect(joinLine({ ...JOINING, nprocPerNode: 8 })).toMatch(/ --job cifar10-cnn --nproc-per-node 8$/);
  expect(
    joinLine({ ...JOINING, job: "my job's.ts", tlsCa: 'ca.pem', tlsCert: 'cert.pem', tlsKey: '/etc/the keys/key.pem' }),
  ).toBe(
    String.raw`npx lockstep worker --coordinator http://127.0.0.1:29400 --token-file runs/a/token --tls-ca ca.pem --tls-cert cert.pem --tls-key '/etc/the keys/key.pem' --job 'my job'\''s.ts'`,
  );
});
