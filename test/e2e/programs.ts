// Programs that tests need and npm does not bring: found on PATH, or said clearly to be missing. A test is never skipped for it.

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

function onPath(names: readonly string[]): string | null {
  for (const name of names) {
    for (const directory of (process.env['PATH'] ?? '').split(delimiter)) {
      try {
        accessSync(join(directory, name), constants.X_OK);
        return join(directory, name);
      } catch {
        // Not here.
      }
    }
  }
  return null;
}

/** Chromium or Chrome: CHROMIUM_PATH, or the first on PATH. */
export function chromiumPath(): string {
  const path = process.env['CHROMIUM_PATH'] ?? onPath(['chromium', 'chromium-browser', 'google-chrome']);
  if (path === null) throw new Error('no Chromium: install it (Debian: apt-get install chromium) or set CHROMIUM_PATH');
  return path;
}

export function promtoolPath(): string {
  const path = onPath(['promtool']);
  if (path === null) throw new Error('no promtool: install it (Debian: apt-get install prometheus)');
  return path;
}

export function prometheusPath(): string {
  const path = onPath(['prometheus']);
  if (path === null) throw new Error('no prometheus: install it (Debian: apt-get install prometheus)');
  return path;
}

export function natsServerPath(): string {
  const path = onPath(['nats-server']);
  if (path === null) throw new Error('no nats-server: install it (Debian: apt-get install nats-server)');
  return path;
}

/** For a browser that asks nothing of any other host. */
export const CHROMIUM_ARGUMENTS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
