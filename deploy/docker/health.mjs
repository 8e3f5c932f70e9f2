// The health check of a coordinator's container: exit code 0 when its port answers on /healthz, with or without TLS. Whose certificate it is
// doesn't matter to somebody who asks on loopback for nothing but whether it lives.

import { get as getPlain } from 'node:http';
import { get as getSecure } from 'node:https';

const TIMEOUT_MS = 4000;
const DEFAULT_PORT = '29400';

const listen = process.env.LOCKSTEP_LISTEN ?? '';
const port = /:(\d+)$/.exec(listen)?.[1] ?? DEFAULT_PORT;

/** The status of an answer, or why there is none. */
function ask(get, scheme, options) {
  return new Promise((resolve) => {
    const request = get(`${scheme}://127.0.0.1:${port}/healthz`, { timeout: TIMEOUT_MS, ...options }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on('timeout', () => request.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)));
    request.on('error', (error) => resolve(error.message));
  });
}

const answers = [await ask(getSecure, 'https', { rejectUnauthorized: false }), await ask(getPlain, 'http', {})];
if (!answers.includes(200)) {
  process.stderr.write(`port ${port}: https: ${answers[0]}; http: ${answers[1]}\n`);
  process.exitCode = 1;
}
