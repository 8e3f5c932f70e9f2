// A NATS server with decentralized accounts, as hosted ones have: an operator, an account, and a user's credentials file, signed here.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { nkeys } from '@nats-io/transport-node';

type KeyPair = ReturnType<typeof nkeys.createUser>;

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** https://docs.nats.io: header, claims and an Ed25519 signature over both, base64url. */
function signed(issuer: KeyPair, subject: KeyPair, name: string, nats: object): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const iat = 1_700_000_000;
  const claims = { jti: name, iat, iss: issuer.getPublicKey(), name, sub: subject.getPublicKey(), nats };
  const body = `${part({ typ: 'JWT', alg: 'ed25519-nkey' })}.${part(claims)}`;
  return `${body}.${Buffer.from(issuer.sign(Buffer.from(body))).toString('base64url')}`;
}

/** Writes a server's configuration and a credentials file into `directory`. */
export function writeAccounts(directory: string): { readonly config: string; readonly credentials: string } {
  const [operator, account, user] = [nkeys.createOperator(), nkeys.createAccount(), nkeys.createUser()];
  const none = { subs: -1, conn: -1, leaf: -1, imports: -1, exports: -1, data: -1, payload: -1, wildcards: true };
  const operatorJwt = signed(operator, operator, 'an-operator', { type: 'operator', version: 2 });
  const accountJwt = signed(operator, account, 'an-account', { type: 'account', version: 2, limits: none });
  const limits = { subs: -1, data: -1, payload: -1 };
  const userJwt = signed(account, user, 'ann', { type: 'user', version: 2, pub: {}, sub: {}, ...limits });
  const config = join(directory, 'accounts.conf');
  const preload = `{ ${account.getPublicKey()}: "${accountJwt}" }`;
  writeFileSync(config, `operator: "${operatorJwt}"\nresolver: MEMORY\nresolver_preload: ${preload}\n`);
  const credentials = join(directory, 'ann.creds');
  const [jwt, seed] = [
    `-----BEGIN NATS USER JWT-----\n${userJwt}\n------END NATS USER JWT------\n`,
    text(user.getSeed()),
  ];
  writeFileSync(credentials, `${jwt}\n-----BEGIN USER NKEY SEED-----\n${seed}\n------END USER NKEY SEED------\n`);
  return { config, credentials };
}
