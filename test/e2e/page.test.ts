// The page at `/` in a real browser: it shows the run as it is, says when what it shows is old, and asks nothing of any other host.

import { chromium, type Page } from 'playwright-core';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startHttp, type Http } from '../../coordinator/http/server.ts';
import type { RunView } from '../../protocol/run-view.ts';
import { VIEW } from '../coordinator/http/view.ts';
import { CHROMIUM_ARGUMENTS, chromiumPath } from './programs.ts';

interface Rig {
  readonly page: Page;
  readonly http: Http;
  /** What the browser complained of, and what it asked for. */
  readonly errors: string[];
  readonly asked: Set<string>;
}

async function open(view: () => RunView, width = 1000): Promise<Rig> {
  const http = await startHttp({
    listen: { host: '127.0.0.1', port: 0 },
    view,
    metrics: () => Promise.resolve({ contentType: 'text/plain', text: '' }),
    ready: () => ({ ok: true, because: '' }),
  });
  onTestFinished(() => http.close());
  const browser = await chromium.launch({ executablePath: chromiumPath(), args: CHROMIUM_ARGUMENTS });
  onTestFinished(() => browser.close());
  const page = await browser.newPage({ viewport: { width, height: 900 } });
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
    expect(await cells('#workers tr:nth-child(2)')).toEqual([
      'w1',
      '1',
      'training',
      'CPU (AMD EPYC)',
      '410 MB',
      'blue',
      '12',
    ]);
    expect(await cells('#workers tr:nth-child(3)')).toEqual(['w2', '–', 'spare', '–', '–', 'blue', '13']);
    expect(await cells('#byEpoch tr:nth-child(1)')).toEqual(['1', '1.7500', '1.5000', '43.8 %', '4,000', '13 s']);
    expect(errors).toEqual([]);
    expect([...asked].filter((url) => !url.startsWith(`${http.url}/`) && !url.startsWith('data:'))).toEqual([]);
  });

  it('follows the run', async () => {
    let step = 1000;
    const { page } = await open(() => ({ ...VIEW, step: step++ }));
    await page.getByText('1,003').waitFor();
    expect(step).toBeGreaterThan(1003);
  });

  it('says so when the coordinator no longer answers', async () => {
    const { page, http } = await open(() => VIEW);
    await http.close();
    const alert = page.getByRole('alert');
    await alert.filter({ hasText: 'does not answer' }).waitFor();
    expect(await alert.textContent()).toMatch(/^The coordinator does not answer\. What is shown is \d+ s old\.$/);
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
    expect(await page.locator('main img, header img, main b').count()).toBe(0);
    expect(errors).toEqual([]);
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
      const { page } = await open(() => ({ ...VIEW, ...large }), width);
      const overflowing = `[document.documentElement, ...document.querySelectorAll('dl div')].filter((e) => e.scrollWidth > e.clientWidth).length`;
      expect(await page.evaluate<number>(overflowing)).toBe(0);
    },
  );
});
