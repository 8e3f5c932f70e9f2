// Which request to a port of the run is answered, and which is refused with which code. Pure: what was asked and the rules come in.
//
// On loopback reading is open: to every process of this machine, and so to any web page that a browser on it shows, were it not for two rules. A
// page of another origin is refused (Origin, and Sec-Fetch-Site where a browser sends no Origin), and so is a name that is none of this machine's: a
// page may have its own name point here. Elsewhere a token is shown, which browsers never do by themselves.

import { isLoopback } from './loopback.ts';
import { bearerOf, permit, type Keys, type Scope } from './token.ts';

/** A request as Node has it. */
export interface Asked {
  readonly method?: string | undefined;
  readonly url?: string | undefined;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  /** Over TLS, `authorized` says that a certificate was shown which the authority has signed. */
  readonly socket: object;
}

export interface AccessRules {
  /** Null: nobody is asked for a token (tests on loopback). */
  readonly keys: Keys | null;
  /** Nobody but processes of this machine can call. */
  readonly isLoopback: boolean;
  readonly needsCertificate: boolean;
  /** What a path takes; null: nothing. */
  readonly needOf: (path: string) => Scope | null;
}

export const HEALTH_PATH = '/healthz';

export type RefusalCode = 'E_ORIGIN' | 'E_HOST' | 'E_TLS' | 'E_UNAUTHORIZED' | 'E_TOKEN_EXPIRED' | 'E_FORBIDDEN';

export type Answer =
  | { readonly kind: 'allowed' }
  | {
      readonly kind: 'refused';
      readonly status: 401 | 403;
      readonly code: RefusalCode;
      readonly because: string;
      readonly remedy: string;
    };

const ALLOWED: Answer = { kind: 'allowed' };

const REMEDIES = {
  E_UNAUTHORIZED: 'Show a token of this run: Authorization: Bearer TOKEN.',
  E_TOKEN_EXPIRED: 'Make another: lockstep token --token-file KEY --scope SCOPE.',
  E_FORBIDDEN: 'Show one of that scope: lockstep token --token-file KEY --scope SCOPE.',
} as const;

function forbidden(code: RefusalCode, because: string, remedy: string): Answer {
  return { kind: 'refused', status: 403, code, because, remedy };
}

const headerOf = ({ headers }: Asked, name: string): string | undefined => {
  const value = headers[name];
  return typeof value === 'string' ? value : value?.join(', ');
};

/** Whether who asks shows a token that may do what takes `wanted`. */
export function permitted(asked: Asked, wanted: Scope, rules: AccessRules, nowMs: number): Answer {
  if (rules.keys === null) return ALLOWED;
  const found = permit(bearerOf(headerOf(asked, 'authorization')), wanted, rules.keys, nowMs);
  if (found.kind === 'allowed') return ALLOWED;
  const { code, because } = found;
  return { kind: 'refused', status: code === 'E_FORBIDDEN' ? 403 : 401, code, because, remedy: REMEDIES[code] };
}

/** `example.org:80` is `example.org`; `[::1]:80` is `[::1]`. */
function nameIn(host: string): string {
  return host.replace(/:\d+$/, '');
}

/** True for what a web page of another origin asks. One that is followed to as a link is nobody's but the reader's. */
function isForeign(asked: Asked): boolean {
  const [origin, host, site] = ['origin', 'host', 'sec-fetch-site'].map((name) => headerOf(asked, name));
  if (origin !== undefined) {
    const isOwn = host !== undefined && URL.canParse(origin) && new URL(origin).host === host.toLowerCase();
    if (!isOwn) return true;
  }
  if (site === undefined || site === 'same-origin' || site === 'none') return false;
  return headerOf(asked, 'sec-fetch-mode') !== 'navigate' || asked.method !== 'GET';
}

/** Judges a request by its head, before anything is done about it. */
export function judgeRequest(asked: Asked, rules: AccessRules, nowMs: number): Answer {
  const path = (asked.url ?? '').split('?', 1)[0] ?? '';
  const hasCertificate = 'authorized' in asked.socket && asked.socket.authorized === true;
  if (rules.needsCertificate && !hasCertificate && path !== HEALTH_PATH) {
    return forbidden(
      'E_TLS',
      'no certificate of the authority that --tls-client-ca names is shown',
      'Call with a certificate that it has signed: --tls-cert and --tls-key.',
    );
  }
  const wanted = rules.needOf(path);
  const isWorker = wanted === 'work';
  // Workers are no browsers: theirs is refused for any.
  if (isWorker ? headerOf(asked, 'origin') !== undefined : isForeign(asked)) {
    return forbidden('E_ORIGIN', 'a web page of another origin asks', 'Open the page of the coordinator itself.');
  }
  const host = headerOf(asked, 'host');
  if (rules.isLoopback && host !== undefined && !isLoopback(nameIn(host)) && !isWorker) {
    return forbidden(
      'E_HOST',
      `it is called by the name ${JSON.stringify(host.slice(0, 100))}, which is none of this machine's`,
      'Call it by 127.0.0.1 or localhost.',
    );
  }
  if (wanted === null || (wanted === 'observe' && rules.isLoopback)) return ALLOWED;
  return permitted(asked, wanted, rules, nowMs);
}

export type ConnectionFault = 'E_HANDSHAKE' | 'E_TOO_LARGE' | 'E_TLS' | 'E_REQUEST';

/** What is wrong with a connection on which no request came to be, by the code that Node or OpenSSL gives it; null: it broke off. */
export function connectionFault(error: object): ConnectionFault | null {
  const code = 'code' in error ? String(error.code) : '';
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT' || code === 'ERR_TLS_HANDSHAKE_TIMEOUT') return 'E_HANDSHAKE';
  if (code === 'HPE_HEADER_OVERFLOW') return 'E_TOO_LARGE';
  if (code.startsWith('ERR_SSL') || code.startsWith('ERR_TLS')) return 'E_TLS';
  return code.startsWith('HPE_') ? 'E_REQUEST' : null;
}
