import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect, createServer, type AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startHttp, type Http, type HttpOptions } from '../../../coordinator/http/server.ts';
import type { PageSources } from '../../../coordinator/http/page-routes.ts';
import { NO_PROGRESS } from '../../../coordinator/core/progress.ts';
import { writeCheckpoint } from '../../../coordinator/record/checkpoint.ts';
import { servedModel } from '../../../coordinator/record/latest-model.ts';
import { keysOf, makeToken, type Scope } from '../../../protocol/token.ts';
import { makeAuthority, makeCertificate } from '../../certificates.ts';
import { CONFIG } from '../config.ts';
import { temporaryDirectory } from '../record/temporary.ts';
import { pageOf } from './page-of.ts';
import { VIEW } from './view.ts';

async function start(change: Partial<HttpOptions> = {}): Promise<Http> {
  const http = await startHttp({
    listen: { host: '127.0.0.1', port: 0 },
    view: () => VIEW,
    metrics: () =>
      Promise.resolve({ contentType: 'text/plain; version=0.0.4; charset=utf-8', text: 'lockstep_step{run="r"} 7\n' }),
    ready: () => ({ ok: true, because: 'all members step' }),
    page: pageOf(() => VIEW),
    ...change,
  });
  onTestFinished(() => http.close());
  return http;
}

/** A path as it is, which fetch would tidy up. */
async function rawStatus(http: Http, path: string): Promise<number | undefined> {
  const request = httpRequest({ host: '127.0.0.1', port: http.port, path });
  request.end();
  const [response] = (await once(request, 'response')) as [{ statusCode?: number; resume(): void }];
  response.resume();
  return response.statusCode;
}

