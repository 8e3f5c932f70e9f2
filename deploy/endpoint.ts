// Where a run's coordinator is reached, by the endpoint.json that it leaves in the run directory, and whether it still answers there.

import { existsSync, readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { holderOf, type Holder } from '../coordinator/main.ts';
import { isLoopback } from '../protocol/loopback.ts';
import type { Trust } from '../worker/main.ts';

const ANSWER_TIMEOUT_MS = 5000;

export interface Endpoint {
  readonly url: string;
  /** Whom to trust: the certificate that the run itself left there. */
  readonly trust: Trust | null;
  /** Where the run's token lies; null: it does not say. */
  readonly tokenFile: string | null;
}

/** Another answer than 200. */
export class Refused extends Error {
  readonly status: number;

  constructor(status: number, what: string) {
    super(`it answered ${status} ${what}`);
    this.name = 'Refused';
    this.status = status;
  }
}

/** Null where there is none, or its coordinator does not listen yet. */
export function endpointIn(runDirectory: string): Endpoint | null {
  const file = join(runDirectory, 'endpoint.json');
  if (!existsSync(file)) return null;
  const endpoint = JSON.parse(readFileSync(file, 'utf8')) as {
    url?: unknown;
    certificate?: unknown;
    tokenFile?: unknown;
  } | null;
  if (typeof endpoint?.url !== 'string') return null;
  const { url, certificate, tokenFile } = endpoint;
  return {
    url,
    trust: typeof certificate === 'string' ? { identity: { cert: certificate }, ca: null } : null,
    tokenFile: typeof tokenFile === 'string' ? tokenFile : null,
  };
}

/** What is answered with 200; rejects otherwise, as an AbortError when there is no answer within 5 s. */
export async function answerOf(url: URL, trusted: Trust | null, token: string | null = null): Promise<string> {
  const options = {
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    headers: token === null ? {} : { authorization: `Bearer ${token}` },
  };
  const isSecure = url.protocol === 'https:';
  const trust = isSecure ? (await import('../worker/main.ts')).callerOptions(trusted) : {};
  return new Promise((resolve, reject) => {
    const request = isSecure ? httpsRequest(url, { ...options, ...trust }) : httpRequest(url, options);
    request.on('error', reject);
    request.on('response', (response) => {
      if (response.statusCode === 200) text(response).then(resolve, reject);
      else reject(new Refused(response.statusCode ?? 0, response.statusMessage ?? ''));
    });
    request.end();
  });
}

/** Nobody is there to answer, of what is known from another machine. */
const UNREACHABLE: ReadonlySet<string> = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT']);

/**
 * The holder of a run directory that lives, or may, and does not answer: null where there is none, or it answers, or can't be asked (it does
 * not listen yet, or on another machine's loopback).
 */
export async function hungHolderOf(runDirectory: string): Promise<Holder | null> {
  const held = existsSync(runDirectory) ? holderOf(runDirectory) : null;
  const endpoint = held === null ? null : endpointIn(runDirectory);
  if (held === null || endpoint === null) return null;
  const isHere = held.holder.host === hostname();
  const url = new URL('/healthz', endpoint.url);
  if (!isHere && isLoopback(url.hostname)) return null;
  try {
    await answerOf(url, endpoint.trust);
    return null;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const isSilent = error.name === 'AbortError';
    const isGone = !isHere && 'code' in error && typeof error.code === 'string' && UNREACHABLE.has(error.code);
    return isSilent || isGone ? held.holder : null;
  }
}
