// A data set by rule, for the jobs beside it.

import type { DataSetDefinition } from '../../../jobs/contract.ts';

export const numbers: DataSetDefinition = {
  name: 'numbers',
  open: () => {
    throw new Error('these tests read no data');
  },
};
