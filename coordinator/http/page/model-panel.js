// The model at work: the newest checkpoint runs in this browser (model-worker.js) on test images and on the user's own. What it says, how
// sure it is, which part of the image its answer rests on, which classes it takes for which, and what its first layer looks for.
//
// Nothing is loaded before somebody asks for it. While the panel is open it follows new checkpoints, FOLLOW_EVERY_MS apart.

import { ask as fetchWell, credentials } from './access.js';
import { at, make, say, sayOrHide } from './dom.js';
import { percent, whole } from './format.js';
import { pixelsOf, readSamples, valuesOfFile } from './samples.js';

const FOLLOW_EVERY_MS = 10_000;
const THUMBNAILS = 60;
const CHANCES_SHOWN = 6;

/** A thread that answers requests. */
function openWorker() {
  const worker = new Worker('/page/model-worker.js');
  const waiting = new Map();
  let last = 0;
  worker.addEventListener('message', ({ data: { id, kind, ...answer } }) => {
    const { onPart, resolve, reject } = waiting.get(id);
    if (kind === 'part') {
      onPart(answer);
      return;
    }
    waiting.delete(id);
    if (kind === 'failed') reject(new Error(answer.because));
    else resolve(answer);
  });
  worker.addEventListener('error', (event) => {
    for (const { reject } of waiting.values()) reject(new Error(event.message || 'its thread could not be started'));
    waiting.clear();
  });
  return (kind, request, onPart = () => {}) =>
    new Promise((resolve, reject) => {
      const id = ++last;
      waiting.set(id, { onPart, resolve, reject });
      worker.postMessage({ id, kind, ...request });
    });
}

/** Step of the newest checkpoint that the coordinator told of; null before the first. */
let newest = null;
let samples = null;
let ask = null;
/** What runs here: { step, digest, backend, filters }. */
let loaded = null;
let isLoading = false;
let loadedAt = -Infinity;
/** What the model says of each sample, by index; null where it has not said yet. */
let said = [];
/** { values, label: index or null, title } */
let chosen = null;
/** Counts what was chosen, so that an answer to what is no longer chosen is dropped. */
let turn = 0;

function paint(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext('2d').putImageData(image, 0, 0);
}

// ------------------------------------------------------------------ test images

function makeThumbnails() {
  const count = Math.min(THUMBNAILS, samples.labels.length);
  at('samples').replaceChildren(
    ...Array.from({ length: count }, (_, i) => {
      const canvas = make('canvas', {});
      paint(canvas, pixelsOf(samples, samples.of(i)));
      canvas.setAttribute('aria-hidden', 'true');
      const option = make('div', { className: 'sample', id: `sample-${i}` }, canvas, make('i', {}));
      option.setAttribute('role', 'option');
      option.dataset.sample = String(i);
      return option;
    }),
  );
}

function showThumbnails() {
  for (const option of at('samples').children) {
    const i = Number(option.dataset.sample);
    const truth = samples.classes[samples.labels[i]];
    const answer = said[i] ?? null;
    const isRight = answer === samples.labels[i];
    option.dataset.answer = answer === null ? '' : isRight ? 'right' : 'wrong';
    option.lastElementChild.textContent = answer === null ? '' : isRight ? '✓' : '✕';
    const says =
      answer === null ? '' : isRight ? ', and the model says so' : `; the model says ${samples.classes[answer]}`;
    option.setAttribute('aria-label', `Test image ${i}: ${truth}${says}`);
    option.title = `${truth}${answer === null || isRight ? '' : ` – the model says ${samples.classes[answer]}`}`;
    option.setAttribute('aria-selected', String(chosen?.sample === i));
  }
  if (chosen?.sample !== undefined) at('samples').setAttribute('aria-activedescendant', `sample-${chosen.sample}`);
  const known = said.filter((answer) => answer !== undefined).length;
  const right = said.filter((answer, i) => answer === samples.labels[i]).length;
  say(
    'samplesNote',
    known === 0 ? '' : `${right} of the first ${known} test images are right (${percent(right / known)}).`,
  );
}

function chooseSample(i) {
  chosen = { sample: i, values: samples.of(i), label: samples.labels[i], title: `Test image ${i}` };
  showThumbnails();
  document.getElementById(`sample-${i}`)?.scrollIntoView({ block: 'nearest' });
  void explain();
}

// ------------------------------------------------------------------ the answer to one image

function showHeat(image, heat, greatest) {
  const { width, height } = image;
  const shown = new ImageData(width, height);
  const most = Math.max(...heat, 1e-6);
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = image.data.subarray(4 * i, 4 * i + 3);
    const grey = 0.55 * (0.299 * r + 0.587 * g + 0.114 * b);
    const weight = greatest <= 0.01 ? 0 : Math.max(0, heat[i] / most) ** 1.5;
    shown.data.set(
      [grey + (255 - grey) * weight, grey + (168 - grey) * weight, grey + (40 - grey) * weight, 255],
      4 * i,
    );
  }
  paint(at('heat'), shown);
}

