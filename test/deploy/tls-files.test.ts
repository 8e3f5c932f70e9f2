// The files that --tls-cert, --tls-key and --tls-ca name: each way to be wrong is said by the file's name, before anything starts.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { generateKeyPairSync } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readTls } from '../../deploy/tls-files.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { makeAuthority, makeCertificate } from '../certificates.ts';

const authority = makeAuthority();
const server = makeCertificate(['10.0.0.5', 'train.example', '*.pods.example'], authority);
const NOW_MS = Date.now();
const DAY_MS = 86_400_000;

const place = mkdtempSync(join(tmpdir(), 'lockstep-tls-'));
const { privateKey: encrypted } = generateKeyPairSync('ec', {
  namedCurve: 'prime256v1',
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'secret' },
});
const FILES = {
  'cert.pem': server.cert,
  'chain.pem': server.cert + authority.cert,
  'key.pem': server.key,
  'ca.pem': authority.cert,
  'other-key.pem': makeCertificate([], null).key,
  'encrypted-key.pem': encrypted,
  'empty.pem': '',
  'damaged.pem': server.cert.replace(/\n.{20}/, '\nAAAAAAAAAAAAAAAAAAAA'),
};
for (const [name, text] of Object.entries(FILES)) writeFileSync(join(place, name), text);
afterAll(() => rmSync(place, { recursive: true, force: true }));

const at = (name: string | undefined): string | undefined => (name === undefined ? undefined : join(place, name));
const flagsOf = (cert?: string, key?: string, ca?: string) => ({ tlsCert: at(cert), tlsKey: at(key), tlsCa: at(ca) });

function refusal(flags: ReturnType<typeof flagsOf>, nowMs = NOW_MS): string {
  try {
    readTls(flags, nowMs);
    return 'taken';
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
    return `${error.code} ${error.message} -> ${error.remedy}`.replaceAll(`${place}/`, '');
  }
}

describe('readTls', () => {
  it('gives what the files hold: nothing, whom to trust, or what to show as well', () => {
    expect(readTls(flagsOf(), NOW_MS)).toBeNull();
    expect(readTls(flagsOf(undefined, undefined, 'ca.pem'), NOW_MS)).toEqual({
      identity: null,
      ca: authority.cert,
      clientCa: null,
    });
    const clients = {
      ...flagsOf('chain.pem', 'key.pem', 'ca.pem'),
      tlsClientCa: flagsOf(undefined, undefined, 'ca.pem').tlsCa,
    };
    expect(readTls(clients, NOW_MS)).toEqual({
      identity: { cert: server.cert + authority.cert, key: server.key },
      ca: authority.cert,
      clientCa: authority.cert,
    });
  });

  it.each([
    [
      'none.pem',
      'key.pem',
      undefined,
      /^E_TLS --tls-cert none\.pem: it cannot be read \(ENOENT.*-> Give --tls-cert a readable/,
    ],
    ['cert.pem', 'none.pem', undefined, /^E_TLS --tls-key none\.pem: it cannot be read \(ENOENT/],
    [
      'key.pem',
      'key.pem',
      undefined,
      /^E_TLS --tls-cert key\.pem: there is no certificate in it: it holds a private key ->/,
    ],
    [
      'empty.pem',
      'key.pem',
      undefined,
      /^E_TLS --tls-cert empty\.pem: there is no certificate in it: it is not in PEM ->/,
    ],
    ['damaged.pem', 'key.pem', undefined, /^E_TLS --tls-cert damaged\.pem: its certificate 1 is damaged ->/],
    ['cert.pem', 'cert.pem', undefined, /^E_TLS --tls-key cert\.pem: there is no private key in it ->/],
    [
      'cert.pem',
      'encrypted-key.pem',
      undefined,
      /^E_TLS --tls-key encrypted-key\.pem: it is encrypted -> Decrypt it: openssl pkey -in encrypted-key\.pem -out key\.pem$/,
    ],
    [
      'cert.pem',
      'other-key.pem',
      undefined,
      /^E_TLS --tls-key other-key\.pem: it is not the key of the certificate in cert\.pem -> Give the two that were made together\.$/,
    ],
    ['cert.pem', 'key.pem', 'none.pem', /^E_TLS --tls-ca none\.pem: it cannot be read/],
    [
      undefined,
      undefined,
      'key.pem',
      /^E_TLS --tls-ca key\.pem: there is no certificate in it: it holds a private key/,
    ],
  ])('%s, %s and %s are refused', (cert, key, ca, expected) => {
    expect(refusal(flagsOf(cert, key, ca))).toMatch(expected);
  });

  it('refuses what has expired or is not valid yet, with the date', () => {
    const later = NOW_MS + 2 * DAY_MS;
    expect(refusal(flagsOf('cert.pem', 'key.pem'), later)).toMatch(
      /^E_TLS --tls-cert cert\.pem: the certificate expired on 20\d\d-\d\d-\d\dT.*Z -> Renew it\.$/,
    );
    expect(refusal(flagsOf('cert.pem', 'key.pem'), NOW_MS - 2 * DAY_MS)).toMatch(
      /: the certificate is not valid before 20/,
    );
    expect(refusal(flagsOf(undefined, undefined, 'ca.pem'), NOW_MS + 4 * DAY_MS)).toMatch(
      /^E_TLS --tls-ca ca\.pem: .*expired/,
    );
    // Of several that are trusted, one that has expired does no harm.
    expect(refusal(flagsOf(undefined, undefined, 'chain.pem'), later)).toBe('taken');
  });
});
