// The lists of hosts: what is taken, and how each refusal names its place.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  differenceOf,
  parseDiscovered,
  parseHostfile,
  parseHostList,
  withSlots,
  type Host,
} from '../../../deploy/launch/hosts.ts';
import { LockstepError } from '../../../protocol/errors.ts';

const short = (hosts: readonly Host[]): string =>
  hosts.map(({ name, slots, where }) => `${name} ${slots} ${where}`).join('; ');

function refusal(parse: () => unknown): string {
  try {
    parse();
  } catch (error) {
    if (error instanceof LockstepError) return `${error.code} ${error.message} -> ${error.remedy}`;
    throw error;
  }
  return 'no refusal';
}

/** None where it is refused. */
function hostsIn(text: string): readonly Host[] {
  try {
    return parseHostList(text);
  } catch (error) {
    if (error instanceof LockstepError) return [];
    throw error;
  }
}

describe('-H', () => {
  it('takes names, users, slots and IPv6 addresses in brackets', () => {
    expect(short(parseHostList('gpu1:4, gpu-2.example.org,ada@10.0.0.5:16,[fe80::1%eth0]:2,root@[::1]'))).toBe(
      'gpu1 4 -H; gpu-2.example.org null -H; ada@10.0.0.5 16 -H; fe80::1%eth0 2 -H; root@::1 null -H',
    );
  });

  it.each([
    ['gpu1:0', 'E_HOSTS -H: "gpu1:0": "0" is no number of workers -> Give a whole number from 1 to 1024.'],
    ['gpu1:two', 'E_HOSTS -H: "gpu1:two": "two" is no number of workers -> Give a whole number from 1 to 1024.'],
    ['gpu1:', 'E_HOSTS -H: "gpu1:": "" is no number of workers -> Give a whole number from 1 to 1024.'],
    [
      'gpu1,,gpu2',
      'E_HOSTS -H: "gpu1,,gpu2": a host is missing -> A host is NAME, NAME:SLOTS, USER@NAME:SLOTS or [IPV6]:SLOTS.',
    ],
    [
      'fe80::1:4',
      'E_HOSTS -H: "fe80::1:4": it has more than one colon -> Put an IPv6 address into brackets: [fe80::1]:4.',
    ],
    [
      '[gpu1]:4',
      'E_HOSTS -H: "[gpu1]:4": it is not the name of a host -> A host is NAME, NAME:SLOTS, USER@NAME:SLOTS or [IPV6]:SLOTS.',
    ],
    ['gpu1:4,GPU1:2', 'E_HOSTS -H: "GPU1": it is named twice -> Name each host once, with all its slots.'],
    ['ada@gpu1,bob@gpu1', 'E_HOSTS -H: "bob@gpu1": it is named twice -> Name each host once, with all its slots.'],
  ])('refuses %s', (text, said) => {
    expect(refusal(() => parseHostList(text))).toBe(said);
  });

  it('takes nothing for a name that ssh or a shell would take for something else', () => {
    for (const text of ['-oProxyCommand=sh', 'a b', '$(id)', '`id`', 'a;id', "a'b", 'a\nb', 'a/b', '-l@h', 'h|id']) {
      expect(refusal(() => parseHostList(text))).toMatch(/^E_HOSTS /);
    }
    fc.assert(
      fc.property(fc.string(), (text) => {
        const hosts = hostsIn(text);
        for (const { name } of hosts) expect(name).toMatch(/^(\w[\w.-]*\$?@)?[\w:][\w.:%-]*$/);
      }),
    );
  });
});

describe('a hostfile', () => {
  it("is read as mpirun's and horovodrun's are", () => {
    const text =
      '# the new ones\ngpu1 slots=4\n\ngpu2:2   # half of it\r\nada@gpu3 slots=8 max_slots=8\ngpu4\n[::1]:3\n';
    expect(short(parseHostfile(text, 'hosts.txt'))).toBe(
      'gpu1 4 hosts.txt:2; gpu2 2 hosts.txt:4; ada@gpu3 8 hosts.txt:5; gpu4 null hosts.txt:6; ::1 3 hosts.txt:7',
    );
  });

  it.each([
    ['gpu1 slots=4\ngpu1 slots=2', 'E_HOSTS hosts.txt:2: "gpu1": it is named twice, and in hosts.txt:1'],
    ['gpu1 slots=many', 'E_HOSTS hosts.txt:1: "gpu1 slots=many": "many" is no number of workers'],
    ['\ngpu1 4', 'E_HOSTS hosts.txt:2: "gpu1 4": "4" is not understood'],
    ['gpu1:4 slots=2', 'E_HOSTS hosts.txt:1: "gpu1:4 slots=2": its slots are given twice'],
    ['gpu1 slots=4 max_slots=2', 'E_HOSTS hosts.txt:1: "gpu1 slots=4 max_slots=2": it has 4 slots, and 2 at most'],
    ['# nobody\n', 'E_HOSTS the hostfile hosts.txt names no host'],
  ])('with %j is refused by file and line', (text, said) => {
    expect(refusal(() => parseHostfile(text, 'hosts.txt')).split(' -> ')[0]).toBe(said);
  });
});

describe('a discovery script', () => {
  it('may print no host at all for now', () => {
    expect(parseDiscovered('\n', 'find.sh')).toEqual([]);
  });

  it('is named with the line that is wrong', () => {
    expect(refusal(() => parseDiscovered('gpu1:4\ngpu2;id\n', 'find.sh')).split(' -> ')[0]).toBe(
      'E_HOSTS the output of find.sh:2: "gpu2;id": it is not the name of a host',
    );
  });

  it('takes and gives: hosts that are gone and come, and one whose slots have changed', () => {
    const before = parseDiscovered('gpu1:4\ngpu2:4\ngpu3:4', 'find.sh');
    const after = parseDiscovered('gpu3:4\ngpu2:2\ngpu4:1', 'find.sh');
    const { gone, come } = differenceOf(before, after);
    expect(gone.map(({ name, slots }) => `${name}:${slots}`)).toEqual(['gpu1:4', 'gpu2:4']);
    expect(come.map(({ name, slots }) => `${name}:${slots}`)).toEqual(['gpu2:2', 'gpu4:1']);
  });
});

describe('--nproc-per-node', () => {
  it('gives each host its slots; auto leaves it to the host', () => {
    expect(withSlots(parseHostList('gpu1,gpu2:2'), 2).map(({ slots }) => slots)).toEqual([2, 2]);
    expect(withSlots(parseHostList('gpu1,gpu2'), 'auto').map(({ slots }) => slots)).toEqual([null, null]);
    expect(withSlots(parseHostList('gpu1,gpu2:2'), undefined).map(({ slots }) => slots)).toEqual([null, 2]);
  });

  it.each([2, 'auto'] as const)('%s contradicts a host that says otherwise', (each) => {
    expect(refusal(() => withSlots(parseHostList('gpu1:4'), each))).toBe(
      `E_HOSTS -H: "gpu1": it has 4 slots, and --nproc-per-node ${each} says otherwise -> Leave one of them out.`,
    );
  });
});
