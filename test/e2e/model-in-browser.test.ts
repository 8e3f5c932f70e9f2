// The exported model opens in a browser: TensorFlow.js's own bundle, in a real Chromium, against the same model in Node.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { join, normalize } from 'node:path';
import { chromium } from 'playwright-core';
import type * as TensorFlow from '@tensorflow/tfjs';
import { expect, it, onTestFinished } from 'vitest';
import { exportModel } from '../../coordinator/record/model-export.ts';
import { flatten, smallModel, tf } from '../coordinator/record/plain-tensorflow.ts';
import { temporaryDirectory } from '../coordinator/record/temporary.ts';
import { CHROMIUM_ARGUMENTS, chromiumPath } from './programs.ts';

const BUNDLE = createRequire(import.meta.url).resolve('@tensorflow/tfjs/dist/tf.min.js');

/** Serves a page with TensorFlow.js, and the files of `directory` under /model/. */
async function serve(directory: string): Promise<string> {
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url ?? '/', 'http://host').pathname);
    if (path === '/')
      response
        .setHeader('content-type', 'text/html')
        .end('<!doctype html><link rel="icon" href="data:,"><script src="/tf.js"></script>');
    else if (path === '/tf.js') response.setHeader('content-type', 'text/javascript').end(readFileSync(BUNDLE));
    else if (path.startsWith('/model/')) response.end(readFileSync(join(directory, path.slice('/model/'.length))));
    else response.writeHead(404).end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

it('tf.loadLayersModel opens it over http, and it predicts what Node predicts', async () => {
  const run = temporaryDirectory();
  const model = smallModel();
  await exportModel(run, { topology: JSON.stringify(model.toJSON(undefined, false)), ...flatten(model) });
  const url = await serve(join(run, 'model'));

  const input = Array.from({ length: 2 * 6 * 6 * 2 }, (_, i) => ((i * 37) % 101) / 50 - 1);
  const predicted = model.predict(tf.tensor(input, [2, 6, 6, 2])) as TensorFlow.Tensor;

  const browser = await chromium.launch({ executablePath: chromiumPath(), args: CHROMIUM_ARGUMENTS });
  onTestFinished(() => browser.close());
  const page = await browser.newPage();
  const asked: string[] = [];
  page.on('request', (request) => asked.push(request.url()));
  await page.goto(url);
  const script = `(async () => {
    await tf.setBackend('cpu');
    const model = await tf.loadLayersModel('${url}/model/model.json');
    return Array.from(model.predict(tf.tensor(${JSON.stringify(input)}, [2, 6, 6, 2])).dataSync());
  })()`;
  const inBrowser = await page.evaluate<number[]>(script);

  const here = Array.from(predicted.dataSync());
  expect(inBrowser).toHaveLength(8);
  for (const [i, probability] of inBrowser.entries()) expect(probability).toBeCloseTo(here[i] ?? Number.NaN, 6);
  // Not one row like the other: the input mattered.
  expect(inBrowser[0]).not.toBeCloseTo(inBrowser[4] ?? 0, 3);
  expect(asked.toSorted()).toEqual(
    ['/', '/model/group1-shard1of1.bin', '/model/model.json', '/tf.js'].map((path) => url + path),
  );
});
