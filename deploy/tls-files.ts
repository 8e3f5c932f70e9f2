// The certificates and keys that the command line names: read and checked before anything is started, so that a wrong one is refused
// by its file's name and not by a peer's alert.

import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { LockstepError } from '../protocol/errors.ts';
import type { Tls } from '../protocol/tls.ts';

/** As the flags `--tls-cert`, `--tls-key`, `--tls-ca` and `--tls-client-ca` name them. */
export interface TlsFlags {
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  readonly tlsCa: string | undefined;
  readonly tlsClientCa?: string | undefined;
}

function refuse(flag: string, file: string, what: string, remedy: string, cause?: unknown): never {
  throw new LockstepError('E_TLS', `${flag} ${file}: ${what}`, { remedy, cause });
}

function read(flag: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    return refuse(flag, file, `it cannot be read (${why})`, `Give ${flag} a readable file in PEM.`, cause);
  }
}

/** The certificates of a PEM file, in its order. */
function certificatesOf(flag: string, file: string, pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) {
    const holds = /-----BEGIN ([\w ]+)-----/.exec(pem)?.[1];
    const what = holds === undefined ? 'it is not in PEM' : `it holds a ${holds.toLowerCase()}`;
    refuse(
      flag,
      file,
      `there is no certificate in it: ${what}`,
      `Give ${flag} a file with -----BEGIN CERTIFICATE-----.`,
    );
  }
  return blocks.map((block, i) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      return refuse(flag, file, `its certificate ${i + 1} is damaged`, 'Copy the file anew.', cause);
    }
  });
}

function keyOf(file: string, pem: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch (cause) {
    if (/-----BEGIN ENCRYPTED|Proc-Type: 4,ENCRYPTED/.test(pem)) {
      return refuse('--tls-key', file, 'it is encrypted', `Decrypt it: openssl pkey -in ${file} -out key.pem`, cause);
    }
    return refuse('--tls-key', file, 'there is no private key in it', 'Give the key of --tls-cert in PEM.', cause);
  }
}

function checkDates(flag: string, file: string, certificate: X509Certificate, nowMs: number): void {
  const [from, to] = [new Date(certificate.validFrom), new Date(certificate.validTo)];
  if (nowMs > to.getTime()) {
    refuse(flag, file, `the certificate expired on ${to.toISOString()}`, 'Renew it.');
  }
  if (nowMs < from.getTime()) {
    refuse(flag, file, `the certificate is not valid before ${from.toISOString()}`, "Look at this machine's clock.");
  }
}

/** The certificates of a file of authorities; null where none is named. */
function authorityIn(flag: string, file: string | undefined, nowMs: number): string | null {
  if (file === undefined) return null;
  const ca = read(flag, file);
  const all = certificatesOf(flag, file, ca);
  // Of many, some may have expired.
  const [only] = all;
  if (only !== undefined && all.length === 1) checkDates(flag, file, only, nowMs);
  return ca;
}

/** What the flags name, checked: files, dates, and that the key is the certificate's. Null without any. Throws E_TLS. */
export function readTls(flags: TlsFlags, nowMs: number): Tls | null {
  const { tlsCert, tlsKey, tlsCa } = flags;
  const ca = authorityIn('--tls-ca', tlsCa, nowMs);
  const clientCa = authorityIn('--tls-client-ca', flags.tlsClientCa, nowMs);
  if (tlsCert === undefined || tlsKey === undefined) return ca === null ? null : { identity: null, ca, clientCa };
  const cert = read('--tls-cert', tlsCert);
  const key = read('--tls-key', tlsKey);
  const [own] = certificatesOf('--tls-cert', tlsCert, cert);
  if (own === undefined) throw new TypeError('there is a certificate');
  if (!own.checkPrivateKey(keyOf(tlsKey, key))) {
    refuse(
      '--tls-key',
      tlsKey,
      `it is not the key of the certificate in ${tlsCert}`,
      'Give the two that were made together.',
    );
  }
  checkDates('--tls-cert', tlsCert, own, nowMs);
  return { identity: { cert, key }, ca, clientCa };
}
