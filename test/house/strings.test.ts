// The arrows between the rooms, where the linter does not look: a path to another room in a plain string, as in
// `new URL('../worker/main.ts', import.meta.url)`, a `require`, or a worker thread's file. Imports are lint.test.ts's affair.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url));

/** Rooms, and rooms that no string of theirs may lead to. */
const CLOSED: Readonly<Record<string, readonly string[]>> = {
  protocol: ['nats', 'coordinator', 'worker', 'jobs', 'deploy', 'dashboards', 'test', 'bench'],
  nats: ['coordinator', 'worker', 'jobs', 'deploy', 'dashboards', 'test', 'bench'],
  coordinator: ['worker', 'jobs', 'deploy', 'test', 'bench'],
  worker: ['coordinator', 'deploy', 'dashboards', 'test', 'bench'],
  jobs: ['nats', 'coordinator', 'worker', 'deploy', 'dashboards', 'test', 'bench'],
  deploy: [],
  dashboards: ['nats', 'coordinator', 'worker', 'jobs', 'deploy', 'test', 'bench'],
};

/** Paths in quotes that go up and into a closed room; an `import type` of jobs in coordinator is the linter's to judge. */
function leadsOut(room: string, source: string): string[] {
  const code = source.replaceAll(/^import type [^;]*;$/gm, '');
  const rooms = (CLOSED[room] ?? []).join('|');
  if (rooms === '') return [];
  return [...code.matchAll(new RegExp(`['"\`](?:\\.\\./)+(?:${rooms})/[^'"\`]*`, 'g'))].map(([path]) => path.slice(1));
}

function sourcesOf(room: string): string[] {
  try {
    const files = readdirSync(join(CHECKOUT, room), { recursive: true, encoding: 'utf8' });
    return files.filter((file) => /\.(ts|mjs|js)$/.test(file)).map((file) => join(CHECKOUT, room, file));
  } catch {
    return [];
  }
}

describe('the check itself', () => {
  test.each([
    ['worker', "new Worker(new URL('../../coordinator/main.ts', import.meta.url));", ['../../coordinator/main.ts']],
    ['protocol', 'require("../jobs/contract.ts");', ['../jobs/contract.ts']],
    ['jobs', 'const path = `../worker/train.ts`;', ['../worker/train.ts']],
    ['worker', "new URL('../jobs/cifar10-cnn.ts', import.meta.url);", []],
    ['coordinator', "import type { JobDefinition } from '../jobs/contract.ts';", []],
  ])('in %s, %s', (room, source, found) => {
    expect(leadsOut(room, source)).toEqual(found);
  });
});

test.each(Object.keys(CLOSED))('no string in %s/ leads to a room that is closed to it', (room) => {
  const found = sourcesOf(room).flatMap((file) =>
    leadsOut(room, readFileSync(file, 'utf8')).map((path) => [file, path]),
  );
  expect(found).toEqual([]);
});

test('the rooms are where this looks for them', () => {
  for (const room of ['protocol', 'nats', 'coordinator', 'worker', 'jobs', 'deploy'])
    expect(sourcesOf(room).length).toBeGreaterThan(0);
});
