// Where the heart's thread begins: makes Node read TypeScript there, too, then hands over to thread.ts. Over sockets that is required and
// not imported where Node needs tsx for it: hooks for imports are a thread more, and twice the processor time.

import { createRequire } from 'node:module';
import { workerData } from 'node:worker_threads';

if (!process.features.typescript && workerData.kind === 'http') {
  createRequire(import.meta.url)('tsx/cjs/api').require('./thread.ts', import.meta.url);
} else {
  if (!process.features.typescript) (await import('tsx/esm/api')).register();
  await import('./thread.ts');
}
