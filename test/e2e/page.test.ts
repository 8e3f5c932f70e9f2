// The page at `/` in a real browser, of runs that are made up: it shows the run as it is, says when what it shows is old, and asks nothing
// of any other host. A real run is live-page.test.ts's.

import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { Feed } from '../../coordinator/core/feed.ts';
import { startHttp, type Http } from '../../coordinator/http/server.ts';
import type { RunView } from '../../protocol/run-view.ts';
import { keysOf, makeToken } from '../../protocol/token.ts';
import { pageOf } from '../coordinator/http/page-of.ts';
import { VIEW } from '../coordinator/http/view.ts';
import { CHROMIUM_ARGUMENTS, chromiumPath } from './programs.ts';

const TICK_MS = 100;

interface Rig {
  readonly page: Page;
  readonly http: Http;
  /** What the browser complained of, and what it asked for. */
  readonly errors: string[];
  readonly asked: Set<string>;
}

let browser: Browser;
beforeAll(async () => {
  browser = await chromium.launch({ executablePath: chromiumPath(), args: CHROMIUM_ARGUMENTS });
});
afterAll(() => browser.close());

/** Of a run that listens for all, and shows itself to who has a token. */
const KEY = 'the key of the run, which is long enough';
const TOKEN = makeToken(KEY, { scope: 'observe', expiresAtSeconds: null, id: 'x' });

async function open(view: () => RunView, { width = 1000, feed = new Feed() } = {}): Promise<Rig> {
  const http = await startHttp({
    listen: { host: '127.0.0.1', port: 0 },
    view,
    metrics: () => Promise.resolve({ contentType: 'text/plain', text: '' }),
    ready: () => ({ ok: true, because: '' }),
    page: pageOf(view, feed),
  });
  const ticker = setInterval(() => http.publish(performance.now()), TICK_MS);
  onTestFinished(() => {
    clearInterval(ticker);
    return http.close();
  });
  const page = await browser.newPage({ viewport: { width, height: 900 } });
  onTestFinished(() => page.close());
  const rig: Rig = { page, http, errors: [], asked: new Set() };
  page.on('console', (message) => {
    if (message.type() === 'error') rig.errors.push(message.text());
  });
  page.on('pageerror', (error) => rig.errors.push(error.message));
  page.on('request', (request) => rig.asked.add(request.url()));
  await page.goto(http.url);
  await page.getByRole('heading', { name: view().job }).waitFor();
  return rig;
}

const text = async (page: Page, id: string): Promise<string | null> => page.locator(`#${id}`).textContent();

describe('a run that is shown to who has a token', () => {
  const shut = async (path: string): Promise<{ page: Page; http: Http }> => {
    const http = await startHttp({
      listen: { host: '0.0.0.0', port: 0 },
      keys: keysOf(KEY),
      view: () => VIEW,
      metrics: () => Promise.resolve({ contentType: 'text/plain', text: '' }),
      ready: () => ({ ok: true, because: '' }),
      page: pageOf(() => VIEW, new Feed()),
    });
    onTestFinished(() => http.close());
    const page = await browser.newPage();
    onTestFinished(() => page.close());
    await page.goto(`${http.url}${path}`);
    return { page, http };
  };

  it('asks for it, says when it is refused, and keeps it for the tab', async () => {
    const { page } = await shut('/');
    const form = page.locator('#tokenForm');
    await form.waitFor();
    expect(await text(page, 'job')).toBe('Lockstep');
    await page.locator('#token').fill('a guess');
    await page.keyboard.press('Enter');
    await page.getByText('It was refused: the token is not one of this run (E_UNAUTHORIZED).').waitFor();
    await page.locator('#token').fill(TOKEN);
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: VIEW.job }).waitFor();
    expect(await form.isVisible()).toBe(false);
    await page.reload();
    await page.getByRole('heading', { name: VIEW.job }).waitFor();
    expect(await page.context().cookies()).toEqual([]);
  });

  it('takes it from the address, and leaves it in none', async () => {
    const { page, http } = await shut(`/#token=${TOKEN}`);
    await page.getByRole('heading', { name: VIEW.job }).waitFor();
    expect(page.url()).toBe(`${http.url}/`);
  });
});

