// Who is let in at a control door that stands alone, on loopback: by the rules of the coordinator's port, with `token` for its key.

import type { IncomingMessage } from 'node:http';
import { needOf } from '../../coordinator/core/needs.ts';
import { judgeRequest, type Answer } from '../../protocol/access.ts';
import { keysOf } from '../../protocol/token.ts';

/** @param token null: everybody but browsers */
export function judgeBy(token: string | null): (request: IncomingMessage) => Answer {
  const rules = { keys: token === null ? null : keysOf(token), isLoopback: true, needsCertificate: false, needOf };
  return (request) => judgeRequest(request, rules, Date.now());
}
