// Where the coordinator serves a data set's files to workers: it answers there, they ask there, and who may is decided by the beginning.

export const DATA_PATH = '/data/';

export function dataPathOf(dataSet: string, file: string): string {
  return `${DATA_PATH}${encodeURIComponent(dataSet)}/${encodeURIComponent(file)}`;
}
