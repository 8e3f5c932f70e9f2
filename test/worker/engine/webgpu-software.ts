// A GPU for tests on any machine: SwiftShader, the Vulkan rasteriser that comes with Chromium.

import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';

/** glibc: a library stays loaded when it is closed. */
const RTLD_NODELETE = 0x1000;

function folderOf(file: string): string {
  const places = [process.env['SWIFTSHADER_PATH'], '/usr/lib/chromium', '/usr/lib/chromium-browser'];
  const folder = places.find((path) => path !== undefined && existsSync(join(path, file)));
  if (folder === undefined) {
    throw new Error('no SwiftShader: install Chromium (Debian: apt-get install chromium) or set SWIFTSHADER_PATH');
  }
  return folder;
}

/** Environment variables under which a new process finds SwiftShader, and no other adapter. */
export function swiftShaderEnvironment(): Record<string, string> {
  const folder = folderOf('vk_swiftshader_icd.json');
  const driver = join(folder, 'vk_swiftshader_icd.json');
  return { VK_DRIVER_FILES: driver, VK_ICD_FILENAMES: driver, LD_LIBRARY_PATH: folder };
}

/** Environment variables under which a new process finds no adapter, whatever the machine has. */
export const NO_ADAPTER = { VK_DRIVER_FILES: '/nowhere.json', VK_ICD_FILENAMES: '/nowhere.json' };

/** The same for this process, which has started already: only the driver's variables are still read. */
export function useSwiftShader(): void {
  const { LD_LIBRARY_PATH: folder = '', ...driver } = swiftShaderEnvironment();
  Object.assign(process.env, driver);
  // Dawn asks for Vulkan's loader by its name, which finds one that is loaded already. It is no addon of Node's: that error
  // is the expected end.
  try {
    process.dlopen({ exports: {} }, join(folder, 'libvulkan.so.1'), constants.dlopen.RTLD_NOW | RTLD_NODELETE);
  } catch (error) {
    if (!String(error).includes('did not self-register')) throw error;
  }
}
