// Certificates for tests, made when they are wanted: an authority, and servers' certificates signed by it (or by themselves), for any
// names, valid or expired. No key lies in the repository. X.509 (RFC 5280) in DER by hand: Node reads certificates and makes none.

import { generateKeyPairSync, sign, type KeyObject } from 'node:crypto';

export interface Certificate {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
}

/** Who signs: its name and its key. */
export interface Authority extends Certificate {
  readonly name: string;
  readonly privateKey: KeyObject;
}

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  const { length } = body;
  const head = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.from([tag, ...head]), body]);
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => der(0x30, ...parts);
const identifier = (hex: string): Buffer => der(0x06, Buffer.from(hex, 'hex'));
const text = (tag: number, value: string): Buffer => der(tag, Buffer.from(value, 'latin1'));
const TRUE = der(0x01, Buffer.from([0xff]));

const ECDSA_WITH_SHA256 = sequence(identifier('2a8648ce3d040302'));
const COMMON_NAME = '550403';
const BASIC_CONSTRAINTS = '551d13';
const SUBJECT_ALT_NAME = '551d11';

const nameOf = (commonName: string): Buffer =>
  sequence(der(0x31, sequence(identifier(COMMON_NAME), text(0x0c, commonName))));
/** UTCTime, which ends with 2049. */
const timeOf = (date: Date): Buffer => text(0x17, `${date.toISOString().replaceAll(/[-:T]/g, '').slice(2, 14)}Z`);
const pem = (label: string, bytes: Uint8Array): string =>
  `-----BEGIN ${label}-----\n${Buffer.from(bytes)
    .toString('base64')
    .replaceAll(/(.{64})/g, '$1\n')
    .trimEnd()}\n-----END ${label}-----\n`;

/** `127.0.0.1` becomes an IP address of the certificate, anything else a DNS name. */
const altName = (name: string): Buffer =>
  /^[\d.]+$/.test(name) ? der(0x87, Buffer.from(name.split('.').map(Number))) : text(0x82, name);

interface Wish {
  readonly commonName: string;
  readonly names: readonly string[];
  readonly isAuthority: boolean;
  readonly from: Date;
  readonly to: Date;
}

let serial = 1;

function make(wish: Wish, authority: Authority | null): Certificate & { readonly privateKey: KeyObject } {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const extensions = [
    sequence(identifier(BASIC_CONSTRAINTS), TRUE, der(0x04, wish.isAuthority ? sequence(TRUE) : sequence())),
    ...(wish.names.length === 0
      ? []
      : [sequence(identifier(SUBJECT_ALT_NAME), der(0x04, sequence(...wish.names.map(altName))))]),
  ];
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.from([0x10, 0, serial++])),
    ECDSA_WITH_SHA256,
    nameOf(authority?.name ?? wish.commonName),
    sequence(timeOf(wish.from), timeOf(wish.to)),
    nameOf(wish.commonName),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...extensions)),
  );
  const signature = sign('sha256', body, authority?.privateKey ?? privateKey);
  const certificate = sequence(body, ECDSA_WITH_SHA256, der(0x03, Buffer.from([0]), signature));
  return {
    cert: pem('CERTIFICATE', certificate),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    privateKey,
  };
}

const DAY_MS = 86_400_000;
const daysFromNow = (days: number): Date => new Date(Date.now() + days * DAY_MS);

export function makeAuthority(name = 'lockstep test authority'): Authority {
  const wish = { commonName: name, names: [], isAuthority: true, from: daysFromNow(-3), to: daysFromNow(3) };
  return { ...make(wish, null), name };
}

/** A server's certificate for `names`, signed by `authority`, by itself when that is null. `days`: when it is valid, from now. */
export function makeCertificate(
  names: readonly string[],
  authority: Authority | null,
  days: { readonly from: number; readonly to: number } = { from: -1, to: 1 },
): Certificate {
  const { cert, key } = make(
    {
      commonName: 'lockstep test',
      names,
      isAuthority: false,
      from: daysFromNow(days.from),
      to: daysFromNow(days.to),
    },
    authority,
  );
  return { cert, key };
}
