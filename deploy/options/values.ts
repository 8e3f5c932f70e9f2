// From a flag's text to its value, one parser a kind of value. Pure. Each is strict: no rounding, no trimming of junk, no
// second meaning; what it refuses it says in words that the caller puts after the flag's name.

import { parseNatsUrl, type NatsServer } from '../../nats/server.ts';
import type { ErrorCode } from '../../protocol/errors.ts';

/** A value that a flag does not take. `rule` continues "--workers 0: "; `code` where it is more than a usage error. */
export class BadValue extends Error {
  readonly code: ErrorCode;
  readonly remedy: string | undefined;
  /** The text as it may be shown, where it may hold a secret. */
  readonly shown: string | undefined;

  constructor(rule: string, more: { code?: ErrorCode; remedy?: string; shown?: string } = {}) {
    super(rule);
    this.name = 'BadValue';
    this.code = more.code ?? 'E_USAGE';
    this.remedy = more.remedy;
    this.shown = more.shown;
  }
}

export type Parser<T> = (text: string) => T;

/** Flags as they are written for another process; those without a value are left out. */
export function argumentsOf(flags: Readonly<Record<string, string | undefined>>): string[] {
  return Object.entries(flags).flatMap(([flag, value]) => (value === undefined ? [] : [flag, value]));
}

const LARGEST = Number.MAX_SAFE_INTEGER;

/** Decimal digits only: no sign, fraction, exponent or separators. */
export function wholeNumber(least: number, most: number = LARGEST): Parser<number> {
  const range = most === LARGEST ? `of at least ${least}` : `from ${least} to ${most.toLocaleString('en-US')}`;
  return (text) => {
    const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(value) || value < least || value > most) {
      throw new BadValue(`it must be a whole number ${range}`);
    }
    return value;
  };
}

/** A whole number of at least 1, or `auto`. */
export function numberOrAuto(most: number): Parser<number | 'auto'> {
  const number = wholeNumber(1, most);
  return (text) => {
    if (text === 'auto') return text;
    try {
      return number(text);
    } catch (error) {
      if (!(error instanceof BadValue)) throw error;
      throw new BadValue(`${error.message}, or auto`);
    }
  };
}

/** Machines: at least and at most. */
export interface NodeRange {
  readonly min: number;
  readonly max: number;
}

/** Machines of one run at most. */
const MAX_NODES = 256;

/** `MIN:MAX`, or `N` for `N:N`. */
export const nodeRange: Parser<NodeRange> = (text) => {
  const [, least, most = least] = /^(\d{1,4})(?::(\d{1,4}))?$/.exec(text) ?? [];
  const [min, max] = [Number(least), Number(most)];
  if (!(min >= 1 && max >= min && max <= MAX_NODES)) {
    throw new BadValue(`it must be N or MIN:MAX, from 1 to ${MAX_NODES}`, {
      remedy: 'E.g. --nnodes 2, or --nnodes 1:4.',
    });
  }
  return { min, max };
};

export const positiveNumber: Parser<number> = (text) => {
  const value = /^(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
  if (!Number.isFinite(value) || value <= 0) throw new BadValue('it must be a number above 0, e.g. 0.001');
  return value;
};

export const share: Parser<number> = (text) => {
  const value = /^(0|1|[01]?\.\d+)$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= 0 && value <= 1)) throw new BadValue('it must be a number from 0 to 1, e.g. 0.01');
  return value;
};

export interface StepRange {
  readonly from: number;
  readonly to: number;
}

/** `FROM-TO`, both included. */
export const stepRange: Parser<StepRange> = (text) => {
  const [, from = '', to = ''] = /^(\d{1,16})-(\d{1,16})$/.exec(text) ?? [];
  const range = { from: Number(from), to: Number(to) };
  if (from === '' || !Number.isSafeInteger(range.to) || range.from > range.to) {
    throw new BadValue('it must be two steps, the first one not after the last, e.g. 100-200');
  }
  return range;
};

export function powerOfTwo(most: number): Parser<number> {
  return (text) => {
    const value = /^\d{1,10}$/.test(text) ? Number(text) : 0;
    const powers = Array.from({ length: Math.log2(most) + 1 }, (_, i) => 2 ** i);
    if (!powers.includes(value)) {
      throw new BadValue(`it must be a power of two from 1 to ${most}`, { remedy: `Use one of ${powers.join(', ')}.` });
    }
    return value;
  };
}

export const onOrOff: Parser<boolean> = (text) => {
  if (text !== 'on' && text !== 'off') throw new BadValue('it must be on or off');
  return text === 'on';
};