function showChances(probabilities) {
  const order = [...probabilities.keys()].toSorted((a, b) => probabilities[b] - probabilities[a]);
  const shown = order.slice(0, CHANCES_SHOWN);
  if (chosen.label !== null && !shown.includes(chosen.label)) shown.push(chosen.label);
  at('chances').replaceChildren(
    ...shown.map((i) => {
      const bar = make('i', {});
      bar.style.width = `${100 * probabilities[i]}%`;
      const name = make('span', { className: 'name' }, samples.classes[i] ?? String(i));
      if (i === chosen.label) name.append(make('small', {}, 'true'));
      const item = make(
        'li',
        {},
        name,
        make('span', { className: 'track' }, bar),
        make('b', {}, percent(probabilities[i])),
      );
      item.classList.toggle('truth', i === chosen.label);
      return item;
    }),
  );
}

async function explain() {
  const mine = ++turn;
  const { values, label, title } = chosen;
  const image = pixelsOf(samples, values);
  paint(at('image'), image);
  let answer;
  try {
    answer = await ask('explain', { values: values.slice() });
  } catch (error) {
    if (mine === turn) sayOrHide('modelStatus', `The model could not be run: ${error.message}.`);
    return;
  }
  if (mine !== turn) return;
  const { probabilities, top, heat, greatest } = answer;
  const name = samples.classes[top] ?? String(top);
  const verdict = label === null ? '' : label === top ? ', which is right' : `; it is ${samples.classes[label]}`;
  say('answerTitle', `${title}: the model says ${name}${verdict}`);
  at('answerTitle').dataset.answer = label === null ? '' : label === top ? 'right' : 'wrong';
  at('answerTitle').dataset.class = name;
  showHeat(image, heat, greatest);
  const rests =
    greatest <= 0.01
      ? `Whatever part is covered, it goes on saying ${name}.`
      : `With the brightest part covered, ${name} falls from ${percent(probabilities[top])} to ${percent(Math.max(0, probabilities[top] - greatest))}.`;
  say('heatNote', rests);
  at('heat').setAttribute('aria-label', `Heat map. ${rests}`);
  showChances(probabilities);
}

// ------------------------------------------------------------------ all samples

function showConfusion() {
  const { classes, labels } = samples;
  const counts = classes.map(() => classes.map(() => 0));
  let known = 0;
  for (const [i, answer] of said.entries()) {
    if (answer === undefined) continue;
    counts[labels[i]][answer] += 1;
    known += 1;
  }
  say('confusionNote', `Of the first ${known} test images: rows are what they are, columns what the model says.`);
  const head = make('tr', {}, make('td', {}));
  for (const name of classes) {
    const cell = make('th', { scope: 'col', title: name }, make('span', {}, name));
    head.append(cell);
  }
  const body = counts.map((row, truth) => {
    const total = row.reduce((a, b) => a + b, 0);
    const cells = row.map((count, answer) => {
      const cell = make('td', { title: `${classes[truth]} taken for ${classes[answer]}: ${count} of ${total}` });
      cell.textContent = count === 0 ? '·' : String(count);
      cell.dataset.count = String(count);
      if (truth === answer) cell.className = 'right';
      const share = total === 0 ? 0 : count / total;
      cell.style.setProperty('--share', `${Math.round(100 * Math.sqrt(share))}%`);
      return cell;
    });
    return make('tr', {}, make('th', { scope: 'row' }, classes[truth]), ...cells);
  });
  at('confusion').replaceChildren(make('thead', {}, head), make('tbody', {}, ...body));
}

async function runAll() {
  const before = said;
  const answers = [];
  const { labels, classes, values } = samples;
  await ask('run', { values, count: labels.length }, ({ from, count, values: chances }) => {
    for (let i = 0; i < count; i++) {
      const row = chances.subarray(i * classes.length, (i + 1) * classes.length);
      answers[from + i] = row.indexOf(Math.max(...row));
    }
    said = before.length === 0 ? [...answers] : [...answers, ...before.slice(answers.length)];
    sayOrHide('modelStatus', `Running the test images: ${answers.length} of ${labels.length}`);
    showThumbnails();
  });
  sayOrHide('modelStatus', '');
  showConfusion();
  at('model').dataset.step = String(loaded.step);
}

function showFilters({ filters }) {
  if (filters === null) {
    say('filtersNote', 'The first layer is no convolution over an image’s colours.');
    at('filters').replaceChildren();
    return;
  }
  const [height, width, channels, count] = filters.shape;
  say('filtersNote', `${filters.layer}: ${count} filters of ${height} × ${width}; each stretched over its own range.`);
  const size = height * width * channels;
  at('filters').replaceChildren(
    ...Array.from({ length: count }, (_, f) => {
      const kernel = filters.values.subarray(f * size, (f + 1) * size);
      const [least, greatest] = [Math.min(...kernel), Math.max(...kernel)];
      const image = new ImageData(width, height);
      for (let i = 0; i < height * width; i++) {
        for (let c = 0; c < 3; c++) {
          const value = kernel[i * channels + (channels === 1 ? 0 : c)];
          image.data[4 * i + c] = (255 * (value - least)) / (greatest - least || 1);
        }
        image.data[4 * i + 3] = 255;
      }
      const canvas = make('canvas', {});
      canvas.setAttribute('role', 'img');
      canvas.setAttribute('aria-label', `Filter ${f}`);
      paint(canvas, image);
      return canvas;
    }),
  );
}

