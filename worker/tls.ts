// Calling somebody over TLS: whom to trust, and what went wrong when it did. A shell.
//
// Trusted is who shows a certificate that leads to an authority and names the host that was called; or, whatever it names, this side's own
// certificate: only who has its key can show it. So one certificate does for a whole cluster, and the workers that the
// launcher starts need no name for the machine that they are on.

import { X509Certificate } from 'node:crypto';
import { checkServerIdentity, connect, rootCertificates, type ConnectionOptions } from 'node:tls';
import { LockstepError } from '../protocol/errors.ts';
import { NEEDS_TLS, tlsFault, type Tls, type TlsFault } from '../protocol/tls.ts';

const PROBE_TIMEOUT_MS = 5000;

/** Of a side's TLS, what decides whom it trusts. */
export interface Trust {
  /** With its key it is also shown, to who asks for a certificate. */
  readonly identity: { readonly cert: string; readonly key?: string } | null;
  readonly ca: Tls['ca'];
}

/** What a call over TLS is made with; null: whom Node trusts. */
export function callerOptions(tls: Trust | null): ConnectionOptions {
  if (tls === null || (tls.ca === null && tls.identity === null)) return {};
  const own = tls.identity === null ? null : new X509Certificate(tls.identity.cert);
  return {
    ...(tls.identity?.key !== undefined && { cert: tls.identity.cert, key: tls.identity.key }),
    ca: [...(tls.ca === null ? rootCertificates : [tls.ca]), ...(own === null ? [] : [own.toString()])],
    // A server's own certificate among those that are trusted is enough: its authority needn't be there, too.
    allowPartialTrustChain: true,
    checkServerIdentity: (host, shown) =>
      own !== null && shown.fingerprint256 === own.fingerprint256 ? undefined : checkServerIdentity(host, shown),
  };
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}

/** True when a TLS server answers there, whoever it is. */
async function speaksTls(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    // Nothing is sent or believed: it is only asked for its hello.
    const socket = connect({ host, port, rejectUnauthorized: false, timeout: PROBE_TIMEOUT_MS });
    const end = (answer: boolean) => (): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('secureConnect', end(true)).once('error', end(false)).once('timeout', end(false));
  });
}

async function faultOf(url: URL, error: unknown): Promise<TlsFault | null> {
  if (/^(https|wss):$/.test(url.protocol)) {
    return tlsFault(codeOf(error), error instanceof Error && 'reason' in error ? String(error.reason) : String(error));
  }
  // A TLS server closes on who speaks plainly; so may others.
  if (codeOf(error) !== 'ECONNRESET') return null;
  const host = url.hostname.replaceAll(/^\[|\]$/g, '');
  return (await speaksTls(host, Number(url.port === '' ? 80 : url.port))) ? NEEDS_TLS : null;
}

/** The failure of a call as E_TLS, when TLS is its reason. `who` is called, e.g. `the coordinator`. */
export async function tlsError(who: string, url: URL, error: unknown): Promise<LockstepError | null> {
  const fault = await faultOf(url, error);
  if (fault === null) return null;
  return new LockstepError('E_TLS', `${who} at ${url.host}: ${fault.what}`, { remedy: fault.remedy, cause: error });
}
