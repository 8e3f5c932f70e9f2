// The page during a real run in which a worker is killed: the curves grow, the loss and the return are told, the newest checkpoint says
// in the browser what `lockstep evaluate` says of the same images; and another coordinator goes on at the same address, with the
// whole run.

import { readFileSync } from 'node:fs';
import { chromium, type Page } from 'playwright-core';
import { afterAll, expect, it, onTestFinished } from 'vitest';
import { Cluster, membersOf, pidOf } from '../cluster/cluster.ts';
import { lockstep, Scratch } from './lockstep.ts';
import { CHROMIUM_ARGUMENTS, chromiumPath } from './programs.ts';

const scratch = new Scratch();
afterAll(() => scratch.remove());

const JOB = ['--train-samples', '2000', '--test-samples', '300', '--seed', '7', '--epochs', '1000'];
const SAMPLES = 300;
const WAIT = { timeout: 60_000 };

const lastStep = async (page: Page): Promise<number> =>
  Number(await page.getByRole('slider', { name: 'Loss, by step' }).getAttribute('aria-valuemax'));

/** The panel has run all samples with the checkpoint of this step, or of any. */
const ran = async (page: Page, step = ''): Promise<void> =>
  page.locator(`#model[data-step${step === '' ? '' : `="${step}"`}]`).waitFor(WAIT);

it('shows a run in which a worker is killed, live; and the model says what `lockstep evaluate` says', async () => {
  const directory = scratch.dir('run');
  const cluster = await new Cluster(directory, ['train', 'cifar10-cnn', ...JOB, '--workers', '2']).listening();
  const { url } = JSON.parse(readFileSync(`${directory}/endpoint.json`, 'utf8')) as { url: string };
  const browser = await chromium.launch({ executablePath: chromiumPath(), args: CHROMIUM_ARGUMENTS });
  onTestFinished(() => browser.close());
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const errors: string[] = [];
  const asked = new Set<string>();
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(message.text());
  });
  page.on('pageerror', (error) => errors.push(error.message));
  page.context().on('request', (request) => asked.add(new URL(request.url()).origin));
  await page.goto(url);

  // It is opened before the first checkpoint, and grows.
  const view = await cluster.members(2);
  await page.locator('#lossChart .line').first().waitFor(WAIT);
  const before = await lastStep(page);
  process.kill(pidOf(view, 1), 'SIGKILL');
  const lost = page.locator('#history [data-kind=lost]');
  await lost.waitFor(WAIT);
  expect(await lost.locator('.what').textContent()).toMatch(/^w\d on .+: killed by SIGKILL$/);
  await page.locator('#history [data-kind=generation]', { hasText: 'Generation 3 of 2 workers' }).waitFor(WAIT);
  const newcomer = membersOf(await cluster.members(2)).find(({ id }) => id === 'w2');
  const joined = page.locator('#history [data-kind=joined]', { hasText: `process ${newcomer?.pid}` });
  expect(await joined.locator('.what').textContent()).toMatch(/^w2 on /);
  expect(await lastStep(page)).toBeGreaterThan(before);
  expect(await page.locator('#lossChart g line.mark.lost').count()).toBe(1);

  // A checkpoint in the browser, while it trains.
  await page.locator('#modelOpen').click(WAIT);
  await ran(page);
  expect(await page.locator('#modelAbout').textContent()).toMatch(/^checkpoint of step [\d,]+ · digest [0-9a-f]{12} /);
  expect(errors).toEqual([]);

  // Stopped, it leaves a checkpoint; another coordinator, whom no worker joins, shows that one and the run until then.
  cluster.run.child.kill('SIGINT');
  await page.getByText('The run is over and its coordinator has ended.').waitFor(WAIT);
  expect((await cluster.run.ended).code).toBe(130);
  const predictions = scratch.dir('predictions.jsonl');
  const evaluated = lockstep(['evaluate', directory, '--predictions', predictions]).ended;
  const { port } = new URL(url);
  const tokenFile = `${directory}/token`;
  const forAll = ['--listen', `0.0.0.0:${port}`, '--token-file', tokenFile];
  const resumed = ['--resume', '--run-dir', directory, '--workers', '1'];
  const again = lockstep(['coordinator', 'cifar10-cnn', ...JOB, ...resumed, ...forAll]);
  // This one listens for others, too: it asks who looks.
  await page.locator('#tokenForm').waitFor(WAIT);
  await page.locator('#token').fill(readFileSync(tokenFile, 'utf8'));
  await page.keyboard.press('Enter');
  await page.locator('#link[data-state=live]').waitFor(WAIT);
  await page.locator('#phase', { hasText: 'gathering' }).waitFor(WAIT);
  const step = (await page.locator('#step').textContent())?.replace(',', '') ?? '';
  expect(await lastStep(page)).toBe(Number(step));
  expect(await lost.count()).toBe(1);
  await ran(page, step);

  // What it says of each image, against what the engine says.
  expect((await evaluated).code).toBe(0);
  const engine = readFileSync(predictions, 'utf8')
    .trim()
    .split('\n')
    .slice(0, SAMPLES)
    .map((line) => JSON.parse(line) as { index: number; label: number; predicted: number });
  const counts = Array.from({ length: 10 }, () => Array.from({ length: 10 }, () => 0));
  for (const { label, predicted } of engine) counts[label]![predicted]! += 1;
  const cells = `[...document.querySelectorAll('#confusion td[data-count]')].map((cell) => Number(cell.dataset.count))`;
  expect(await page.evaluate<number[]>(cells)).toEqual(counts.flat());
  const options = page.locator('#samples [role=option]');
  const names = await page.locator('#confusion tbody th').allTextContents();
  const sayings = `[...document.querySelectorAll('#samples [role=option]')].map((one) => one.getAttribute('aria-label'))`;
  const labels = await page.evaluate<string[]>(sayings);
  expect(labels).toEqual(
    engine
      .slice(0, labels.length)
      .map(({ index, label, predicted }) =>
        label === predicted
          ? `Test image ${index}: ${names[label]}, and the model says so`
          : `Test image ${index}: ${names[label]}; the model says ${names[predicted]}`,
      ),
  );
  expect(new Set(labels.map((label) => label.replace(/^Test image \d+/, ''))).size).toBeGreaterThan(5);
  await options.nth(3).click();
  const answer = page.locator('#answerTitle', { hasText: 'Test image 3' });
  await answer.waitFor(WAIT);
  expect(await answer.getAttribute('data-class')).toBe(names[engine[3]!.predicted]);

  // An image of one's own.
  const png = await page.locator('#image').screenshot();
  await page.locator('#file').setInputFiles({ name: 'own.png', mimeType: 'image/png', buffer: png });
  await page.locator('#answerTitle', { hasText: 'own.png: the model says' }).waitFor(WAIT);

  expect([...asked]).toEqual([url]);
  expect(errors.filter((text) => !/ERR_CONNECTION_REFUSED|401 \(Unauthorized\)/.test(text))).toEqual([]);
  again.child.kill('SIGTERM');
  await again.ended;
});
