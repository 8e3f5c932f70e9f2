#!/usr/bin/env node
// The `lockstep` command, and what `npm start`, `npm test` and `npm run setup` call. Sets up what the first import needs, then
// hands over to cli.ts. Without await at the top: a Node too old for that must come as far as being told so.

import { ensureNode, ensurePackages, registerTypeScript } from './bootstrap.mjs';

async function start() {
  ensureNode();
  await ensurePackages();
  await registerTypeScript();
  const { main } = await import('./cli.ts');
  process.exitCode = await main(process.argv.slice(2), process.env);
}

void start();
