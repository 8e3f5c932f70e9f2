import { expect, test } from 'vitest';
import { rowsOf, type RateOf } from '../../bench/engine.ts';

const WHOLE = [64, 256];

/** Rates made up so that each system's can be told apart. */
const everything: RateOf = ({ system, work, batch, microbatch }) => {
  if (system === 'wasm') return 380;
  if (system === 'graph')
    return work === 'matmul' ? 103.2 : work === 'gradient' ? 3200 : microbatch < batch ? 2000 : 3000;
  if (system === 'mixed') return work === 'matmul' ? 206.4 : 4500;
  if (system === 'keras') return work === 'fit' ? 2000 : 2400;
  return 1000;
};

test('the engine is held against each peer at both batches, and the ratio is ours over theirs', () => {
  const rows = rowsOf(everything, 5);
  for (const batch of WHOLE) {
    const graph = rows.filter((row) => row.case === `Lockstep graph, batch ${batch}`);
    expect(graph.map(({ peerName, ratio }) => [peerName, ratio])).toEqual([
      ['TensorFlow.js eager (tfjs-node)', 3],
      ['Keras', 1.25],
      ['PyTorch, NCHW', 3],
      ['PyTorch, channels_last', 3],
      ['Keras, all cores', 3],
      ['Keras, fit', 1.5],
      ['Keras, all cores, fit', 3],
    ]);
  }
});

test('mixed precision is held against mixed Keras and against our float32', () => {
  const mixed = rowsOf(everything, 5).filter((row) => row.case === 'Lockstep graph, mixed_bfloat16, batch 64');
  expect(mixed.map(({ peerName, ratio }) => [peerName, ratio])).toEqual([
    ['Keras, mixed_bfloat16', 4.5],
    ['Lockstep graph', 1.5],
    ['Keras, mixed_bfloat16, fit', 4.5],
  ]);
});

test('a cut batch is held against the same batch in one piece', () => {
  const cut = rowsOf(everything, 5).filter((row) => row.peerName === 'the same, batch 64 in one piece');
  expect(cut.filter((row) => row.case.startsWith('Lockstep graph, batch')).map((r) => [r.case, r.ratio])).toEqual([
    ['Lockstep graph, batch 64 in microbatches of 8', 2 / 3],
    ['Lockstep graph, batch 64 in microbatches of 16', 2 / 3],
    ['Lockstep graph, batch 64 in microbatches of 32', 2 / 3],
  ]);
});

test('the limit of the core: images as GFLOP over a matrix product', () => {
  const [row] = rowsOf(everything, 5).filter(({ unit }) => unit === 'GFLOP/s');
  expect(row?.ours).toBeCloseTo(77.4, 10); // 3000 x 25.8 MFLOP
  expect(row?.ratio).toBeCloseTo(0.75, 10);
  const [mixed, whether] = rowsOf(everything, 5).filter((r) => r.unit === 'GFLOP/s' && /bfloat16/.test(r.case));
  expect(mixed?.ratio).toBeCloseTo(0.5625, 10); // 4500 x 25.8 MFLOP of 206.4 GFLOP
  expect(whether).toMatchObject({ ours: 206.4, peer: 103.2, ratio: 2 });
});

test('wasm stands alone, and the row says why', () => {
  const [row] = rowsOf(everything, 5).filter((r) => r.case === 'Lockstep wasm, batch 64');
  expect(row).toMatchObject({ ours: 380, peer: null, ratio: null });
  expect(row?.peerName).toMatch(/cannot train/);
});

test('where peers are missing they are named; where an engine is, it has no rows', () => {
  const rows = rowsOf((task) => (task.system === 'graph' || task.system === 'stock' ? everything(task) : null), 1);
  expect(rows.filter((row) => /mixed|wasm|eager,/.test(row.case))).toEqual([]);
  const missing = rows.filter((row) => row.peer === null).map((row) => row.peerName);
  expect(missing).toContain('Keras (not installed: npm run bench:peers)');
  expect(missing).toContain('PyTorch, channels_last (not installed: npm run bench:peers)');
});
