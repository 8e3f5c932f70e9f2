// The table of planted violations: for each arrow between rooms, each ban of the core files and each rule that finds real bugs,
// a file that breaks it and says which rule must speak, or a lawful twin of which no rule may speak. Plain data for lint.test.ts.

export interface Planted {
  /** Path in a made-up checkout. */
  readonly file: string;
  readonly source: string;
  /** The one rule that must report this file; null: none may. */
  readonly rule: string | null;
}

const ARROW = 'eslint(no-restricted-imports)';

/** A door or an inner file of each room, for the arrows to point at; `thing` is a value, `Thing` a type. */
export const TARGETS = [
  'protocol/messages.ts',
  'protocol/metrics.ts',
  'nats/connect.ts',
  'coordinator/main.ts',
  'coordinator/core/run.ts',
  'worker/main.ts',
  'worker/engine/environment.ts',
  'worker/train.ts',
  'worker/engine/tensorflow.ts',
  'worker/collective/tree.ts',
  'worker/collective/links/ws.ts',
  'jobs/contract.ts',
  'deploy/cli.ts',
  'dashboards/page.ts',
  'test/run.ts',
  'test/oracles/formula.ts',
  'bench/run.ts',
  'bench/table.ts',
] as const;

type Target = (typeof TARGETS)[number];
type Form = 'import' | 'type' | 'inline-type' | 'export' | 'bare' | 'dynamic';

const OUTSIDE: readonly Target[] = ['deploy/cli.ts', 'dashboards/page.ts', 'test/oracles/formula.ts', 'bench/table.ts'];

/** Who may not import whom: every inner file of a room stands for all of them. */
const FORBIDDEN: Readonly<Record<string, readonly Target[]>> = {
  'protocol/core-file.ts': ['nats/connect.ts', 'coordinator/main.ts', 'worker/main.ts', 'jobs/contract.ts', ...OUTSIDE],
  'nats/shell-file.ts': ['coordinator/main.ts', 'worker/main.ts', 'jobs/contract.ts', ...OUTSIDE],
  'coordinator/shell-file.ts': ['worker/main.ts', 'jobs/contract.ts', ...OUTSIDE],
  'coordinator/http/shell-file.ts': ['worker/train.ts', 'jobs/contract.ts', ...OUTSIDE],
  'coordinator/core/core-file.ts': [
    'nats/connect.ts',
    'coordinator/main.ts',
    'worker/train.ts',
    'jobs/contract.ts',
    ...OUTSIDE,
  ],
  'worker/shell-file.ts': ['coordinator/main.ts', ...OUTSIDE],
  'worker/engine/shell-file.ts': ['coordinator/core/run.ts', ...OUTSIDE],
  'worker/collective/core-file.ts': [
    'nats/connect.ts',
    'coordinator/core/run.ts',
    'worker/main.ts',
    'worker/collective/links/ws.ts',
    ...OUTSIDE,
  ],
  'jobs/job-file.ts': ['nats/connect.ts', 'coordinator/main.ts', 'worker/main.ts', ...OUTSIDE],
  'jobs/datasets/job-file.ts': ['coordinator/core/run.ts', 'worker/train.ts', ...OUTSIDE],
  'deploy/shell-file.ts': [
    'coordinator/core/run.ts',
    'worker/train.ts',
    'worker/engine/tensorflow.ts',
    'dashboards/page.ts',
    'test/oracles/formula.ts',
    'bench/table.ts',
  ],
  'deploy/setup/shell-file.ts': ['coordinator/core/run.ts', 'worker/train.ts'],
  'dashboards/core-file.ts': [
    'nats/connect.ts',
    'coordinator/main.ts',
    'worker/main.ts',
    'jobs/contract.ts',
    'deploy/cli.ts',
    'protocol/messages.ts',
    'test/oracles/formula.ts',
    'bench/table.ts',
  ],
};

