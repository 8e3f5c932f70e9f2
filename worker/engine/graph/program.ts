// A graph, loaded into TensorFlow and run as one native call.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NativeBinding, OutputTensor } from '../tensorflow/library.ts';
import type { GraphNode } from './nodes.ts';
import { encodeSavedModel, SERVING_TAG } from './saved-model.ts';

export interface Program {
  /** Ids of native tensors in the order of the input names; returns outputs in order, which the caller deletes. */
  run(inputs: readonly number[]): OutputTensor[];
  close(): void;
}

/**
 * Loads `nodes`; `inputs` names placeholders, `outputs` references (`node:output`). TensorFlow optimises the graph when it first
 * runs: the first call takes tens of milliseconds more.
 */
export function loadProgram(
  binding: NativeBinding,
  nodes: readonly GraphNode[],
  inputs: readonly string[],
  outputs: readonly string[],
): Program {
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-graph-'));
  let session: number;
  try {
    writeFileSync(join(directory, 'saved_model.pb'), encodeSavedModel(nodes));
    session = binding.loadSavedModel(directory, SERVING_TAG);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  const inputNames = inputs.map((name) => `${name}:0`).join(',');
  const outputNames = outputs.join(',');
  return {
    run: (ids) => binding.runSavedModel(session, ids, inputNames, outputNames),
    close: () => binding.deleteSavedModel(session),
  };
}
