import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeProblem, packagesAreCurrent } from '../../deploy/bootstrap.mjs';

let checkout = '';
beforeEach(() => {
  checkout = mkdtempSync(join(tmpdir(), 'lockstep-checkout-'));
});
afterEach(() => rmSync(checkout, { recursive: true, force: true }));

describe('nodeProblem', () => {
  it.each(['v20.19.0', 'v20.20.2', 'v22.12.0', 'v22.21.3', 'v24.0.0', 'v26.1.0'])('lets %s pass', (version) => {
    expect(nodeProblem(version)).toBeNull();
  });
  it.each(['v16.20.0', 'v18.20.8', 'v20.18.1', 'v21.7.0', 'v22.11.0', 'v23.5.0'])('refuses %s', (version) => {
    expect(nodeProblem(version)).toContain(version);
  });

  it('ends the command with exit code 2, the code and the remedy', () => {
    const bootstrap = fileURLToPath(new URL('../../deploy/bootstrap.mjs', import.meta.url));
    const script = `import(${JSON.stringify(bootstrap)}).then((b) => b.ensureNode('v18.0.0')).then(() => console.log('went on'))`;
    const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/E_NODE_VERSION: Node v18\.0\.0.*\n.*Install Node 24/);
  });
});

describe('packagesAreCurrent', () => {
  const lock = '{"lockfileVersion":3}';

  it('holds only after a whole install from the present package-lock.json', () => {
    writeFileSync(join(checkout, 'package-lock.json'), lock);
    expect(packagesAreCurrent(checkout)).toBe(false);
    mkdirSync(join(checkout, 'node_modules'));
    expect(packagesAreCurrent(checkout)).toBe(false);
    writeFileSync(
      join(checkout, 'node_modules', '.lockstep-installed'),
      createHash('sha256').update(lock).digest('hex'),
    );
    expect(packagesAreCurrent(checkout)).toBe(true);
    writeFileSync(join(checkout, 'package-lock.json'), `${lock}\n`);
    expect(packagesAreCurrent(checkout)).toBe(false);
  });
});
