import type { JobDefinition } from '../../../jobs/contract.ts';
import { LockstepError } from '../../../protocol/errors.ts';
import type { Engine } from '../engine.ts';

/** Placeholder until the engine lands. */
export async function openWasm(_options: { job: JobDefinition; seed: number }): Promise<Engine> {
  throw new LockstepError('E_ENGINE_UNAVAILABLE', 'the wasm engine is not here yet');
}
