// One connection to a host of a launch: the ssh process with the supervisor at its other end. A shell; what its end means is the
// roster's to decide. On this machine the supervisor is started without ssh.

import { spawn, type ChildProcess } from 'node:child_process';
import { ENTRY } from '../crew.ts';
import { Lines, readFromHost, toHostLine, type FromHost, type ToHost } from './channel.ts';
import type { Host } from './hosts.ts';
import { remoteCommand, sshArguments, type RemotePlace, type SshOptions } from './remote-command.ts';
import { isHere } from './route.ts';

/** Of what a connection said last, for the account of its end. */
const LAST_LINES = 12;
const WORKER_COMMAND = ['worker', '--launched'];

export interface HostEvents {
  readonly message: (message: FromHost) => void;
  /** What anybody else on the host wrote, or ssh itself. */
  readonly line: (line: string) => void;
  readonly end: (code: number | null, lastLines: readonly string[]) => void;
}

export interface RemoteHost {
  send(message: ToHost): void;
  /** Ends the connection, whatever is at its other end. */
  kill(): void;
}

export function connectHost(host: Host, ssh: SshOptions, place: RemotePlace, events: HostEvents): RemoteHost {
  const [program, args] = isHere(host)
    ? [process.execPath, [ENTRY, ...WORKER_COMMAND]]
    : ['ssh', sshArguments(host.name, ssh, remoteCommand(place, WORKER_COMMAND))];
  // Ctrl-C is for the launcher alone: it lets the workers end with the run.
  const child: ChildProcess = spawn(program, args, { detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
  const tail: string[] = [];
  const say = (line: string): void => {
    if (line.trim() === '') return;
    tail.push(line);
    if (tail.length > LAST_LINES) tail.shift();
    events.line(line);
  };
  const out = new Lines();
  const err = new Lines();
  const take = (line: string): void => {
    const message = readFromHost(line);
    if (message === null) say(line);
    else events.message(message);
  };
  child.stdout?.on('data', (chunk: Buffer) => out.take(chunk).forEach(take));
  child.stderr?.on('data', (chunk: Buffer) => err.take(chunk).forEach(say));
  // What can't be sent any more is lost on nobody: the connection's end follows.
  child.stdin?.on('error', () => {});
  let isOver = false;
  const end = (code: number | null): void => {
    if (isOver) return;
    isOver = true;
    out.end().forEach(take);
    err.end().forEach(say);
    events.end(code, tail);
  };
  child.on('error', (error) => {
    say(error.message);
    end(null);
  });
  child.on('close', end);
  return {
    send: (message) => {
      if (child.stdin?.writable === true) child.stdin.write(toHostLine(message));
    },
    kill: () => {
      child.kill('SIGKILL');
    },
  };
}