describe('what the coordinator serves', () => {
  it('/api/run: the run as JSON with all that the contract names', async () => {
    const { url } = await start();
    const answer = await fetch(`${url}/api/run`);
    expect(answer.headers.get('content-type')).toContain('application/json');
    const run = (await answer.json()) as Record<string, unknown>;
    expect(run).toMatchObject({
      job: 'cifar10-cnn',
      epoch: 2,
      step: 1000,
      generation: 1,
      loss: 1.0625,
      imagesPerSecond: 4321.5,
      coordinator: { pid: 4711 },
    });
    expect((run['workers'] as object[])[1]).toMatchObject({
      id: 'w1',
      rank: 1,
      state: 'training',
      pid: 12,
      host: 'blue',
      device: 'CPU (AMD EPYC)',
    });
  });

  it('/api/run shows the present, not the start', async () => {
    let step = 1;
    const { url } = await start({ view: () => ({ ...VIEW, step: step++ }) });
    const steps = [];
    for (let i = 0; i < 2; i++) steps.push(((await (await fetch(`${url}/api/run`)).json()) as { step: number }).step);
    expect(steps).toEqual([1, 2]);
  });

  it('/metrics: the text and content type of the registry', async () => {
    const { url } = await start();
    const answer = await fetch(`${url}/metrics`);
    expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(await answer.text()).toBe('lockstep_step{run="r"} 7\n');
  });

  it('/healthz is 200 while it lives; /readyz is 503 with the reason until it is ready', async () => {
    let ok = false;
    const { url } = await start({ ready: () => ({ ok, because: ok ? 'all members step' : '1 of 2 workers ready' }) });
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    const waiting = await fetch(`${url}/readyz`);
    expect([waiting.status, await waiting.json()]).toEqual([503, { ready: false, because: '1 of 2 workers ready' }]);
    ok = true;
    const ready = await fetch(`${url}/readyz`);
    expect([ready.status, await ready.json()]).toEqual([200, { ready: true, because: 'all members step' }]);
  });

  it('/metrics: who asks says what it accepts, and it is known when an answer has left', async () => {
    const accepted: (string | undefined)[] = [];
    let answers = 0;
    const { url } = await start({
      metrics: (accept) => {
        accepted.push(accept);
        return Promise.resolve({ contentType: 'text/plain', text: '' });
      },
      onScraped: () => answers++,
    });
    await (await fetch(`${url}/metrics`, { headers: { accept: 'application/openmetrics-text' } })).text();
    expect(accepted).toEqual(['application/openmetrics-text']);
    await expect.poll(() => answers).toBe(1);
    await (await fetch(`${url}/healthz`)).text();
    expect(answers).toBe(1);
  });

  it('/sd: where the metrics of the living workers are, in the form of Prometheus’s HTTP service discovery', async () => {
    const { url } = await start();
    const answer = await fetch(`${url}/sd`);
    expect(answer.headers.get('content-type')).toContain('application/json');
    expect(await answer.json()).toEqual([
      { targets: ['127.0.0.1:40001'], labels: { run: 'cifar10-cnn-20261123-160000', worker: 'w0', host: 'red' } },
      {
        targets: ['10.0.0.2:40002'],
        labels: { run: 'cifar10-cnn-20261123-160000', worker: 'w1', host: 'blue', __scheme__: 'https' },
      },
    ]);
  });

  it('/: an HTML page that loads nothing from elsewhere, and all that it loads is there', async () => {
    const { url } = await start();
    const answer = await fetch(url);
    expect(answer.headers.get('content-type')).toBe('text/html; charset=utf-8');
    const page = await answer.text();
    expect(page).not.toMatch(/(?:src|href)="(?:https?:)?\/\//);
    // What it names, and what the scripts that it names import.
    const wanted = [...page.matchAll(/(?:src|href)="(\/page\/[^"]+)"/g)].map(([, path = '']) => path);
    for (const path of wanted) {
      const file = await fetch(`${url}${path}`);
      expect([path, file.status]).toEqual([path, 200]);
      if (!path.endsWith('.js')) continue;
      expect(file.headers.get('content-type')).toBe('text/javascript; charset=utf-8');
      const imports = [...(await file.text()).matchAll(/from '\.\/([^']+)'/g)].map(([, name = '']) => `/page/${name}`);
      wanted.push(...imports.filter((name) => !wanted.includes(name)));
    }
    expect(wanted).toContain('/page/chart.js');
  });

  it('TensorFlow.js for the page: scripts that evaluate no strings, and their WebAssembly', async () => {
    const { url } = await start();
    for (const name of ['tf.min.js', 'tf-backend-wasm.min.js']) {
      const source = await (await fetch(`${url}/page/vendor/${name}`)).text();
      expect(source.length).toBeGreaterThan(100_000);
      expect(source).not.toMatch(/[^\w.]eval\(|[^\w.]Function\(['"]/);
    }
    const wasm = await fetch(`${url}/page/vendor/tfjs-backend-wasm-simd.wasm`);
    expect(wasm.headers.get('content-type')).toBe('application/wasm');
    expect([...new Uint8Array(await wasm.arrayBuffer()).slice(0, 4)]).toEqual([0, 0x61, 0x73, 0x6d]);
  });

  it('the thread that runs the model may compile WebAssembly, and nothing else may', async () => {
    const { url } = await start();
    const policyOf = async (path: string): Promise<string> =>
      (await fetch(`${url}${path}`)).headers.get('content-security-policy') ?? '';
    expect(await policyOf('/page/model-worker.js')).toContain("script-src 'self' 'wasm-unsafe-eval';");
    for (const path of ['/', '/page/main.js', '/page/vendor/tf.min.js']) {
      expect(await policyOf(path)).toContain("script-src 'self';");
    }
  });

  it('test samples: what they are, and their values', async () => {
    const samples: ReturnType<PageSources['samples']> = {
      shape: [1, 2, 1],
      classes: ['a', 'b'],
      labels: [1],
      encoding: 'byte',
      range: [7, 8],
      values: Uint8Array.of(7, 8),
    };
    let read = 0;
    const page = pageOf(() => VIEW, undefined, {
      samples: () => {
        read++;
        return samples;
      },
    });
    const { url } = await start({ page });
    const { values: _, ...header } = samples;
    expect(await (await fetch(`${url}/api/samples`)).json()).toEqual(header);
    const values = await fetch(`${url}/api/samples/values`);
    expect([...new Uint8Array(await values.arrayBuffer())]).toEqual([7, 8]);
    expect(read).toBe(1);
  });

  it('no test samples, and why', async () => {
    const { url } = await start();
    expect(await (await fetch(`${url}/api/samples`)).json()).toEqual({ because: 'A made-up run has no samples.' });
    expect((await fetch(`${url}/api/samples/values`)).status).toBe(404);
  });

  it('the newest checkpoint as a model, with the step and digest that it is of; 404 before the first', async () => {
    const run = temporaryDirectory();
    const { url } = await start({ page: pageOf(() => VIEW, undefined, { model: servedModel(run) }) });
    const none = await fetch(`${url}/model/model.json`);
    expect([none.status, await none.json()]).toMatchObject([404, { code: 'E_NO_CHECKPOINT' }]);
    const weights = Float32Array.of(1, 2.5, -3, 4, 5, 6);
    const digest = createHash('sha256').update(new Uint8Array(weights.buffer)).digest('hex');
    const layout = [
      { name: 'kernel', shape: [2, 2], offset: 0, length: 4, trainable: true },
      { name: 'bias', shape: [2], offset: 4, length: 2, trainable: true },
    ];
    for (const step of [9, 10]) {
      const state = { step, digest, vectors: [{ name: 'weights', data: weights }] };
      const content = { config: CONFIG, state, progress: NO_PROGRESS, layout, topology: '{"made":"up"}' };
      expect(await writeCheckpoint(run, content)).toMatchObject({ ok: true });
    }
    const model = (await (await fetch(`${url}/model/model.json`)).json()) as Record<string, unknown>;
    expect(model).toMatchObject({
      format: 'layers-model',
      modelTopology: { made: 'up' },
      weightsManifest: [
        {
          paths: ['step-10/weights.bin'],
          weights: [
            { name: 'kernel', shape: [2, 2], dtype: 'float32' },
            { name: 'bias', shape: [2], dtype: 'float32' },
          ],
        },
      ],
      userDefinedMetadata: { step: 10, digest },
    });
    const bytes = await (await fetch(`${url}/model/step-10/weights.bin`)).arrayBuffer();
    expect([...new Float32Array(bytes)]).toEqual([1, 2.5, -3, 4, 5, 6]);
    for (const path of ['step-11/weights.bin', 'step-x/weights.bin', 'step-1e1/weights.bin', 'step-10/slot-1.bin'])
      expect([path, (await fetch(`${url}/model/${path}`)).status]).toEqual([path, 404]);
  });
});

describe('what it does not serve', () => {
  it('an unknown path is 404 with a code', async () => {
    const { url } = await start();
    const answer = await fetch(`${url}/nothing?x=1`);
    expect([answer.status, await answer.json()]).toEqual([
      404,
      { code: 'E_NOT_FOUND', message: 'there is no /nothing?x=1 here' },
    ]);
  });

  it.each([['POST'], ['PUT'], ['DELETE'], ['PATCH'], ['OPTIONS']])(
    '%s is 405 on a path that exists and on one that does not',
    async (method) => {
      const { url } = await start();
      for (const path of ['/api/run', '/nothing']) {
        const body = method === 'OPTIONS' ? {} : { body: '{broken', headers: { 'content-type': 'application/json' } };
        const answer = await fetch(`${url}${path}`, { method, ...body });
        expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
        expect(await answer.json()).toMatchObject({ code: 'E_METHOD' });
      }
    },
  );

  it('a path that can’t be decoded is 400', async () => {
    expect(await rawStatus(await start(), '/%zz')).toBe(400);
  });

  it('a view that throws is 500 with a code, and the next request is answered', async () => {
    const { url } = await start({
      view: () => {
        throw new Error('planted');
      },
    });
    const answer = await fetch(`${url}/api/run`);
    expect([answer.status, await answer.json()]).toEqual([500, { code: 'E_INTERNAL', message: 'planted' }]);
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
  });

  it.each([['/'], ['/api/run'], ['/metrics'], ['/nothing']])(
    '%s: no sniffing, no caching, no framing, no script but its own',
    async (path) => {
      const { url } = await start();
      const { headers } = await fetch(`${url}${path}`);
      expect(headers.get('x-content-type-options')).toBe('nosniff');
      expect(headers.get('cache-control')).toBe('no-store');
      const policy = headers.get('content-security-policy') ?? '';
      expect(policy).toContain("default-src 'none'");
      expect(policy).toContain("frame-ancestors 'none'");
      expect(policy).not.toContain('unsafe');
    },
  );
});

describe('where it listens', () => {
  it('port 0 picks one, and the url says which', async () => {
    const http = await start();
    expect(http.url).toBe(`http://127.0.0.1:${http.port}`);
    expect(http.port).toBeGreaterThan(0);
  });

  it('on all addresses, the url is loopback’s, which can be reached', async () => {
    const http = await start({ listen: { host: '0.0.0.0', port: 0 } });
    expect(http.url).toBe(`http://127.0.0.1:${http.port}`);
    expect((await fetch(`${http.url}/healthz`)).status).toBe(200);
  });

  it('a port in use is named, with the remedy', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => {
      other.close();
    });
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    await expect(start({ listen: { host: '127.0.0.1', port } })).rejects.toMatchObject({
      code: 'E_PORT_IN_USE',
      message: expect.stringContaining(String(port)),
      remedy: expect.stringContaining('--listen 127.0.0.1:0'),
    });
  });

  it('an address of another machine can’t be listened on', async () => {
    // 192.0.2.0/24 is kept for documentation (RFC 5737): no machine has it.
    await expect(start({ listen: { host: '192.0.2.1', port: 0 } })).rejects.toMatchObject({
      code: 'E_LISTEN',
      message: expect.stringContaining('192.0.2.1'),
    });
  });

  it('closing does not wait for a connection that somebody keeps open', async () => {
    const http = await startHttp({
      listen: { host: '127.0.0.1', port: 0 },
      view: () => VIEW,
      metrics: () => Promise.resolve({ contentType: 'text/plain', text: '' }),
      ready: () => ({ ok: true, because: '' }),
    });
    const socket = connect(http.port, '127.0.0.1');
    await once(socket, 'connect');
    const end = once(socket, 'close');
    await http.close();
    await end;
    expect(http.server.listening).toBe(false);
  });
});

describe('who may ask', () => {
  const KEY = 'the key of the run, which is long enough';
  const token = (scope: Scope): string => makeToken(KEY, { scope, expiresAtSeconds: null, id: 'x' });

  async function guarded(
    change: Partial<HttpOptions> = {},
  ): Promise<{ http: Http; refused: string[]; stops: string[] }> {
    const [refused, stops]: [string[], string[]] = [[], []];
    const http = await start({
      keys: keysOf(KEY),
      onRefused: (code) => refused.push(code),
      stop: (because) => stops.push(because),
      ...change,
    });
    return { http, refused, stops };
  }

  /** Sends bytes as they are; what is answered until the connection ends. */
  async function answerTo(http: Http, bytes: string): Promise<string> {
    const socket = connect(http.port, '127.0.0.1');
    socket.write(bytes);
    return text(socket);
  }

  it('on loopback everybody reads; a page of another origin, or of a name that points here, does not', async () => {
    const { http, refused } = await guarded();
    expect((await fetch(`${http.url}/api/run`)).status).toBe(200);
    const foreign = await fetch(`${http.url}/api/run`, { headers: { origin: 'https://evil.example' } });
    expect([foreign.status, await foreign.json()]).toMatchObject([403, { code: 'E_ORIGIN' }]);
    expect(foreign.headers.get('access-control-allow-origin')).toBeNull();
    expect(foreign.headers.get('cross-origin-resource-policy')).toBe('same-origin');
    expect(await answerTo(http, 'GET /api/run HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 403 [^]*"code":"E_HOST"/,
    );
    expect(refused).toEqual(['E_ORIGIN', 'E_HOST']);
  });

  it('POST /api/stop takes `control`', async () => {
    const { http, refused, stops } = await guarded();
    const stop = async (shown: string | null): Promise<number> =>
      (
        await fetch(`${http.url}/api/stop`, {
          method: 'POST',
          ...(shown !== null && { headers: { authorization: `Bearer ${shown}` } }),
        })
      ).status;
    expect([await stop(null), await stop('a guess'), await stop(token('work'))]).toEqual([401, 401, 403]);
    expect(stops).toEqual([]);
    expect([await stop(token('control')), await stop(KEY)]).toEqual([202, 202]);
    expect(stops).toEqual(['POST /api/stop', 'POST /api/stop']);
    expect(refused).toEqual(['E_UNAUTHORIZED', 'E_UNAUTHORIZED', 'E_FORBIDDEN']);
  });

  it('a head that is too long, or none, ends its connection, and is told apart by its code', async () => {
    const { http, refused } = await guarded();
    const long = `GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ${'x'.repeat(9000)}\r\n\r\n`;
    expect(await answerTo(http, long)).toMatch(/^HTTP\/1\.1 431 /);
    expect(await answerTo(http, 'NONSENSE\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
    expect(refused).toEqual(['E_TOO_LARGE', 'E_REQUEST']);
    expect((await fetch(`${http.url}/healthz`)).status).toBe(200);
  });

  it('a head that comes too slowly, or not at all, is cut when its time is over', async () => {
    const { http, refused } = await guarded({ limits: { handshakeMs: 50 } });
    const slow = answerTo(http, 'GET / HTTP/1.1\r\nHost: 127');
    const silent = answerTo(http, '');
    expect(await Promise.all([slow, silent])).toEqual(['', '']);
    expect(refused).toEqual(['E_HANDSHAKE', 'E_HANDSHAKE']);
  });

  it('of connections that have shown nothing the oldest makes room, and who has been answered stays', async () => {
    const { http, refused } = await guarded({ limits: { unprovenPerNetworkMax: 2 } });
    const page = connect(http.port, '127.0.0.1');
    page.write('GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n');
    await once(page, 'data');
    const silent = Array.from({ length: 5 }, () => connect(http.port, '127.0.0.1'));
    const closed: number[] = [];
    silent.forEach((socket, i) => socket.on('error', () => {}).once('close', () => closed.push(i)));
    await expect.poll(() => closed.length).toBe(3);
    expect(refused).toEqual(['E_TOO_MANY', 'E_TOO_MANY', 'E_TOO_MANY']);
    page.write('GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n');
    await once(page, 'data');
    page.destroy();
    for (const socket of silent) socket.destroy();
  });

  it('elsewhere who has shown no token keeps no connection', async () => {
    const { http } = await guarded({ listen: { host: '0.0.0.0', port: 0 } });
    const get = (path: string, shown = ''): string => `GET ${path} HTTP/1.1\r\nHost: x\r\n${shown}\r\n`;
    for (const path of ['/healthz', '/', '/readyz']) {
      expect(await answerTo(http, get(path))).toMatch(/^HTTP\/1\.1 200 [^]*connection: close/i);
    }
    expect(await answerTo(http, get('/readyz'))).toMatch(/\r\n\{"ready":true\}$/);
    const kept = connect(http.port, '127.0.0.1');
    for (let i = 0; i < 2; i++) {
      kept.write(get('/api/run', `Authorization: Bearer ${token('observe')}\r\n`));
      const [answer] = (await once(kept, 'data')) as [Buffer];
      expect(answer.toString()).toMatch(/^HTTP\/1\.1 200 /);
    }
    kept.destroy();
  });

  it('over TLS who speaks plainly is told apart; with an authority for callers so is who shows no certificate of it', async () => {
    const authority = makeAuthority();
    const identity = makeCertificate(['127.0.0.1'], authority);
    const { http, refused } = await guarded({ identity, clientCa: authority.cert });
    expect(await answerTo(http, 'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n')).toBe('');
    const statusOf = async (path: string, shown: object): Promise<number | undefined> => {
      const asked = httpsRequest({ host: '127.0.0.1', port: http.port, path, ca: authority.cert, ...shown });
      asked.end();
      const [response] = (await once(asked, 'response')) as [{ statusCode?: number; resume(): void }];
      response.resume();
      return response.statusCode;
    };
    const other = makeCertificate(['127.0.0.1'], makeAuthority('another'));
    expect(await statusOf('/api/run', {})).toBe(403);
    expect(await statusOf('/api/run', other)).toBe(403);
    expect(await statusOf('/healthz', {})).toBe(200);
    expect(await statusOf('/api/run', makeCertificate(['worker.example'], authority))).toBe(200);
    expect(refused).toEqual(['E_TLS', 'E_TLS', 'E_TLS']);
  });
});
