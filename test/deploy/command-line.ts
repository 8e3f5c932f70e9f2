// A command line as it is typed, for tests: parsed, or as it is refused.

import { parseCommand, type ParsedCommand } from '../../deploy/options.ts';
import { LockstepError } from '../../protocol/errors.ts';

export function parse(line: string, env: Record<string, string> = {}): ParsedCommand {
  return parseCommand(
    line.split(' ').filter((word) => word !== ''),
    env,
    '9.8.7',
  );
}

/** `CODE message -> remedy` of the refusal. */
export function refusal(line: string, env: Record<string, string> = {}): string {
  try {
    parse(line, env);
  } catch (error) {
    if (error instanceof LockstepError) return `${error.code} ${error.message} -> ${error.remedy}`;
    throw error;
  }
  return 'no refusal';
}
