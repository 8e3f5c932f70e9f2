// What ssh is started with. Pure. Of what a user writes only the checkout's directory and Node's path stand on the remote command line,
// each quoted for a POSIX shell, whatever is in it; all else, the token above all, goes over the connection's standard input, where
// `ps` shows it to nobody.

export interface SshOptions {
  readonly port: number | null;
  readonly identityFile: string | null;
  /** As `ssh -o` takes them. */
  readonly options: readonly string[];
  /** Without an answer for so long ssh gives a connection up. */
  readonly graceSeconds: number;
}

export interface RemotePlace {
  /** Of Lockstep's checkout. `~/...` is below the user's home there. */
  readonly directory: string;
  /** Its Node: a path, or a name to be found on the PATH. */
  readonly node: string;
}

/** Questions about a life sign in a grace period. */
const ASKED_IN_GRACE = 3;
const CONNECT_TIMEOUT_SECONDS = 10;
/** Exit codes of the remote command, before Lockstep has any of its own: sysexits' EX_OSFILE, and a shell's own. */
export const NO_DIRECTORY_EXIT = 72;
export const NO_NODE_EXITS: readonly number[] = [126, 127];
/** ssh's own: it could not connect, or lost the connection. */
export const SSH_EXIT = 255;

/** One word of a POSIX shell, whatever the text. */
export function shellWord(text: string): string {
  return /^[\w./@%+=:,-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

function directoryWord(directory: string): string {
  if (directory === '~') return '"$HOME"';
  return directory.startsWith('~/') ? `"$HOME"/${shellWord(directory.slice(2))}` : shellWord(directory);
}

/** `cd` knows `-`, and options. */
function asPath(directory: string): string {
  return directory.startsWith('-') ? `./${directory}` : directory;
}

/**
 * The remote command line. The login shell may be any; it is only asked to start `sh`.
 * @param args of the `lockstep` command
 */
export function remoteCommand({ directory, node }: RemotePlace, args: readonly string[]): string {
  const change = `cd ${directoryWord(asPath(directory))} || exit ${NO_DIRECTORY_EXIT}`;
  const words = [node, 'deploy/lockstep.mjs', ...args].map(shellWord);
  return `exec sh -c ${shellWord(`${change}; exec ${words.join(' ')}`)}`;
}

/** Arguments of `ssh`. `command` null: what it would do, `ssh -G`. What the user says comes first, since ssh takes the first value. */
export function sshArguments(
  host: string,
  { port, identityFile, options, graceSeconds }: SshOptions,
  command: string | null,
): string[] {
  const own = {
    BatchMode: 'yes',
    ConnectTimeout: CONNECT_TIMEOUT_SECONDS,
    ServerAliveInterval: Math.max(1, Math.floor(graceSeconds / ASKED_IN_GRACE)),
    ServerAliveCountMax: ASKED_IN_GRACE,
    // One connection a host, that ends with its ssh.
    ControlMaster: 'no',
    ControlPath: 'none',
    RequestTTY: 'no',
  };
  return [
    ...(command === null ? ['-G'] : ['-T']),
    ...options.flatMap((option) => ['-o', option]),
    ...(port === null ? [] : ['-p', String(port)]),
    ...(identityFile === null ? [] : ['-i', identityFile, '-o', 'IdentitiesOnly=yes']),
    ...Object.entries(own).flatMap(([name, value]) => ['-o', `${name}=${value}`]),
    '--',
    host,
    ...(command === null ? [] : [command]),
  ];
}

/** Why a host could not be reached, from ssh's exit code and last words. */
export interface Unreachable {
  readonly because: string;
  readonly remedy: string;
  /** Another attempt would meet the same. */
  readonly isFinal: boolean;
}

export function unreachableBecause(
  host: string,
  code: number | null,
  lastLines: readonly string[],
  { directory, node }: RemotePlace,
): Unreachable {
  const said = lastLines.join('\n');
  const line = (lastLines.at(-1) ?? '').replace(/\.$/, '');
  if (code === NO_DIRECTORY_EXIT) {
    return {
      because: `there is no directory ${directory}`,
      remedy: 'Install Lockstep there, or name its place with --remote-dir.',
      isFinal: true,
    };
  }
  if (code !== null && NO_NODE_EXITS.includes(code)) {
    return { because: `${node} cannot be run`, remedy: "Name Node's path there with --remote-node.", isFinal: true };
  }
  if (code === SSH_EXIT) {
    if (/could not resolve hostname/i.test(said)) {
      return { because: `its name is not known (${line})`, remedy: 'Correct the name.', isFinal: true };
    }
    if (/host key verification failed/i.test(said)) {
      return {
        because: 'its host key is not known, or another than before',
        remedy: `Look at it by hand once: ssh ${host}`,
        isFinal: true,
      };
    }
    if (/permission denied/i.test(said)) {
      return {
        because: `it lets nobody in without a password (${line})`,
        remedy: `Give it your key: ssh-copy-id ${host}; or name one with --ssh-identity-file.`,
        isFinal: true,
      };
    }
    return {
      because: line === '' ? 'the connection ended' : line,
      remedy: `Try by hand: ssh ${host} true`,
      isFinal: false,
    };
  }
  const how = code === null ? 'its connection was killed' : `it ended with code ${code}`;
  return {
    because: line === '' ? how : `${how}: ${line}`,
    remedy: `Look at the log of ${host} in the run's logs/.`,
    isFinal: false,
  };
}
