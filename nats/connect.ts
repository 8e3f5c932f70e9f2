// Connecting to a NATS server, and the words for what goes wrong there. A shell.
//
// A connection that breaks is not taken up again: what was under way then is lost, and only the streams' ends could tell. They end with
// it, as they would with a socket; who had it makes another one, in a cluster to whichever server answers.

import { checkServerIdentity } from 'node:tls';
import { connect, credsAuthenticator, errors, type NatsConnection, type TlsOptions } from '@nats-io/transport-node';
import { LockstepError } from '../protocol/errors.ts';
import { inboxOf, type NatsRole, type NatsServer } from './server.ts';

const CONNECT_TIMEOUT_MS = 5000;
/** How often the client asks the server for a sign of life, and after how many without one the connection is lost. */
const PING = { everyMs: 20_000, unanswered: 2 };
/** The smallest `max_payload` that the handshake fits. NATS's own default is 1 MiB. */
export const MIN_PAYLOAD_BYTES = 1024;

export interface Nats {
  readonly connection: NatsConnection;
  readonly server: NatsServer;
  /** Resolves when the connection has ended, with E_NATS_LOST that names the server and says why; null: it was closed here. */
  readonly lost: Promise<LockstepError | null>;
  /** Bytes of payload that the server takes in one message. */
  readonly payloadBytes: number;
  /** Sends what was published and closes. */
  close(): Promise<void>;
}

/**
 * The client looks for the name `localhost` in the certificate of a server that is called by its IP address. Here it must be that of one of the
 * servers that the URL names: each of them is trusted as much as the one that is called.
 */
function tlsOf({ ca, hostPort }: NatsServer): TlsOptions & { checkServerIdentity: typeof checkServerIdentity } {
  const hosts = hostPort.split(',').map((one) => one.replace(/:\d+$/, '').replaceAll(/[[\]]/g, ''));
  return {
    ...(ca !== null && { ca }),
    checkServerIdentity: (_called, certificate) => {
      const complaints = hosts.map((host) => checkServerIdentity(host, certificate));
      return complaints.includes(undefined) ? undefined : complaints[0];
    },
  };
}

/** Connects as `name`. Throws E_NATS_UNREACHABLE or E_NATS_REFUSED (credentials, limits). */
export async function connectNats(server: NatsServer, name: string, role: NatsRole = 'observer'): Promise<Nats> {
  let connection: NatsConnection;
  try {
    connection = await connect({
      servers: server.hostPort.split(','),
      name,
      inboxPrefix: inboxOf(role),
      reconnect: false,
      timeout: CONNECT_TIMEOUT_MS,
      pingInterval: PING.everyMs,
      maxPingOut: PING.unanswered,
      ...(server.tls && { tls: tlsOf(server) }),
      ...(server.user !== null && { user: server.user, pass: server.password ?? '' }),
      ...(server.token !== null && { token: server.token }),
      ...(server.credentials !== null && {
        authenticator: credsAuthenticator(new TextEncoder().encode(server.credentials)),
      }),
    });
  } catch (cause) {
    throw cause instanceof errors.AuthorizationError || cause instanceof errors.UserAuthenticationExpiredError
      ? new LockstepError('E_NATS_REFUSED', `the NATS server at ${server.url} lets nobody in with these credentials`, {
          remedy:
            'Give a user and password or a token in --nats-url (or LOCKSTEP_NATS_URL), or a file with --nats-creds.',
          cause,
        })
      : new LockstepError('E_NATS_UNREACHABLE', `no NATS server can be reached at ${server.url}: ${messageOf(cause)}`, {
          remedy: 'Start nats-server there, or check --nats-url.',
          cause,
        });
  }
  const payloadBytes = connection.info?.max_payload ?? MIN_PAYLOAD_BYTES;
  if (payloadBytes < MIN_PAYLOAD_BYTES) {
    await connection.close();
    throw new LockstepError(
      'E_NATS_REFUSED',
      `the NATS server at ${server.url} takes ${payloadBytes} bytes a message; Lockstep needs ${MIN_PAYLOAD_BYTES}`,
      { remedy: 'Raise max_payload in its configuration: 1 MB is its default, and serves well.' },
    );
  }
  let refusal: string | null = null;
  let isClosing = false;
  const watch = async (): Promise<void> => {
    for await (const status of connection.status()) {
      if (status.type !== 'error') continue;
      // The server goes on after it refused a subject; a run that can't speak on its own does not.
      if (!(status.error instanceof errors.PermissionViolationError) || !isOurs(status.error.subject)) continue;
      refusal = status.error.message;
      await connection.close();
    }
  };
  void watch();
  const lost = connection.closed().then((error) => {
    if (isClosing) return null;
    const why = refusal ?? (error instanceof Error ? messageOf(error) : 'it ended the connection');
    return new LockstepError('E_NATS_LOST', `the connection to the NATS server at ${server.url} is lost: ${why}`, {
      remedy: "See the server's log; --resume goes on from the last checkpoint.",
    });
  });
  return {
    connection,
    server,
    lost,
    payloadBytes,
    close: async () => {
      isClosing = true;
      if (!connection.isClosed()) await connection.drain().catch(() => undefined);
    },
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** JetStream's subjects may be refused: a run does without it. */
function isOurs(subject: string): boolean {
  return subject.startsWith('lockstep.') || subject.startsWith('_INBOX.');
}
