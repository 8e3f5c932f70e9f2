// Opens a job's data in a thread that prepares it ahead (worker/data/shell): the job by its file, the files where set-up laid them.

import type { Augmentation, DataSet } from '../jobs/contract.ts';
import { loadJob } from './job-file.ts';
import { dataSetDirectory } from './setup/dataset.ts';

/** `argument`: a built-in job's name, or the path of a job file. Throws what loading it throws. */
export async function openTrainingData(
  argument: unknown,
): Promise<{ readonly data: DataSet; readonly augmentation: Augmentation | null }> {
  const { definition } = await loadJob(String(argument));
  return {
    data: definition.data.open(dataSetDirectory(definition.data)),
    augmentation: definition.augment ?? null,
  };
}
