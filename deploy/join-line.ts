// The line that starts a worker of a coordinator that waits for them, to paste on its machine: whole, with an address that other
// machines have for it. Pure.

import { addressText, argumentsOf, type Address } from './options/values.ts';

export interface Joining {
  /** As the coordinator is reached on its own machine. */
  readonly url: string;
  /** The run's address on a NATS server, where workers join over one. */
  readonly natsAddress?: string;
  /** As `--listen` says. */
  readonly listen: Address;
  /** Addresses of this machine, those first that others are likely to reach. */
  readonly addresses: readonly string[];
  readonly tokenFile: string;
  readonly job: string;
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  readonly tlsCa: string | undefined;
  readonly tlsClientCa?: string | undefined;
  /** So many on each machine; undefined: one. */
  readonly nprocPerNode?: number | 'auto' | undefined;
}

/** Where other machines reach the coordinator: where it listens at all of this machine's addresses, at the likeliest. */
export function urlForOthers({ url, natsAddress, listen, addresses }: Joining): string {
  if (natsAddress !== undefined) return natsAddress;
  if (listen.host !== '0.0.0.0' && listen.host !== '::') return url;
  const { protocol, port } = new URL(url);
  const [host] = addresses;
  return host === undefined ? url : `${protocol}//${addressText({ host, port: Number(port) })}`;
}

export function joinLine(joining: Joining): string {
  const { tokenFile, job, tlsCert, tlsKey, tlsCa, tlsClientCa } = joining;
  const { natsAddress } = joining;
  // Over NATS the certificate is the page's alone, and the authority that of the server.
  const tls =
    natsAddress === undefined
      ? { '--tls-ca': tlsCa, '--tls-cert': tlsCert, '--tls-key': tlsKey, '--tls-client-ca': tlsClientCa }
      : { '--tls-ca': natsAddress.startsWith('tls:') ? tlsCa : undefined };
  const each = joining.nprocPerNode === undefined ? undefined : String(joining.nprocPerNode);
  const flags = {
    '--coordinator': urlForOthers(joining),
    '--token-file': tokenFile,
    ...tls,
    '--job': job,
    '--nproc-per-node': each,
  };
  return ['npx lockstep worker', ...argumentsOf(flags).map(quoted)].join(' ');
}

function quoted(word: string): string {
  return /^[\w./@%+=:,[\]-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