/** The environment form of a switch: a variable has a text even to say no. */
export const switchWord: Parser<boolean> = (text) => {
  const word = text.toLowerCase();
  if (['1', 'true', 'yes', 'on'].includes(word)) return true;
  if (['0', 'false', 'no', 'off', ''].includes(word)) return false;
  throw new BadValue('it must be 1 or 0');
};

const UNIT_SECONDS = { s: 1, m: 60, h: 3600, d: 86_400 } as const;

/** `90m`, `12h`, `30d`: seconds; `never`: null. */
export const duration: Parser<number | null> = (text) => {
  if (text === 'never') return null;
  const found = /^(\d{1,9})([smhd])$/.exec(text);
  const seconds = Number(found?.[1] ?? 0) * UNIT_SECONDS[(found?.[2] ?? 's') as keyof typeof UNIT_SECONDS];
  if (!(seconds > 0)) throw new BadValue('it must be a time like 90m, 12h or 30d, or never');
  return seconds;
};

export const someText: Parser<string> = (text) => {
  if (text.trim() === '') throw new BadValue('it must not be empty');
  return text;
};

export function oneOf<const T extends string>(values: readonly T[]): Parser<T> {
  return (text) => {
    const value = values.find((v) => v === text);
    if (value === undefined) throw new BadValue(`it must be one of ${values.join(', ')}`);
    return value;
  };
}

/** Values that the contract names, of which this version has some: `later` are refused as not there yet, not as misspelt. */
export function capability<const T extends string>(able: {
  readonly now: readonly T[];
  readonly later: readonly string[];
}): Parser<T> {
  return (text) => {
    if (able.later.includes(text)) {
      throw new BadValue('this version of Lockstep does not have it', {
        code: 'E_NOT_SUPPORTED',
        remedy: `It has ${able.now.join(', ')}.`,
      });
    }
    return oneOf([...able.now])(text);
  };
}

export interface Address {
  /** A name, or an IP address without brackets. */
  readonly host: string;
  readonly port: number;
}

/** `HOST:PORT` or `[v6]:PORT`; port 0 asks for a free one. */
export const address: Parser<Address> = (text) => {
  const match = /^(?:\[([0-9a-f:.]+(?:%\w+)?)\]|([\w.-]+)):(\d{1,5})$/i.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3] ?? Number.NaN);
  if (host === undefined || !(port <= 65_535)) {
    throw new BadValue('it must be HOST:PORT, e.g. 127.0.0.1:29400 or [::1]:29400', {
      code: 'E_LISTEN',
      remedy: 'Ports go from 0 to 65535; port 0 picks a free one and prints it.',
    });
  }
  return { host, port };
};

/** As it is written in a flag or a URL. */
export function addressText({ host, port }: Address): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** A coordinator's address; `ws:` and `wss:` are taken for `http:` and `https:`, and a bare HOST:PORT for `http:`. */
export const coordinatorUrl: Parser<string> = (text) => {
  const whole = /^[a-z]+:\/\//i.test(text) ? text.replace(/^ws/i, 'http') : `http://${text}`;
  const url = URL.canParse(whole) ? new URL(whole) : null;
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.hostname === '') {
    throw new BadValue('it must be the address that the coordinator printed, e.g. http://127.0.0.1:29400');
  }
  return whole.replace(/\/+$/, '');
};

/** A URL's text without the user, password or token in it. */
function withoutSecrets(text: string): string {
  return text.replace(/(^|\/\/)[^/]*@/, '$1***@');
}

/** A NATS server: `nats://[USER:PASSWORD@ or TOKEN@]HOST[:PORT]`, or `tls://...`. */
export const natsUrl: Parser<NatsServer> = (text) => {
  const found = parseNatsUrl(text);
  if (found === null || found.path !== '') {
    throw new BadValue('it must be nats://HOST:PORT or tls://HOST:PORT', { shown: withoutSecrets(text) });
  }
  return found.server;
};

/** Where a worker finds its coordinator: at an address, or by the run's name on a NATS server. */
export type CoordinatorAddress =
  | { readonly kind: 'http'; readonly url: string }
  | { readonly kind: 'nats'; readonly server: NatsServer; readonly run: string };

/** What the coordinator printed: `http://HOST:PORT`, or `nats://HOST:PORT/RUN`. */
export const coordinatorAddress: Parser<CoordinatorAddress> = (text) => {
  if (!/^(nats|tls):\/\//i.test(text)) return { kind: 'http', url: coordinatorUrl(text) };
  const found = parseNatsUrl(text);
  if (found === null || found.path === '') {
    throw new BadValue("it must end with the run's name, e.g. nats://127.0.0.1:4222/cifar10-cnn-20261126-170000", {
      shown: withoutSecrets(text),
    });
  }
  return { kind: 'nats', server: found.server, run: found.path };
};
