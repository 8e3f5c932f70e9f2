// A self-signed certificate for 127.0.0.1, made by the openssl command for this process.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

let made: { readonly cert: string; readonly key: string } | undefined;

export function certificate(): { readonly cert: string; readonly key: string } {
  if (made !== undefined) return made;
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-certificate-'));
  try {
    const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')];
    const request = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=lockstep';
    const args = [...request.split(' '), '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert];
    execFileSync('openssl', args, { stdio: 'ignore' });
    made = { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
    return made;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
