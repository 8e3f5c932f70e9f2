// A process that opens the run directory named on its command line, says how that went, and holds it until its input ends. `fences PID`:
// it takes it from that process.

import { openRunDirectory } from '../../../coordinator/record/run-directory.ts';
import { LockstepError } from '../../../protocol/errors.ts';

try {
  const [path = '', mode = ''] = process.argv.slice(2);
  const hung = Number(/^fences (\d+)$/.exec(mode)?.[1]);
  openRunDirectory(path, mode === 'resume', ({ pid }) => pid === hung);
  process.stdout.write('held\n');
} catch (error) {
  process.stdout.write(`${error instanceof LockstepError ? error.code : String(error)}\n`);
}
process.stdin.resume();
