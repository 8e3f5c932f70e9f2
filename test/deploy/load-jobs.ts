// Loads the jobs named on its command line as Lockstep's processes do - outside the test runner, which transforms code its own
// way - and prints a line of JSON for each.

import { loadJob } from '../../deploy/job-file.ts';
import { LockstepError } from '../../protocol/errors.ts';

for (const name of process.argv.slice(2)) {
  const result = await loadJob(name).then(
    ({ definition, reference, path }) => ({ name: definition.name, reference, path }),
    (error: unknown) => {
      if (!(error instanceof LockstepError)) throw error;
      const { cause } = error;
      return {
        code: error.code,
        message: error.message,
        remedy: error.remedy,
        cause: cause instanceof Error ? cause.name : null,
      };
    },
  );
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