const LAWFUL: Readonly<Record<string, readonly Target[]>> = {
  'nats/shell-file.ts': ['protocol/messages.ts'],
  'coordinator/shell-file.ts': ['protocol/messages.ts', 'nats/connect.ts', 'coordinator/core/run.ts'],
  'coordinator/core/core-file.ts': ['protocol/messages.ts'],
  'worker/shell-file.ts': ['protocol/messages.ts', 'nats/connect.ts', 'jobs/contract.ts', 'worker/collective/tree.ts'],
  'worker/collective/core-file.ts': ['protocol/messages.ts', 'worker/collective/tree.ts'],
  'jobs/datasets/job-file.ts': ['protocol/messages.ts', 'jobs/contract.ts'],
  'deploy/shell-file.ts': [
    'protocol/messages.ts',
    'nats/connect.ts',
    'jobs/contract.ts',
    'coordinator/main.ts',
    'worker/main.ts',
    'worker/engine/environment.ts',
    'test/run.ts',
    'bench/run.ts',
  ],
  'dashboards/core-file.ts': ['protocol/metrics.ts'],
  'test/deep/er/oracle.ts': TARGETS,
  'bench/case.ts': TARGETS,
};

function specifier(from: string, to: string): string {
  const fromParts = from.split('/').slice(0, -1);
  const toParts = to.split('/');
  let shared = 0;
  while (shared < fromParts.length && fromParts[shared] === toParts[shared]) shared++;
  const up = '../'.repeat(fromParts.length - shared);
  return `${up === '' ? './' : up}${toParts.slice(shared).join('/')}`;
}

function sourceOf(form: Form, from: string): string {
  switch (form) {
    case 'import':
      return `import { thing } from '${from}';\nexport const user: number = thing;\n`;
    case 'type':
      return `import type { Thing } from '${from}';\nexport const user = (one: Thing): number => one.size;\n`;
    case 'inline-type':
      return `export const user = (one: import('${from}').Thing): number => one.size;\n`;
    case 'export':
      return `export { thing } from '${from}';\n`;
    case 'bare':
      return `import '${from}';\n`;
    case 'dynamic':
      return `export const user = async (): Promise<number> => (await import('${from}')).thing;\n`;
  }
}

function arrows(
  table: Readonly<Record<string, readonly Target[]>>,
  forms: readonly Form[],
  rule: string | null,
): Planted[] {
  return Object.entries(table).flatMap(([file, targets]) =>
    targets.flatMap((target) =>
      forms.map((form) => ({
        file: file.replace('.ts', `-${form}-${target.replaceAll(/[/.]/g, '-')}.ts`),
        source: sourceOf(form, specifier(file, target)),
        rule,
      })),
    ),
  );
}

const CORE_FOLDERS = ['protocol', 'coordinator/core', 'worker/collective', 'worker/optimizer', 'worker/data'];
const SHELL_FOLDERS = ['nats', 'coordinator/http', 'worker', 'worker/collective/links', 'deploy'];

const WORLDLY_EXPRESSIONS: Readonly<Record<string, readonly [source: string, rule: string]>> = {
  'date-now': ['Date.now()', 'eslint(no-restricted-globals)'],
  'new-date': ['new Date().getTime()', 'eslint(no-restricted-globals)'],
  'global-date': ['globalThis.Date.now()', 'eslint(no-restricted-globals)'],
  performance: ['performance.now()', 'eslint(no-restricted-globals)'],
  random: ['Math.random()', 'eslint(no-restricted-properties)'],
  'random-taken-out': [
    '((): number => {\n  const { random } = Math;\n  return random();\n})()',
    'eslint(no-restricted-properties)',
  ],
  'random-by-name': ["Math['random']()", 'eslint(no-restricted-properties)'],
  'crypto-random': ['crypto.getRandomValues(new Uint8Array(1)).length', 'eslint(no-restricted-globals)'],
  timeout: ['Number(setTimeout(() => undefined, 1))', 'eslint(no-restricted-globals)'],
  interval: ['Number(setInterval(() => undefined, 1))', 'eslint(no-restricted-globals)'],
  immediate: ['typeof setImmediate(() => undefined)', 'eslint(no-restricted-globals)'],
  microtask: ['typeof queueMicrotask(() => undefined)', 'eslint(no-restricted-globals)'],
  process: ['process.pid', 'eslint(no-restricted-globals)'],
  fetch: ['fetch.length', 'eslint(no-restricted-globals)'],
  'web-socket': ['WebSocket.length', 'eslint(no-restricted-globals)'],
};

