// A process that opens the run directory named on its command line, says how that went, and holds it until its input ends.

import { openRunDirectory } from '../../../coordinator/record/run-directory.ts';
import { LockstepError } from '../../../protocol/errors.ts';

try {
  openRunDirectory(process.argv[2] ?? '', process.argv[3] === 'resume');
  process.stdout.write('held\n');
} catch (error) {
  process.stdout.write(`${error instanceof LockstepError ? error.code : String(error)}\n`);
}
process.stdin.resume();
