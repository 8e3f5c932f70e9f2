#!/usr/bin/env node
// The `lockstep` command, and what `npm start`, `npm test` and `npm run setup` call. Sets up what the first import needs, then
// hands over to cli.ts.

import { ensureNode, ensurePackages, registerTypeScript } from './bootstrap.mjs';

ensureNode();
await ensurePackages();
await registerTypeScript();
const { main } = await import('./cli.ts');
process.exitCode = await main(process.argv.slice(2), process.env);
