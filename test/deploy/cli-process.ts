// The `lockstep` command without its bootstrap, for the tests: npm packages are there when tests run.

import { main } from '../../deploy/cli.ts';

process.exitCode = await main(process.argv.slice(2), process.env);
