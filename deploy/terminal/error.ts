// An error as a person reads it: what, with its stable code; what to do about it. Our own bugs show their stack.

import { LockstepError } from '../../protocol/errors.ts';
import { paint } from './text.ts';

export function renderError(error: unknown, style: { readonly color: boolean }): string {
  const p = paint(style.color);
  if (error instanceof LockstepError) {
    const remedy = error.remedy === undefined ? '' : `  ${p.dim('→')} ${error.remedy}\n`;
    return `${p.red('lockstep:')} ${error.message} ${p.dim(`[${error.code}]`)}\n${remedy}`;
  }
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return `${p.red('lockstep:')} this is a bug in Lockstep; please report it with the lines below\n${stack}\n`;
}
