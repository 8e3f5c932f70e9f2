// The border for users' jobs: what types cannot hold, since the file may be JavaScript or never have met a compiler. Pure.

type Fields = Readonly<Record<string, unknown>>;

const FIELDS = [
  'name',
  'title',
  'model',
  'data',
  'loss',
  'optimizer',
  'augment',
  'batchSize',
  'epochs',
  'microbatches',
];

function fieldsOf(value: unknown): Fields | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : null;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.trim() !== '';
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 1;
}

/** What is shown of a value in a refusal. */
function shown(value: unknown): string {
  if (typeof value === 'function') return 'a function';
  const text =
    JSON.stringify(value, (_, inner: unknown) =>
      typeof inner === 'number' && !Number.isFinite(inner) ? String(inner) : inner,
    ) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** What keeps `value` from being a job, naming the field; null when it is one. */
export function jobProblem(value: unknown): string | null {
  if (value === undefined) return 'it has no default export; end it with `export default defineJob({ ... })`';
  const job = fieldsOf(value);
  if (job === null)
    return `its default export is ${shown(value)}, not a job; write \`export default defineJob({ ... })\``;
  const unknown = Object.keys(job).find((key) => !FIELDS.includes(key));
  if (unknown !== undefined) return `\`${unknown}\` is no field of a job; the fields are ${FIELDS.join(', ')}`;
  const { name, title, model, batchSize, epochs, microbatches } = job;
  if (!isText(name) || !/^[A-Za-z0-9_-]{1,100}$/.test(name)) {
    return `\`name\` must be 1 to 100 letters, digits, - and _, not ${shown(name)}`;
  }
  if (title !== undefined && !isText(title)) return `\`title\` must be a text, not ${shown(title)}`;
  if (typeof model !== 'function') return `\`model\` must be a function that makes the model, not ${shown(model)}`;
  if (!isCount(batchSize)) return `\`batchSize\` must be a whole number of at least 1, not ${shown(batchSize)}`;
  if (!isCount(epochs)) return `\`epochs\` must be a whole number of at least 1, not ${shown(epochs)}`;
  if (microbatches !== undefined && !(isCount(microbatches) && [1, 2, 4, 8, 16, 32, 64].includes(microbatches))) {
    return `\`microbatches\` must be a power of two from 1 to 64, not ${shown(microbatches)}`;
  }
  return (
    dataProblem(job['data']) ??
    lossProblem(job['loss']) ??
    optimizerProblem(job['optimizer']) ??
    augmentProblem(job['augment'])
  );
}

function dataProblem(value: unknown): string | null {
  const data = fieldsOf(value);
  if (data === null) return `\`data\` must be a data set, not ${shown(value)}`;
  if (!isText(data['name'])) return '`data.name` must be a text';
  if (typeof data['open'] !== 'function') return '`data.open` must be a function that opens the data set';
  if (data['source'] === undefined) return null;
  const source = fieldsOf(data['source']);
  if (source === null || !isText(source['name'])) return '`data.source` must have a `name`, its directory in the cache';
  if (!/^[\w.-]+$/.test(source['name']) || /^\.+$/.test(source['name'])) {
    return `\`data.source.name\` must be a plain directory name, not ${shown(source['name'])}`;
  }
  if (!Array.isArray(source['files'])) return '`data.source.files` must be a list';
  if (!Array.isArray(source['sources'])) return '`data.source.sources` must be a list';
  return typeof source['unpack'] === 'function' ? null : '`data.source.unpack` must be a function';
}

function lossProblem(value: unknown): string | null {
  const loss = fieldsOf(value);
  const isLoss =
    value === 'sparseCategoricalCrossentropy' || (isText(loss?.['name']) && typeof loss?.['perSample'] === 'function');
  return isLoss
    ? null
    : `\`loss\` must be 'sparseCategoricalCrossentropy' or an object with \`name\` and \`perSample\`, not ${shown(value)}`;
}

function optimizerProblem(value: unknown): string | null {
  const optimizer = fieldsOf(value);
  if (optimizer === null || !isText(optimizer['name']) || typeof optimizer['update'] !== 'function') {
    return '`optimizer` must be one of jobs/optimizers.ts, or an object with `name`, `learningRate`, `slots`, `settings` and `update`';
  }
  const { learningRate, slots, settings } = optimizer;
  if (typeof learningRate !== 'number' || !Number.isFinite(learningRate) || learningRate <= 0) {
    return `\`optimizer.learningRate\` must be a number above 0, not ${shown(learningRate)}`;
  }
  if (!Array.isArray(slots) || !slots.every(isText)) return '`optimizer.slots` must be a list of names';
  return fieldsOf(settings) === null ? '`optimizer.settings` must be an object with the hyper-parameters' : null;
}

function augmentProblem(value: unknown): string | null {
  if (value === undefined) return null;
  const augment = fieldsOf(value);
  const isAugment = isText(augment?.['name']) && typeof augment?.['apply'] === 'function';
  return isAugment
    ? null
    : `\`augment\` must be one of jobs/augment.ts, or an object with \`name\` and \`apply\`, not ${shown(value)}`;
}
