// A NATS server as a URL names it, with what it asks of who connects; and how it is called where others can read it: without secrets.
// Pure.
//
//     nats://HOST:PORT     nats://USER:PASSWORD@HOST:PORT     nats://TOKEN@HOST:PORT     tls://... where only TLS will do

export const NATS_PORT = 4222;

export interface NatsServer {
  /** Without secrets: `nats://host:4222`. */
  readonly url: string;
  readonly hostPort: string;
  /** Connect over TLS or not at all; else TLS is taken where the server has it. */
  readonly tls: boolean;
  /** Certificates that are trusted in place of those that Node trusts, in PEM; null: Node's. */
  readonly ca: string | null;
  readonly user: string | null;
  readonly password: string | null;
  readonly token: string | null;
  /** A credentials file's text (JWT and seed). */
  readonly credentials: string | null;
}

/** The server that `text` names, and the path after it without its slash; null where it is no such URL. A bare HOST:PORT is `nats:`. */
export function parseNatsUrl(text: string): { readonly server: NatsServer; readonly path: string } | null {
  const whole = /^[a-z]+:\/\//i.test(text) ? text : `nats://${text}`;
  const url = URL.canParse(whole) ? new URL(whole) : null;
  if (url === null || (url.protocol !== 'nats:' && url.protocol !== 'tls:')) return null;
  if (url.hostname === '' || url.search !== '' || url.hash !== '') return null;
  try {
    const [user, password, path] = [url.username, url.password, url.pathname].map(decodeURIComponent);
    const hostPort = `${url.hostname.toLowerCase()}:${url.port === '' ? NATS_PORT : url.port}`;
    const isToken = user !== '' && password === '';
    const server = {
      url: `${url.protocol}//${hostPort}`,
      hostPort,
      tls: url.protocol === 'tls:',
      ca: null,
      user: user === '' || isToken ? null : (user ?? null),
      password: user === '' || isToken ? null : (password ?? null),
      token: isToken ? (user ?? null) : null,
      credentials: null,
    };
    return { server, path: (path ?? '').replace(/^\/+/, '') };
  } catch {
    return null;
  }
}

/** With its secrets, for a child's environment: never printed. */
export function secretUrlOf({ url, hostPort, user, password, token }: NatsServer): string {
  const secret = token ?? user;
  if (secret === null) return url;
  const more = token === null ? `:${encodeURIComponent(password ?? '')}` : '';
  return `${url.slice(0, -hostPort.length)}${encodeURIComponent(secret)}${more}@${hostPort}`;
}

/** A run's name as a token of subjects and buckets: as it is where its letters allow that. No two runs share one. */
export function subjectOf(run: string): string {
  const isPlain = /^[\w-]+$/.test(run) && !run.startsWith('b64-');
  return isPlain ? run : `b64-${Buffer.from(run).toString('base64url')}`;
}

/** Where the coordinator of a run listens for workers, and for their hearts (protocol/heartbeat.ts). */
export function controlSubject(run: string): string {
  return `lockstep.${subjectOf(run)}.control`;
}
export function heartSubject(run: string): string {
  return `lockstep.${subjectOf(run)}.heart`;
}