describe('the page', () => {
  it('shows the run: state and reason, numbers, workers, epochs; and breaks no rule of its own policy', async () => {
    const { page, errors, asked, http } = await open(() => VIEW);
    const shown: Record<string, string | null> = {};
    for (const id of [
      'phase',
      'because',
      'epoch',
      'epochs',
      'step',
      'steps',
      'loss',
      'accuracy',
      'testAccuracy',
      'speed',
      'left',
      'stale',
    ]) {
      shown[id] = await text(page, id);
    }
    expect(shown).toEqual({
      phase: 'training',
      because: 'all members step',
      epoch: '2',
      epochs: 'of 10',
      step: '1,000',
      steps: 'of 7,820',
      loss: '1.2500',
      accuracy: '50.0 %',
      testAccuracy: '43.8 %',
      speed: '4,322',
      left: '1 h 02 min',
      stale: '',
    });
    expect(await page.title()).toBe('cifar10-cnn · training · epoch 2 of 10');
    const cells = (row: string): Promise<string[]> => page.locator(`${row} > *`).allTextContents();
    expect(await cells('#workers li:nth-child(2)')).toEqual([
      'w1 rank 1training',
      '',
      '15.00 ms',
      'CPU (AMD EPYC) · 410 MB · blue, process 12',
    ]);
    expect(await page.locator('#workers li:nth-child(2) .stack').getAttribute('aria-label')).toBe(
      'A step: data 1.00 ms, compute 12.00 ms, wait for others 0.00 ms, all-reduce 1.00 ms, apply 1.00 ms',
    );
    expect(await cells('#workers li:nth-child(3)')).toEqual(['w2spare', '', '–', 'blue, process 13']);
    expect(await text(page, 'straggler')).toBe('w1 is slow: the others wait 2.00 ms a step for it (13 %).');
    expect(await cells('#byEpoch tr:nth-child(1)')).toEqual(['1', '1.7500', '1.5000', '43.8 %', '4,000', '13 s']);
    expect(errors).toEqual([]);
    expect([...asked].filter((url) => !url.startsWith(`${http.url}/`) && !url.startsWith('data:'))).toEqual([]);
  });

  it('follows the run', async () => {
    let step = 1000;
    const { page } = await open(() => ({ ...VIEW, step }));
    for (step = 1001; step < 1004; step++) await page.getByText(`1,00${step - 1000}`, { exact: true }).waitFor();
    expect(await text(page, 'step')).toBe('1,003');
  });

  it('says so when the coordinator no longer answers, and goes on when it does', async () => {
    const { page, http } = await open(() => VIEW);
    await http.close();
    const alert = page.getByRole('alert');
    await alert.filter({ hasText: 'does not answer' }).waitFor();
    expect(await alert.textContent()).toMatch(/^The coordinator does not answer\. What is shown is \d+ s old\.$/);
    expect(await text(page, 'linkText')).toBe('stale');
    const view = { ...VIEW, step: 1234 };
    const again = await startHttp({
      listen: { host: '127.0.0.1', port: http.port },
      view: () => view,
      metrics: () => Promise.resolve({ contentType: 'text/plain', text: '' }),
      ready: () => ({ ok: true, because: '' }),
      page: pageOf(() => view),
    });
    onTestFinished(() => again.close());
    await page.getByText('1,234').waitFor();
    expect(await text(page, 'linkText')).toBe('live');
  });

  it('says what can not be written, for as long as that lasts', async () => {
    let alarms: RunView['alarms'] = [{ part: 'journal', failures: 3, because: 'ENOSPC: no space left on device' }];
    const { page } = await open(() => ({ ...VIEW, alarms }));
    const alert = page.getByRole('alert');
    expect(await alert.textContent()).toBe('The journal cannot be written: ENOSPC: no space left on device');
    alarms = [];
    await alert.waitFor({ state: 'hidden' });
  });

  it('of a run that is over says that, and not that something is wrong', async () => {
    const { page, http } = await open(() => ({
      ...VIEW,
      phase: 'done',
      because: 'the run is done',
      secondsLeft: null,
    }));
    await http.close();
    await page.getByRole('alert').filter({ hasText: 'The run is over and its coordinator has ended.' }).waitFor();
    expect(await text(page, 'phase')).toBe('done');
  });

  it('takes what it is told as text, never as HTML', async () => {
    const job = '<img src=x onerror="document.title=1">';
    const { page, errors } = await open(() => ({
      ...VIEW,
      job,
      workers: [{ ...VIEW.workers[0]!, host: '<b>bold</b>' }],
    }));
    expect(await text(page, 'job')).toBe(job);
    expect(await page.locator('main img, header img, .where b').count()).toBe(0);
    expect(await page.locator('.where').textContent()).toContain('<b>bold</b>');
    expect(errors).toEqual([]);
  });

  it('draws the whole run, reads a value off it by keyboard, and has a table that says the same', async () => {
    const feed = new Feed();
    // 1,000 steps: two a point. Loss 2 - step / 1000, so that the point of steps 499 and 500 is 1.5005.
    for (let step = 1; step <= 1000; step++)
      feed.recallStep({ step, loss: 2 - step / 1000, accuracy: 0.5, samples: 64, seconds: 0.016 });
    const { page, errors } = await open(() => VIEW, { feed });
    const plot = page.getByRole('slider', { name: 'Loss, by step' });
    expect(await plot.getAttribute('aria-valuemax')).toBe('1000');
    await plot.focus();
    await page.keyboard.press('Home');
    const first = await plot.getAttribute('aria-valuetext');
    expect(first).toMatch(/^step \d · training (1\.99\d|2\.000)$/);
    await page.keyboard.press('End');
    expect(await plot.getAttribute('aria-valuetext')).toMatch(
      /^step 1,000 · training 1\.00\d · test 1\.500 after epoch 1$/,
    );
    await page.locator('#lossChart summary').click();
    await page.locator('#lossChart tbody tr').nth(10).waitFor();
    const rows = await page.locator('#lossChart tbody tr').allTextContents();
    expect(rows[0]).toMatch(/^1,0001\.00\d1\.500$/);
    expect(errors).toEqual([]);
  });

  it('tells what happened to whom and why, newest first, and announces it', async () => {
    const feed = new Feed();
    feed.observe({ kind: 'worker-joined', worker: 'w1', host: 'blue', pid: 12 }, Date.now());
    const { page } = await open(() => ({ ...VIEW, workersLost: 1 }), { feed });
    const cause = { who: 'w1', rank: 1, host: 'blue', pid: 12, exitCode: null, signal: 'SIGKILL', code: null } as const;
    const told = { ...cause, message: 'killed by SIGKILL', lastLines: [], logFile: null };
    feed.observe({ kind: 'worker-lost', cause: told }, Date.now());
    await page.locator('#history [data-kind=lost]').waitFor();
    const history = await page.locator('#history .what').allTextContents();
    expect(history).toEqual(['w1 on blue: killed by SIGKILL', 'w1 on blue, process 12']);
    expect(await text(page, 'announce')).toBe('lost: w1 on blue: killed by SIGKILL');
    expect(await text(page, 'tally')).toBe('1 worker lost');
  });

  it('of a job without images says why there is nothing to try the model on', async () => {
    const { page } = await open(() => VIEW);
    await page.getByText('A made-up run has no samples.').waitFor();
    expect(await page.locator('#modelOpen').isVisible()).toBe(false);
  });

  it('before anybody has joined says that nobody has', async () => {
    const nothing = {
      loss: null,
      epochLoss: null,
      accuracy: null,
      testLoss: null,
      testAccuracy: null,
      secondsLeft: null,
    } as const;
    const view: RunView = {
      ...VIEW,
      ...nothing,
      phase: 'gathering',
      because: '0 of 2 workers ready',
      step: 0,
      workers: [],
      byEpoch: [],
    };
    const { page, errors } = await open(() => view);
    expect(await text(page, 'workers')).toBe('No worker has joined yet.');
    expect(await text(page, 'loss')).toBe('–');
    expect(errors).toEqual([]);
  });

  it.each([[360], [1000]])(
    '%d pixels wide: large numbers stay in their cards; tables scroll, not the page',
    async (width) => {
      const large = { step: 1_234_567, steps: 12_345_678, imagesPerSecond: 123_456, secondsLeft: 360_000 };
      const { page } = await open(() => ({ ...VIEW, ...large }), { width });
      const overflowing = `[document.documentElement, ...document.querySelectorAll('dl div, .card > :not(.scroll)')].filter((e) => e.scrollWidth > e.clientWidth).length`;
      expect(await page.evaluate<number>(overflowing)).toBe(0);
    },
  );
});
