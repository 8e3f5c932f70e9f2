// A NATS server as a URL names it, with what it asks of who connects; and how it is called where others can read it: without secrets.
// Pure.
//
//     nats://HOST:PORT     nats://USER:PASSWORD@HOST:PORT     nats://TOKEN@HOST:PORT     tls://... where only TLS will do
//     nats://A:PORT,B:PORT,C:PORT     the servers of one cluster: any of them will do

export const NATS_PORT = 4222;

export interface NatsServer {
  /** Without secrets: `nats://host:4222`. */
  readonly url: string;
  /** `host:4222`; those of a cluster separated by commas. */
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

/**
 * The server, or the cluster's servers, that `text` names, and the path after it without its slash; null where it is no such URL. A bare
 * HOST:PORT is `nats:`.
 */
export function parseNatsUrl(text: string): { readonly server: NatsServer; readonly path: string } | null {
  const [, scheme = 'nats://', rest = text] = /^([a-z]+:\/\/)(.*)$/i.exec(text) ?? [];
  // Other programs write the scheme before each: nats://A,nats://B.
  const [, secret = '', hosts = '', tail = ''] =
    /^([^/]*@)?([^/]*)(.*)$/.exec(rest.replaceAll(`,${scheme}`, ',')) ?? [];
  const texts = hosts.split(',').map((host) => `${scheme}${secret}${host}${tail}`);
  const urls = texts.flatMap((one) => (URL.canParse(one) ? new URL(one) : []));
  const [url] = urls;
  if (url === undefined || urls.length < texts.length || /:(,|$)/.test(hosts)) return null;
  if (url.protocol !== 'nats:' && url.protocol !== 'tls:') return null;
  if (urls.some(({ hostname }) => hostname === '') || url.search !== '' || url.hash !== '') return null;
  try {
    const [user, password, path] = [url.username, url.password, url.pathname].map(decodeURIComponent);
    const hostPort = urls
      .map(({ hostname, port }) => `${hostname.toLowerCase()}:${port === '' ? NATS_PORT : port}`)
      .join(',');
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

/** What a process is to a NATS server: permissions are given by it (deploy/nats/users.conf). */
export type NatsRole = 'coordinator' | 'worker' | 'observer';

/** Where answers to a process come in: of its role, so that permissions can keep others from reading or forging them. */
export function inboxOf(role: NatsRole): string {
  return `_INBOX.${role}`;
}
