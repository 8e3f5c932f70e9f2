// The hosts of a launch: from what -H, a hostfile or a discovery script says to names and slots. Pure. A name goes to ssh as it is,
// which knows aliases, users and ports by its own configuration; here it is only made sure that it can be nothing but a name (one that
// begins with a dash would be an option of ssh) and that no host is there twice.

import { LockstepError } from '../../protocol/errors.ts';

export interface Host {
  /** As ssh is told: `[USER@]NAME`, an IPv6 address without brackets. */
  readonly name: string;
  /** Workers on it; null: as many as it finds places for, one a GPU or else one a core. */
  readonly slots: number | null;
  /** Where it was named, for what is said about it: `-H`, `hosts.txt:3`. */
  readonly where: string;
}

/** Workers of one host at most. */
export const MAX_SLOTS = 1024;
/** Hosts of one launch at most: each is an ssh connection. */
const MAX_HOSTS = 256;
/** As DNS has it. */
const MAX_NAME = 255;

const HOSTS_REMEDY = 'A host is NAME, NAME:SLOTS, USER@NAME:SLOTS or [IPV6]:SLOTS.';

function refuse(where: string, text: string, because: string, remedy: string = HOSTS_REMEDY): never {
  throw new LockstepError('E_HOSTS', `${where}: "${text}": ${because}`, { remedy });
}

function slotsOf(where: string, text: string, slots: string): number {
  const value = /^\d{1,5}$/.test(slots) ? Number(slots) : Number.NaN;
  if (!(value >= 1 && value <= MAX_SLOTS)) {
    refuse(where, text, `"${slots}" is no number of workers`, `Give a whole number from 1 to ${MAX_SLOTS}.`);
  }
  return value;
}

/** `[USER@]HOST[:SLOTS]` */
function hostOf(text: string, where: string): Host {
  const match =
    /^(?<user>[A-Za-z0-9_][\w.-]*\$?@)?(?:\[(?<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?<name>[A-Za-z0-9_][\w.-]*))(?::(?<slots>.*))?$/.exec(
      text,
    );
  const { user = '', six, name, slots } = match?.groups ?? {};
  if (text.split(':').length > 2 && six === undefined) {
    refuse(where, text, 'it has more than one colon', 'Put an IPv6 address into brackets: [fe80::1]:4.');
  }
  const host = six ?? name;
  if (host === undefined || text.length > MAX_NAME) refuse(where, text, 'it is not the name of a host');
  if (six !== undefined && !six.includes(':')) refuse(where, text, 'brackets are for IPv6 addresses');
  return { name: user + host, slots: slots === undefined ? null : slotsOf(where, text, slots), where };
}

/** The part of a name that says which machine it is. */
function machineOf({ name }: Host): string {
  return name.slice(name.indexOf('@') + 1).toLowerCase();
}

function checked(hosts: readonly Host[]): readonly Host[] {
  const seen = new Map<string, Host>();
  for (const host of hosts) {
    const before = seen.get(machineOf(host));
    if (before !== undefined) {
      const there = before.where === host.where ? '' : `, and in ${before.where}`;
      refuse(host.where, host.name, `it is named twice${there}`, 'Name each host once, with all its slots.');
    }
    seen.set(machineOf(host), host);
  }
  if (hosts.length > MAX_HOSTS) {
    throw new LockstepError('E_HOSTS', `${hosts.length} hosts: one launch has ${MAX_HOSTS} at most`, {
      remedy: 'Start the coordinator and the workers by a scheduler instead.',
    });
  }
  return hosts;
}

/** `host1:4,host2:4`. Throws E_HOSTS. */
export function parseHostList(text: string, where = '-H'): readonly Host[] {
  const parts = text.split(',').map((part) => part.trim());
  return checked(parts.map((part) => (part === '' ? refuse(where, text, 'a host is missing') : hostOf(part, where))));
}

/** Lines that are not empty once their comment is taken away, with where they are. */
function linesOf(text: string, file: string): { readonly line: string; readonly where: string }[] {
  return text
    .split(/\r?\n/)
    .map((line, i) => ({ line: line.replace(/#.*$/, '').trim(), where: `${file}:${i + 1}` }))
    .filter(({ line }) => line !== '');
}

/**
 * A hostfile as mpirun and horovodrun read it: `HOST [slots=N]` a line, or `HOST:N`; `#` begins a comment. Open MPI's
 * `max_slots=N` is understood as the limit that it is: slots beyond it are refused. Throws E_HOSTS, naming the line.
 */
export function parseHostfile(text: string, file: string): readonly Host[] {
  const hosts = linesOf(text, file).map(({ line, where }) => {
    const [name = '', ...words] = line.split(/\s+/);
    let host = hostOf(name, where);
    let most = MAX_SLOTS;
    for (const word of words) {
      const [key = '', value] = word.split('=', 2);
      if (value === undefined || !['slots', 'max_slots', 'max-slots'].includes(key)) {
        refuse(where, line, `"${word}" is not understood`, 'A line is HOST slots=N.');
      }
      if (key !== 'slots') most = slotsOf(where, line, value);
      else if (host.slots === null) host = { ...host, slots: slotsOf(where, line, value) };
      else refuse(where, line, 'its slots are given twice', 'A line is HOST slots=N.');
    }
    if ((host.slots ?? 0) > most) refuse(where, line, `it has ${host.slots} slots, and ${most} at most`);
    return host;
  });
  if (hosts.length === 0) {
    throw new LockstepError('E_HOSTS', `the hostfile ${file} names no host`, { remedy: 'Write lines HOST slots=N.' });
  }
  return checked(hosts);
}

/** What a discovery script prints: a host a line, as -H takes it. No line at all: no host for now. Throws E_HOSTS. */
export function parseDiscovered(text: string, script: string): readonly Host[] {
  return checked(linesOf(text, `the output of ${script}`).map(({ line, where }) => hostOf(line, where)));
}

/**
 * With `--nproc-per-node` where that says how many workers each has; `auto`, or not given: as many as it finds places for.
 * Throws E_HOSTS where a host says otherwise itself.
 */
export function withSlots(hosts: readonly Host[], each: number | 'auto' | undefined): readonly Host[] {
  if (each === undefined) return hosts;
  return hosts.map((host) => {
    if (host.slots !== null && host.slots !== each) {
      refuse(
        host.where,
        host.name,
        `it has ${host.slots} slots, and --nproc-per-node ${each} says otherwise`,
        'Leave one of them out.',
      );
    }
    return { ...host, slots: each === 'auto' ? null : each };
  });
}

/** What has become of a list of hosts. One whose slots have changed has gone and come. */
export function differenceOf(
  before: readonly Host[],
  after: readonly Host[],
): { readonly gone: readonly Host[]; readonly come: readonly Host[] } {
  const isIn = (hosts: readonly Host[], host: Host): boolean =>
    hosts.some(({ name, slots }) => name === host.name && slots === host.slots);
  return { gone: before.filter((host) => !isIn(after, host)), come: after.filter((host) => !isIn(before, host)) };
}