const WORLDLY_MODULES = [
  'node:fs',
  'fs',
  'node:fs/promises',
  'node:net',
  'node:http',
  'node:crypto',
  'node:timers/promises',
  'node:perf_hooks',
  'node:worker_threads',
  'node:child_process',
  'node:module',
  'ws',
  '@nats-io/transport-node',
];

function worldly(folders: readonly string[], isLawful: boolean): Planted[] {
  return folders.flatMap((folder) => [
    ...Object.entries(WORLDLY_EXPRESSIONS).map(([name, [expression, rule]]) => ({
      file: `${folder}/world-${name}.ts`,
      source: `export const value: unknown = ${expression};\n`,
      rule: isLawful ? null : rule,
    })),
    ...WORLDLY_MODULES.map((module) => ({
      file: `${folder}/world-${module.replaceAll(/[:/]/g, '-')}.ts`,
      source: `import * as world from '${module}';\nexport const value: unknown = world;\n`,
      rule: isLawful ? null : ARROW,
    })),
  ]);
}

const tfjs = (keyword: string): string =>
  `import${keyword} * as tf from '@tensorflow/tfjs';\nexport const rankOf = (one: tf.Tensor): number => one.rank;\n` +
  (keyword === '' ? 'export const version: unknown = tf.version;\n' : '');

const TENSORS: readonly Planted[] = [
  ...['worker/engine', 'worker', 'jobs', 'deploy', 'test/worker', 'bench'].flatMap((folder) => [
    { file: `${folder}/tfjs-value.ts`, source: tfjs(''), rule: ARROW },
    { file: `${folder}/tfjs-type.ts`, source: tfjs(' type'), rule: null },
  ]),
  { file: 'outside-all-rooms.ts', source: tfjs(''), rule: ARROW },
  ...[...CORE_FOLDERS, 'coordinator', 'dashboards'].map((folder) => ({
    file: `${folder}/tfjs-type.ts`,
    source: tfjs(' type'),
    rule: ARROW,
  })),
];

