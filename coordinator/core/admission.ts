// Who may train together: a worker proves by its fingerprint that its engine computes the same bits as the others', and by
// its digest that it holds the same weights. The decision carries its reason, with both engines side by side.

import type { WorkerMessage } from '../../protocol/messages.ts';

export type ReadyMessage = Extract<WorkerMessage, { kind: 'ready' }>;

export type Admission =
  | { readonly kind: 'admitted'; readonly mixed: string | null }
  | { readonly kind: 'refused'; readonly code: 'E_FINGERPRINT' | 'E_DIGEST'; readonly because: string };

/** The lines in which two engines differ, or all of the first when they differ in nothing that they say. */
function describeDifference(first: ReadyMessage, second: ReadyMessage): string {
  const facts = (message: ReadyMessage): Map<string, string> =>
    new Map<string, string>([
      ['engine', message.engine.name],
      ['library', message.engine.library],
      ['device', message.engine.device],
      ['threads', String(message.engine.threads)],
      ...Object.entries(message.engine.settings),
      ['fingerprint', message.fingerprint.slice(0, 16)],
    ]);
  const left = facts(first);
  const right = facts(second);
  const lines: string[] = [];
  for (const key of new Set([...left.keys(), ...right.keys()])) {
    const [a, b] = [left.get(key) ?? '(none)', right.get(key) ?? '(none)'];
    if (a !== b) lines.push(`${key}: ${a} | ${b}`);
  }
  return lines.join('; ');
}

/** All that an engine says of itself but its device: another processor of the same kind is welcome. */
function settingsOf({ engine }: ReadyMessage): string {
  const settings = Object.entries(engine.settings).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([engine.name, engine.library, engine.threads, settings]);
}

/**
 * Compares a newcomer with the first worker admitted (`reference`; null when it is the first itself).
 * `allowMixed` lets another engine in and says so; other weights or another shape of model are refused always.
 */
export function admit(
  reference: { readonly worker: string; readonly ready: ReadyMessage } | null,
  newcomer: { readonly worker: string; readonly ready: ReadyMessage },
  expected: { readonly allowMixed: boolean },
): Admission {
  const { ready } = newcomer;
  if (reference === null) return { kind: 'admitted', mixed: null };
  const model = (message: ReadyMessage): string => JSON.stringify([message.layout, message.optimizer]);
  if (model(reference.ready) !== model(ready)) {
    return {
      kind: 'refused',
      code: 'E_DIGEST',
      because: `${newcomer.worker}'s model or optimizer has other weights than ${reference.worker}'s`,
    };
  }
  const sameFingerprint = reference.ready.fingerprint === ready.fingerprint;
  // One microbatch cannot tell all that another thread count or setting may change: what an engine says of itself counts too.
  const sameEngine = sameFingerprint && settingsOf(reference.ready) === settingsOf(ready);
  const difference = describeDifference(reference.ready, ready);
  if (!sameEngine && !expected.allowMixed) {
    return {
      kind: 'refused',
      code: 'E_FINGERPRINT',
      because: `${newcomer.worker}'s engine ${sameFingerprint ? 'is set otherwise' : 'computes other bits'} than ${reference.worker}'s (${reference.worker} | ${newcomer.worker}: ${difference})`,
    };
  }
  if (reference.ready.weightsDigest !== ready.weightsDigest) {
    return {
      kind: 'refused',
      code: 'E_DIGEST',
      because: `${newcomer.worker} starts from other weights (${ready.weightsDigest.slice(0, 16)}) than ${reference.worker} (${reference.ready.weightsDigest.slice(0, 16)})`,
    };
  }
  return { kind: 'admitted', mixed: sameEngine ? null : difference };
}

/**
 * Whether a model can take up a checkpoint's state, where the job's source is another one: null, or why not. Shapes are compared and not
 * only lengths, so that no weight is taken for another; names are not, since TensorFlow.js numbers them.
 */
export function unfitFor(
  checkpoint: { readonly step: number; readonly layout: ReadyMessage['layout']; readonly slots: readonly string[] },
  { layout, optimizer }: Pick<ReadyMessage, 'layout' | 'optimizer'>,
): string | null {
  const shapes = (entries: ReadyMessage['layout']): string =>
    JSON.stringify(entries.map(({ shape, trainable }) => [shape, trainable]));
  if (shapes(layout) !== shapes(checkpoint.layout))
    return `the changed job's model has other weights than the checkpoint after step ${checkpoint.step}`;
  if (JSON.stringify(optimizer.slots) === JSON.stringify(checkpoint.slots)) return null;
  const words = (slots: readonly string[]): string => (slots.length === 0 ? 'none' : slots.join(', '));
  return `the changed job's optimizer keeps other vectors (${words(optimizer.slots)}) than the checkpoint after step ${checkpoint.step} has (${words(checkpoint.slots)})`;
}
