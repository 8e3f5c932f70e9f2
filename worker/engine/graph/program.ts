// A graph, loaded into TensorFlow and run as one native call.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NativeBinding, OutputTensor } from '../tensorflow/library.ts';
import type { GraphNode } from './nodes.ts';
import { encodeSavedModel, SERVING_TAG } from './saved-model.ts';

export interface Program {
  /** Ids of native tensors in the order of the input names; returns outputs in order, which the caller deletes. */
  readonly run: (inputs: readonly number[]) => OutputTensor[];
  readonly close: () => void;
}

export interface LoadedGraph {
  /** What runs the graph from placeholders to the first outputs of nodes, all by name. */
  readonly call: (inputs: readonly string[], outputs: readonly string[]) => Program['run'];
  readonly close: () => void;
}

/** Loads `nodes`. TensorFlow optimises the graph when it first runs: the first call takes tens of milliseconds more. */
export function loadGraph(binding: NativeBinding, nodes: readonly GraphNode[]): LoadedGraph {
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-graph-'));
  let session: number;
  try {
    writeFileSync(join(directory, 'saved_model.pb'), encodeSavedModel(nodes));
    session = binding.loadSavedModel(directory, SERVING_TAG);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  const listed = (names: readonly string[]): string => names.map((name) => `${name}:0`).join(',');
  return {
    call: (inputs, outputs) => {
      const [from, to] = [listed(inputs), listed(outputs)];
      return (ids) => binding.runSavedModel(session, ids, from, to);
    },
    close: () => binding.deleteSavedModel(session),
  };
}