// ------------------------------------------------------------------ opening, and following checkpoints

async function loadNewest() {
  if (isLoading) return;
  isLoading = true;
  loadedAt = performance.now();
  try {
    loaded = await ask('load', { headers: credentials(), shape: samples.shape });
    const { step, digest, backend } = loaded;
    const on = { wasm: 'WebAssembly', cpu: 'JavaScript, without WebAssembly' }[backend] ?? backend;
    say('modelAbout', `checkpoint of step ${whole(step)} · digest ${digest.slice(0, 12)} · TensorFlow.js, ${on}`);
    at('modelBody').hidden = false;
    showFilters(loaded);
    if (chosen === null) chooseSample(0);
    else void explain();
    await runAll();
  } catch (error) {
    const because = error.message.replace(/\.$/, '');
    const before = loaded === null ? '' : ` What is shown is of step ${whole(loaded.step)}.`;
    sayOrHide('modelStatus', `The newest checkpoint could not be run here: ${because}.${before}`);
  } finally {
    isLoading = false;
  }
}

/** Called with all news, so it need not wake by itself. */
function follow() {
  if (isLoading || newest === null || loaded === null || loaded.step === newest || document.hidden) return;
  if (performance.now() - loadedAt >= FOLLOW_EVERY_MS) void loadNewest();
}

async function open() {
  at('modelOpen').disabled = true;
  try {
    sayOrHide('modelStatus', 'Fetching the test images …');
    samples = await readSamples();
    makeThumbnails();
    showThumbnails();
    sayOrHide('modelStatus', 'Fetching TensorFlow.js and the checkpoint …');
    ask = openWorker();
    say('modelNote', '');
    at('modelOpen').hidden = true;
    await loadNewest();
    if (loaded !== null) return;
    // It has said why; another try may be made.
    ask = null;
    at('modelOpen').disabled = false;
    invite();
  } catch (error) {
    sayOrHide('modelStatus', `It could not be opened: ${error.message}.`);
    at('modelOpen').disabled = false;
  }
}

async function takeFile(file) {
  if (file === undefined || ask === null) return;
  try {
    const values = await valuesOfFile(samples, file);
    chosen = { values, label: null, title: file.name };
    showThumbnails();
    await explain();
  } catch {
    sayOrHide('modelStatus', `${file.name} is no image that this browser can read.`);
  }
}

at('modelOpen').addEventListener('click', () => void open());
at('samples').addEventListener('click', ({ target }) => {
  const option = target.closest('[data-sample]');
  if (option !== null) chooseSample(Number(option.dataset.sample));
});
at('samples').addEventListener('keydown', (event) => {
  const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  const end = at('samples').children.length - 1;
  const edge = { Home: 0, End: end }[event.key];
  if (by === undefined && edge === undefined) return;
  event.preventDefault();
  chooseSample(edge ?? Math.min(end, Math.max(0, (chosen?.sample ?? 0) + by)));
});
at('file').addEventListener('change', ({ target }) => void takeFile(target.files[0]));
for (const kind of ['dragover', 'dragleave', 'drop'])
  at('drop').addEventListener(kind, (event) => {
    event.preventDefault();
    at('drop').classList.toggle('over', kind === 'dragover');
    if (kind === 'drop') void takeFile(event.dataTransfer.files[0]);
  });
document.addEventListener('visibilitychange', follow);

/** Whether it was asked if the job has images; then why it has none, null where it has. */
let isAsked = false;
let because = null;

async function askWhether() {
  if (isAsked) return;
  isAsked = true;
  try {
    because = (await (await fetchWell('/api/samples')).json()).because ?? null;
    invite();
  } catch {
    // The next news bring another try.
    isAsked = false;
  }
}

/** What is said while the panel is closed. */
function invite() {
  if (ask !== null) return;
  at('modelOpen').hidden = newest === null || because !== null;
  const early =
    'There is no checkpoint yet. The first is written at the end of an epoch, or each --checkpoint-every steps.';
  const ready =
    'Its newest checkpoint runs here with TensorFlow.js (3 MB, from the coordinator), on test images or on one of your own. Nothing leaves this browser.';
  say('modelNote', because ?? (newest === null ? early : ready));
}

export const modelPanel = {
  /** The coordinator tells its newest checkpoint's step; null before the first. */
  checkpoint: (step) => {
    newest = step;
    void askWhether();
    invite();
    follow();
  },
};