/** Each rule that finds bugs, broken once and kept once, in a room where nothing else is at stake. */
const BUGS: readonly (readonly [rule: string, broken: string, kept: string])[] = [
  [
    'typescript(no-floating-promises)',
    'export function act(work: () => Promise<void>): void {\n  work();\n}\n',
    'export async function act(work: () => Promise<void>): Promise<void> {\n  await work();\n}\n',
  ],
  [
    'typescript(no-misused-promises)',
    'export const odd = (list: number[], isOdd: (n: number) => Promise<boolean>): void => {\n  if (isOdd(list.length)) list.pop();\n};\n',
    'export const odd = (list: number[], isOdd: (n: number) => boolean): void => {\n  if (isOdd(list.length)) list.pop();\n};\n',
  ],
  [
    'typescript(switch-exhaustiveness-check)',
    "export function act(kind: 'go' | 'stop'): void {\n  switch (kind) {\n    case 'go':\n      throw new Error(kind);\n  }\n}\n",
    "export function act(kind: 'go' | 'stop'): void {\n  switch (kind) {\n    case 'go':\n    case 'stop':\n      throw new Error(kind);\n  }\n}\n",
  ],
  ['typescript(no-explicit-any)', 'export const widths: any[] = [];\n', 'export const widths: unknown[] = [];\n'],
  [
    'typescript(no-unsafe-assignment)',
    'export const parsed: { size: number } = JSON.parse("{}");\n',
    'export const parsed: unknown = JSON.parse("{}");\n',
  ],
  [
    'typescript(no-unsafe-member-access)',
    'export const parsed: unknown = JSON.parse("{}").size;\n',
    'export const parsed = { size: 1 }.size;\n',
  ],
  ['typescript(no-unsafe-call)', 'void JSON.parse("1")();\n', 'void Number("1");\n'],
  [
    'typescript(no-unsafe-return)',
    'export const parse = (text: string): { size: number } => JSON.parse(text);\n',
    'export const parse = (text: string): unknown => JSON.parse(text);\n',
  ],
  [
    'typescript(no-unsafe-argument)',
    'export const half = (text: string): number => Math.ceil(JSON.parse(text));\n',
    'export const half = (text: string): number => Math.ceil(Number(text));\n',
  ],
  [
    'typescript(no-unsafe-type-assertion)',
    'export const sizeOf = (one: unknown): number => one as number;\n',
    'export const sizeOf = (one: unknown): number => (typeof one === "number" ? one : 0);\n',
  ],
  [
    'typescript(consistent-type-imports)',
    "import { Thing } from './target.ts';\nexport const sizeOf = (one: Thing): number => one.size;\n",
    "import type { Thing } from './target.ts';\nexport const sizeOf = (one: Thing): number => one.size;\n",
  ],
  [
    'typescript(only-throw-error)',
    "export function act(): never {\n  throw 'no';\n}\n",
    "export function act(): never {\n  throw new Error('no');\n}\n",
  ],
  [
    'typescript(await-thenable)',
    'export const one = async (): Promise<number> => {\n  await 1;\n  return 2;\n};\n',
    'export const one = async (work: Promise<number>): Promise<number> => {\n  await work;\n  return 2;\n};\n',
  ],
  [
    'typescript(return-await)',
    'export async function act(work: () => Promise<void>): Promise<void> {\n  try {\n    return work();\n  } finally {\n    act.length.toFixed();\n  }\n}\n',
    'export async function act(work: () => Promise<void>): Promise<void> {\n  try {\n    return await work();\n  } finally {\n    act.length.toFixed();\n  }\n}\n',
  ],
  ['typescript(ban-ts-comment)', '// @ts-ignore\nexport const one = 1;\n', '// A comment.\nexport const one = 1;\n'],
  [
    'typescript(no-deprecated)',
    'export const tail = (text: string): string => text.substr(1);\n',
    'export const tail = (text: string): string => text.slice(1);\n',
  ],
  ['eslint(no-var)', 'export var one = 1;\n', 'export const one = 1;\n'],
  [
    'eslint(prefer-const)',
    'export const two = (): number => {\n  let one = 1;\n  return 2 * one;\n};\n',
    'export const two = (): number => {\n  const one = 1;\n  return 2 * one;\n};\n',
  ],
  [
    'eslint(no-promise-executor-return)',
    'export const soon = new Promise<number>((resolve) => resolve(1));\n',
    'export const soon = new Promise<number>((resolve) => {\n  resolve(1);\n});\n',
  ],
  [
    'typescript(prefer-promise-reject-errors)',
    "export const no = (): Promise<never> => Promise.reject('no');\n",
    "export const no = (): Promise<never> => Promise.reject(new Error('no'));\n",
  ],
  [
    'typescript(no-unsafe-function-type)',
    'export const arityOf = (one: Function): number => one.length;\n',
    'export const arityOf = (one: () => void): number => one.length;\n',
  ],
  [
    'typescript(restrict-plus-operands)',
    'export const both = (n: number, text: string): string => n + text;\n',
    'export const both = (n: number, text: string): string => String(n) + text;\n',
  ],
  [
    'import(no-duplicates)',
    "import { thing } from './target.ts';\nimport { thing as other } from './target.ts';\nexport const two = thing + other;\n",
    "import { thing } from './target.ts';\nexport const two = thing + thing;\n",
  ],
  ['import(no-unassigned-import)', "import './target.ts';\n", "export { thing } from './target.ts';\n"],
  [
    'eslint(eqeqeq)',
    'export const isOne = (n: number): boolean => n == 1;\n',
    'export const isOne = (n: number): boolean => n === 1;\n',
  ],
  ['eslint(no-console)', "console.log('one');\n", "process.stdout.write('one');\n"],
  [
    'eslint(no-unused-vars)',
    "import { thing } from './target.ts';\nexport const one = 1;\n",
    "import { thing } from './target.ts';\nexport const one = thing;\n",
  ],
  [
    'eslint(no-shadow)',
    'export const size = 1;\nexport const twice = (size: number): number => 2 * size;\n',
    'export const size = 1;\nexport const twice = (n: number): number => 2 * n;\n',
  ],
];

