// Signatures of TensorFlow operations (op-definitions.json, written by bench/peers/op_definitions.py), and the attributes that
// follow from an operation's inputs: eager TensorFlow infers them, a graph must hold them.

import { createRequire } from 'node:module';
import type { Attribute } from './nodes.ts';

interface Definition {
  /** `t`: one tensor whose type is attribute t; `t*n`: n of them; `[t]`: tensors of the types in attribute t; `-`: a fixed type. */
  readonly inputs: readonly string[];
  /** Attributes without a default. */
  readonly required?: readonly string[];
  readonly stateful?: boolean;
}

const DEFINITIONS = createRequire(import.meta.url)('./op-definitions.json') as Readonly<Record<string, Definition>>;

/** Keeps something between runs, or draws numbers that no input decides. Undefined for an operation that is not in the table. */
export function isStateful(operation: string): boolean | undefined {
  const definition = DEFINITIONS[operation];
  return definition === undefined ? undefined : definition.stateful === true;
}

/**
 * The attributes of an operation, completed by those that follow from its inputs' types. Returns the name of one that is
 * missing and does not follow as a string.
 */
export function completeAttributes(
  operation: string,
  given: Readonly<Record<string, Attribute>>,
  inputTypes: readonly number[],
): Record<string, Attribute> | string {
  const definition = DEFINITIONS[operation];
  if (definition === undefined) return { ...given };
  const complete: Record<string, Attribute> = { ...given };
  let next = 0;
  definition.inputs.forEach((input, place) => {
    const after = definition.inputs.length - place - 1;
    const list = /^\[(.+)\]$/.exec(input)?.[1];
    if (list !== undefined) {
      const types = inputTypes.slice(next, inputTypes.length - after);
      complete[list] ??= { kind: 'types', value: types };
      next += types.length;
      return;
    }
    const [type = '-', count] = input.split('*');
    const length = count === undefined ? 1 : inputTypes.length - after - next;
    if (count !== undefined) complete[count] ??= { kind: 'int', value: length };
    const first = inputTypes[next];
    if (type !== '-' && first !== undefined) complete[type] ??= { kind: 'type', value: first };
    next += length;
  });
  return definition.required?.find((name) => complete[name] === undefined) ?? complete;
}
