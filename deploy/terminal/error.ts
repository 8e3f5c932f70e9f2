// An error as a person reads it: what, with its stable code; what to do about it. Our own bugs show their stack. Pure.

import { LockstepError } from '../../protocol/errors.ts';
import { paint, plain } from './text.ts';

/** Several lines, the last one ended. */
export function renderError(error: unknown, style: { readonly color: boolean }): string {
  const colors = paint(style.color);
  const name = colors.bold(colors.red('lockstep:'));
  if (error instanceof LockstepError) {
    const remedy = error.remedy === undefined ? '' : `  -> ${plain(error.remedy)}\n`;
    return `${name} ${colors.bold(error.code)}: ${plain(error.message)}\n${remedy}`;
  }
  const stack = error instanceof Error ? (error.stack ?? `${error.name}: ${error.message}`) : String(error);
  const lines = stack.split('\n').map((line) => `  ${plain(line).trimEnd()}`);
  const cause =
    error instanceof Error && error.cause instanceof Error ? [`  caused by ${plain(error.cause.message)}`] : [];
  return [
    `${name} this is a bug in Lockstep, not in what you asked for`,
    ...lines,
    ...cause,
    '  -> Please report it with these lines and what `npx lockstep doctor` prints.',
    '',
  ].join('\n');
}

/** The same as one object, for --log-format json. */
export function errorRecord(error: unknown): Readonly<Record<string, string>> {
  if (error instanceof LockstepError) {
    return {
      kind: 'error',
      code: error.code,
      msg: error.message,
      ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    };
  }
  if (error instanceof Error) return { kind: 'error', code: 'bug', msg: error.message, stack: error.stack ?? '' };
  return { kind: 'error', code: 'bug', msg: String(error) };
}
