// Which engine: the best that works here, or the one that was asked for and no other. Pure; what works is found by engines.ts.
// Every decision says why: `auto` names what it passed over, a wish that cannot be met names the remedy and what would work.

import { LockstepError } from '../protocol/errors.ts';

/** The environment variable in which the launcher hands its choice to the coordinator that it starts. */
export const ENGINE_CHOICE = 'LOCKSTEP_ENGINE_CHOICE';

/** Best first. */
export const LADDER = ['tensorflow-gpu', 'tensorflow', 'webgpu', 'wasm'] as const;
export type EngineName = (typeof LADDER)[number];

export type Finding =
  | { readonly available: true; readonly detail: string }
  | { readonly available: false; readonly because: string; readonly remedy: string };

export type Findings = Readonly<Record<EngineName, Finding>>;

export interface EngineChoice {
  readonly engine: EngineName;
  /** A line for what was taken, then one for each better engine that was passed over. */
  readonly said: readonly string[];
}

/** Throws E_ENGINE_UNAVAILABLE when the wish cannot be met, or when nothing works at all. */
export function chooseEngine(wish: EngineName | 'auto', findings: Findings): EngineChoice {
  const works = LADDER.filter((name) => findings[name].available);
  if (wish !== 'auto') {
    const finding = findings[wish];
    if (finding.available) return { engine: wish, said: [`${wish}: ${finding.detail}`] };
    const [other] = works;
    const offer = other === undefined ? '' : ` Or use --engine ${other}, which works here.`;
    throw new LockstepError('E_ENGINE_UNAVAILABLE', `the engine ${wish} cannot run here: ${finding.because}`, {
      remedy: `${finding.remedy}${offer}`,
    });
  }
  const [best] = works;
  const passed = LADDER.slice(0, best === undefined ? LADDER.length : LADDER.indexOf(best)).map((name) => {
    const finding = findings[name];
    return finding.available ? name : `not ${name}: ${finding.because} (${finding.remedy.replace(/\.$/, '')})`;
  });
  const finding = best === undefined ? undefined : findings[best];
  if (best === undefined || finding?.available !== true) {
    throw new LockstepError('E_ENGINE_UNAVAILABLE', `no engine works here: ${passed.join('; ')}`);
  }
  return { engine: best, said: [`${best}: ${finding.detail}`, ...passed] };
}
