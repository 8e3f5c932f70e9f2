// What the requests to the coordinator's port take (protocol/access.ts says how that is shown):
//
// | what                                        | on loopback | elsewhere |
// |---------------------------------------------|-------------|-----------|
// | /healthz, the page's own files              | nothing     | nothing   |
// | /readyz                                     | nothing     | nothing; its reason takes `observe` |
// | /metrics, /sd, /api/*, /model/*             | nothing     | `observe` |
// | POST /api/stop                              | `control`   | `control` |
// | /control, /heart: a worker; /data/*         | `work`      | `work`    |

import { HEALTH_PATH } from '../../protocol/access.ts';
import { DATA_PATH } from '../../protocol/data-path.ts';
import { HEART_PATH } from '../../protocol/heartbeat.ts';
import type { Scope } from '../../protocol/token.ts';

export const CONTROL_PATH = '/control';
export const READY_PATH = '/readyz';
export const STOP_PATH = '/api/stop';

/** Null: nothing. What is not named takes `observe`. */
export function needOf(path: string): Scope | null {
  if (path === HEALTH_PATH || path === READY_PATH || path === '/' || path.startsWith('/page/')) return null;
  if (path === STOP_PATH) return 'control';
  const isForWorkers = path === CONTROL_PATH || path === HEART_PATH || path.startsWith(DATA_PATH);
  return isForWorkers ? 'work' : 'observe';
}
