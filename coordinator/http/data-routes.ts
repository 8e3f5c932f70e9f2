// The data set's files for workers that reach nothing but the coordinator: `/data/NAME/FILE`, whole or from where a download was cut (Range,
// If-Range; the ETag is the file's published MD5, by which the worker verifies it, so nothing here need be believed). Only the files that the
// job names are served, and only to who may work (core/needs.ts). Read from the disk as they are sent; at most so many at once, so that
// workers that start together don't take the coordinator's memory.

import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { rangeOf } from '../../protocol/byte-range.ts';
import { DATA_PATH, dataPathOf } from '../../protocol/data-path.ts';

/** Files that are sent at the same time. */
export const MAX_DOWNLOADS = 64;
const RETRY_AFTER_SECONDS = 5;

export interface ServedData {
  /** The data set's name in paths. */
  readonly name: string;
  readonly directory: string;
  readonly files: readonly { readonly name: string; readonly bytes: number; readonly md5: string }[];
}

export function addData(app: FastifyInstance, data: ServedData): void {
  const { name, directory, files } = data;
  let sending = 0;
  const asked = (url: string): ServedData['files'][number] | undefined =>
    files.find((file) => url === dataPathOf(name, file.name));
  app.get(`${DATA_PATH}*`, async (request, reply) => {
    const file = asked(request.url.split('?', 1)[0] ?? '');
    if (file === undefined) {
      return reply.code(404).send({ code: 'E_NOT_FOUND', message: `the job's data set has no file ${request.url}` });
    }
    const path = join(directory, file.name);
    const size = await stat(path).then(
      (found) => found.size,
      () => -1,
    );
    if (size !== file.bytes) {
      const message = `${file.name} is not there as published: \`lockstep setup\` on the coordinator's machine fetches it`;
      return reply.code(404).send({ code: 'E_DATA_CORRUPT', message });
    }
    const etag = `"${file.md5}"`;
    const range = rangeOf(request.headers.range, headerOf(request.headers['if-range']), { bytes: size, etag });
    void reply.headers({ etag, 'accept-ranges': 'bytes', 'content-type': 'application/octet-stream' });
    if (range.kind === 'none') {
      return reply.code(416).header('content-range', `bytes */${size}`).send();
    }
    const { first, last } = range.kind === 'whole' ? { first: 0, last: size - 1 } : range;
    if (range.kind === 'part') void reply.code(206).header('content-range', `bytes ${first}-${last}/${size}`);
    void reply.header('content-length', last - first + 1);
    if (request.method === 'HEAD') return reply.send();
    if (sending >= MAX_DOWNLOADS) {
      void reply.removeHeader('content-range').removeHeader('content-length');
      const message = `${MAX_DOWNLOADS} files are being sent already`;
      return reply.code(503).header('retry-after', RETRY_AFTER_SECONDS).type('application/json').send({
        code: 'E_TOO_MANY',
        message,
      });
    }
    sending++;
    const stream = createReadStream(path, { start: first, end: last });
    stream.once('close', () => sending--);
    return reply.send(stream);
  });
}

const headerOf = (value: string | readonly string[] | undefined): string | undefined =>
  typeof value === 'string' ? value : undefined;