const CYCLE: readonly Planted[] = [
  {
    file: 'worker/cycle-a.ts',
    source: "import { b } from './cycle-b.ts';\nexport const a = (): number => b();\n",
    rule: 'import(no-cycle)',
  },
  {
    file: 'worker/cycle-b.ts',
    source: "import { a } from './cycle-a.ts';\nexport const b = (): number => a();\n",
    rule: 'import(no-cycle)',
  },
  {
    file: 'worker/chain-a.ts',
    source: "import { b } from './chain-b.ts';\nexport const a = (): number => b();\n",
    rule: null,
  },
  { file: 'worker/chain-b.ts', source: 'export const b = (): number => 1;\n', rule: null },
];

const suite = (call: string): string =>
  `import { expect, ${call.split('.')[0]} } from 'vitest';\n${call}('one is one', () => {\n  expect(1).toBe(1);\n});\n`;

const TESTS: readonly Planted[] = [
  { file: 'test/focused.test.ts', source: suite('test.only'), rule: 'vitest(no-focused-tests)' },
  { file: 'test/skipped.test.ts', source: suite('test.skip'), rule: 'vitest(no-disabled-tests)' },
  {
    file: 'test/twice.test.ts',
    source: suite('test') + suite('test').split('\n').slice(1).join('\n'),
    rule: 'vitest(no-identical-title)',
  },
  { file: 'test/untitled.test.ts', source: suite('test').replace('one is one', ''), rule: 'vitest(valid-title)' },
  {
    file: 'test/assertionless.test.ts',
    source: "import { test } from 'vitest';\ntest('nothing', () => {\n  process.stdout.write('');\n});\n",
    rule: 'vitest(expect-expect)',
  },
  {
    file: 'test/matcherless.test.ts',
    source: "import { expect, test } from 'vitest';\ntest('nothing', () => {\n  expect(1);\n});\n",
    rule: 'vitest(valid-expect)',
  },
  { file: 'test/whole.test.ts', source: suite('test'), rule: null },
  {
    file: 'worker/engine/cast.ts',
    source: 'export const sizeOf = (one: unknown): number => one as number;\n',
    rule: null,
  },
  { file: 'deploy/plain.mjs', source: 'export const one = (text) => JSON.parse(text).one + 1;\n', rule: null },
  { file: 'deploy/terminal/line.ts', source: "console.log('one');\n", rule: null },
];

export const PLANTED: readonly Planted[] = [
  ...arrows(FORBIDDEN, ['import', 'export', 'dynamic', 'bare'], ARROW),
  ...arrows(LAWFUL, ['import', 'export', 'dynamic'], null),
  ...arrows(
    { 'coordinator/shell-file.ts': ['jobs/contract.ts'], 'coordinator/core/core-file.ts': ['jobs/contract.ts'] },
    ['type'],
    null,
  ),
  ...arrows(FORBIDDEN, ['inline-type'], 'typescript(consistent-type-imports)'),
  ...arrows(
    {
      'protocol/core-file.ts': ['jobs/contract.ts'],
      'coordinator/core/core-file.ts': ['worker/train.ts'],
      'worker/shell-file.ts': ['coordinator/core/run.ts'],
    },
    ['type'],
    ARROW,
  ),
  ...worldly(CORE_FOLDERS, false),
  ...worldly(SHELL_FOLDERS, true),
  ...TENSORS,
  ...BUGS.flatMap(([rule, broken, kept], i) => [
    { file: `worker/broken-${i}.ts`, source: broken, rule },
    { file: `worker/kept-${i}.ts`, source: kept, rule: null },
  ]),
  ...CYCLE,
  ...TESTS,
];

export const TARGET_SOURCE = 'export const thing = 1;\nexport interface Thing {\n  readonly size: number;\n}\n';
