// A data set's files from the run's coordinator, for a machine that has no way to a registry: file by file over HTTP, each going on where a
// cut download ended, also one of a process that is gone. What comes is not believed: each file must have its published MD5.

import { createWriteStream, existsSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { DataFile, DataSetSource } from '../../jobs/contract.ts';
import { dataPathOf } from '../../protocol/data-path.ts';
import { LockstepError } from '../../protocol/errors.ts';
import type { Tls } from '../../protocol/tls.ts';
import { hashOf, type Progress } from './fetch.ts';

/** How often in a row a file is asked for again without a byte of it having come. */
const TRIES = 5;
const AGAIN_MS = 500;
/** Without a byte for so long the connection is cut. */
const SILENCE_MS = 30_000;

export interface DataHost {
  /** http:// or https://HOST:PORT. */
  readonly url: string;
  readonly token: string | null;
  readonly tls: Tls | null;
}

/** Gets all files into `directory`, which keeps what has come of them. Throws E_DOWNLOAD, E_UNAUTHORIZED or E_HASH. */
export async function fetchFromCoordinator(
  source: Pick<DataSetSource, 'name' | 'files'>,
  host: DataHost,
  directory: string,
  progress: Progress,
): Promise<void> {
  mkdirSync(directory, { recursive: true });
  let before = 0;
  for (const file of source.files) {
    await fetchFile(source.name, file, host, directory, (bytes) => progress(before + bytes));
    before += file.bytes;
  }
}

async function fetchFile(
  name: string,
  file: DataFile,
  host: DataHost,
  directory: string,
  progress: Progress,
): Promise<void> {
  const whole = join(directory, file.name);
  if (existsSync(whole) && (await hashOf(whole, 'md5')) === file.md5) return;
  const part = `${whole}.part`;
  const have = (): number => (existsSync(part) ? statSync(part).size : 0);
  for (let tries = 1; have() < file.bytes;) {
    const before = have();
    try {
      await fetchRest(new URL(dataPathOf(name, file.name), host.url), file, {
        host,
        part,
        progress,
      });
    } catch (error) {
      if (error instanceof LockstepError) throw error;
      tries = have() > before ? 1 : tries + 1;
      const why = error instanceof Error ? error.message : String(error);
      if (tries > TRIES) {
        throw new LockstepError('E_DOWNLOAD', `${file.name} can't be had from the coordinator at ${host.url}: ${why}`, {
          remedy:
            'Start again: what has arrived is kept. Or set up the data by `lockstep setup` and --data-from registry.',
          cause: error,
        });
      }
      await new Promise<void>((resolve) => {
        setTimeout(resolve, AGAIN_MS);
      });
    }
  }
  const found = await hashOf(part, 'md5');
  if (found !== file.md5) {
    rmSync(part);
    throw new LockstepError(
      'E_HASH',
      `${file.name} from the coordinator at ${host.url} has the md5 ${found}, not ${file.md5}`,
      {
        remedy: "See to it that the coordinator's own data is whole: `npx lockstep setup` there.",
      },
    );
  }
  renameSync(part, whole);
}

/** One request for what is still missing. Rejects when it is cut; what came of it stays. */
async function fetchRest(
  url: URL,
  file: DataFile,
  { host, part, progress }: { readonly host: DataHost; readonly part: string; readonly progress: Progress },
): Promise<void> {
  const have = existsSync(part) ? statSync(part).size : 0;
  const headers = {
    ...(host.token !== null && { authorization: `Bearer ${host.token}` }),
    ...(have > 0 && { range: `bytes=${have}-`, 'if-range': `"${file.md5}"` }),
  };
  const isSecure = url.protocol === 'https:';
  const trust = isSecure ? (await import('../../worker/main.ts')).callerOptions(host.tls) : {};
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const request = isSecure ? httpsRequest(url, { headers, ...trust }) : httpRequest(url, { headers });
    request.setTimeout(SILENCE_MS, () => request.destroy(new Error(`nothing came for ${SILENCE_MS / 1000} s`)));
    request.once('error', reject).once('response', resolve).end();
  });
  const { statusCode = 0 } = response;
  if (statusCode !== 200 && statusCode !== 206) {
    response.resume();
    const refused = `the coordinator at ${host.url} answered ${statusCode} when it was asked for ${file.name}`;
    if (statusCode === 401 || statusCode === 403)
      throw new LockstepError('E_UNAUTHORIZED', refused, { remedy: "Give the run's token with --token-file." });
    if (statusCode === 404)
      throw new LockstepError('E_DOWNLOAD', refused, {
        remedy: "Set up the data on the coordinator's machine first: `lockstep setup`.",
      });
    throw new Error(`it answered ${statusCode}`);
  }
  let bytes = statusCode === 206 ? have : 0;
  response.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    progress(bytes);
  });
  await pipeline(response, createWriteStream(part, { flags: statusCode === 206 ? 'a' : 'w' }));
}
