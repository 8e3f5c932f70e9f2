// What nvidia-smi prints: recorded on a machine with an H100, and written after the published output of drivers 470 to 560 for what
// was not at hand. What TensorFlow logs of a GPU that it does not use, likewise recorded.

import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { gpuRefusal } from '../../deploy/engine-noise.ts';
import { chooseEngineHere } from '../../deploy/engines.ts';
import { findGpus, gpuOf, parseGpus, visibleGpus } from '../../deploy/setup/nvidia.ts';
import { findUserBinding, TENSORFLOW_VERSION, tensorflowDamage } from '../../deploy/setup/tensorflow.ts';

const TWO = `0, GPU-4f1c0a52-7c1e-6a53-0d9b-0a1b2c3d4e5f, NVIDIA H100 80GB HBM3, 9.0, 81559, 550.90.07, Disabled
1, GPU-9e8d7c6b-1111-2222-3333-0123456789ab, NVIDIA H100 80GB HBM3, 9.0, 81559, 550.90.07, Disabled
`;
const TWO_LIST = `GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-4f1c0a52-7c1e-6a53-0d9b-0a1b2c3d4e5f)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-9e8d7c6b-1111-2222-3333-0123456789ab)
`;
const CUT = `0, GPU-4f1c0a52-7c1e-6a53-0d9b-0a1b2c3d4e5f, NVIDIA A100-SXM4-40GB, 8.0, 40960, 535.183.01, Enabled
1, GPU-9e8d7c6b-1111-2222-3333-0123456789ab, NVIDIA A100-SXM4-40GB, 8.0, 40960, 535.183.01, Disabled
`;
const CUT_LIST = `GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-4f1c0a52-7c1e-6a53-0d9b-0a1b2c3d4e5f)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 3g.20gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-9e8d7c6b-1111-2222-3333-0123456789ab)
`;
/** A consumer's GPU, without MIG. */
const DESKTOP = '0, GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee, NVIDIA GeForce RTX 4090, 8.9, 24564, 560.35.03, [N/A]\n';

/** Recorded, with TensorFlow's words below. */
const H100 = '0, GPU-19f35932-2f3d-c4ce-150d-edb709e4c922, NVIDIA H100 80GB HBM3, 9.0, 81559, 580.159.04, Disabled\n';
const H100_LIST = 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-19f35932-2f3d-c4ce-150d-edb709e4c922)\n';

/** A stand-in for nvidia-smi. */
const printing = (csv: string, list: string): string =>
  `if [ "$1" = -L ]; then printf '%s' '${list}'; else printf '%s' '${csv}'; fi`;

describe('the GPUs of a machine', () => {
  test('with name, compute capability and memory', () => {
    const { driver, gpus } = parseGpus(TWO, TWO_LIST);
    expect(driver).toBe('550.90.07');
    expect(gpus).toHaveLength(2);
    expect(gpus[0]).toEqual({
      index: 0,
      uuid: 'GPU-4f1c0a52-7c1e-6a53-0d9b-0a1b2c3d4e5f',
      name: 'NVIDIA H100 80GB HBM3',
      computeCapability: '9.0',
      memoryMiB: 81_559,
    });
    expect(parseGpus(DESKTOP, '').gpus.map(({ name }) => name)).toEqual(['NVIDIA GeForce RTX 4090']);
    expect(parseGpus(H100, H100_LIST)).toEqual({
      driver: '580.159.04',
      gpus: [
        {
          index: 0,
          uuid: 'GPU-19f35932-2f3d-c4ce-150d-edb709e4c922',
          name: 'NVIDIA H100 80GB HBM3',
          computeCapability: '9.0',
          memoryMiB: 81_559,
        },
      ],
    });
  });

  test('of one that is cut up by MIG, its instances instead of itself', () => {
    const { gpus } = parseGpus(CUT, CUT_LIST);
    expect(gpus.map(({ index, uuid, name, memoryMiB }) => [index, uuid.slice(0, 8), name, memoryMiB])).toEqual([
      [null, 'MIG-c6d4', 'NVIDIA A100-SXM4-40GB, MIG 3g.20gb', 20_480],
      [null, 'MIG-cba6', 'NVIDIA A100-SXM4-40GB, MIG 3g.20gb', 20_480],
      [1, 'GPU-9e8d', 'NVIDIA A100-SXM4-40GB', 40_960],
    ]);
  });

  test('a line that is none is an error that shows it', () => {
    expect(() => parseGpus('Unable to determine the device handle for GPU0: Unknown Error', '')).toThrow(
      expect.objectContaining({
        code: 'E_ENGINE_UNAVAILABLE',
        message: expect.stringContaining('Unable to determine'),
      }),
    );
  });
});

describe('CUDA_VISIBLE_DEVICES', () => {
  const { gpus } = parseGpus(TWO, TWO_LIST);
  const named = (visible: string | undefined): (number | null)[] => visibleGpus(gpus, visible).map((gpu) => gpu.index);

  test('picks by index or UUID, in its own order', () => {
    expect(named(undefined)).toEqual([0, 1]);
    expect(named('1,0')).toEqual([1, 0]);
    expect(named('GPU-9e8d')).toEqual([1]);
    expect(named('')).toEqual([]);
    expect(named('-1')).toEqual([]);
  });

  test('names one that is not there: an error with those that are', () => {
    expect(() => named('0,2')).toThrow(
      expect.objectContaining({
        message: 'CUDA_VISIBLE_DEVICES names "2", which is not here',
        remedy: expect.stringContaining('0 (GPU-4f1c'),
      }),
    );
  });

  test('gives each worker of a machine one of its own, in turn', () => {
    expect([0, 1, 2].map((localRank) => gpuOf(gpus, localRank)?.index)).toEqual([0, 1, 0]);
    // A worker whose launcher has left it one GPU takes that one, whatever its local rank.
    expect(gpuOf(visibleGpus(gpus, 'GPU-9e8d7c6b-1111-2222-3333-0123456789ab'), 1)?.index).toBe(1);
    expect(gpuOf([], 0)).toBeNull();
  });
});

describe('asking the driver', () => {
  async function withTool(script: string | null, visible?: string): Promise<Awaited<ReturnType<typeof findGpus>>> {
    const directory = mkdtempSync(join(tmpdir(), 'lockstep-nvidia-'));
    try {
      if (script !== null) {
        writeFileSync(join(directory, 'nvidia-smi'), `#!/bin/sh\n${script}\n`);
        chmodSync(join(directory, 'nvidia-smi'), 0o755);
      }
      return await findGpus({ PATH: directory, ...(visible !== undefined && { CUDA_VISIBLE_DEVICES: visible }) });
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }

  test('finds what is visible', async () => {
    expect(await withTool(printing(TWO, TWO_LIST), '1')).toEqual({
      found: true,
      driver: '550.90.07',
      gpus: [expect.objectContaining({ index: 1, computeCapability: '9.0' })],
    });
  });

  const failures: Record<string, [string | null, string, string?]> = {
    'no driver': [null, 'no NVIDIA driver (nvidia-smi is not on the PATH)'],
    'a driver that fails': [
      "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.' && exit 9",
      'nvidia-smi fails: NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.',
    ],
    'no GPU': ['exit 0', 'nvidia-smi lists no GPU'],
    'an old driver': [
      printing(TWO.replaceAll('550.90.07', '470.42.01'), TWO_LIST),
      'the NVIDIA driver 470.42.01 is too old for CUDA 12',
    ],
    'all hidden': [printing(TWO, TWO_LIST), 'CUDA_VISIBLE_DEVICES hides every GPU', '-1'],
  };
  for (const [name, [script, because, visible]] of Object.entries(failures)) {
    test(`says why there is none: ${name}`, async () => {
      expect(await withTool(script, visible)).toMatchObject({ found: false, because });
    });
  }
});

describe('why TensorFlow uses no GPU, from what it logged', () => {
  const started = `WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795715301.536004    1121 cpu_feature_guard.cc:227] This TensorFlow binary is optimized to use available CPU instructions in performance-critical operations.
`;

  test('a library of CUDA did not load', () => {
    const log = `${started}W0000 00:00:1795715301.841007    1121 gpu_device.cc:2365] Cannot dlopen some GPU libraries. Please make sure the missing libraries mentioned above are installed properly if you would like to use GPU.
Skipping registering GPU devices...
`;
    expect(gpuRefusal(log)).toBe('Cannot dlopen some GPU libraries');
  });

  test('the driver answers nothing', () => {
    const log = `${started}E0000 00:00:1795713677.800909   30597 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)\n`;
    expect(gpuRefusal(log)).toBe(
      'failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)',
    );
  });

  test('nothing, where it uses one', () => {
    const log = `${started}W0000 00:00:1795715355.761298    1340 gpu_bfc_allocator.cc:47] Overriding orig_value setting because the TF_FORCE_GPU_ALLOW_GROWTH environment variable is set. Original config value was false.
I0000 00:00:1795715355.762340    1340 gpu_device.cc:2043] Created device /job:localhost/replica:0/task:0/device:GPU:0 with 78752 MB memory:  -> device: 0, name: NVIDIA H100 80GB HBM3, pci bus id: 0000:00:06.0, compute capability: 9.0a
`;
    expect(gpuRefusal(log)).toBeNull();
  });
});

test('a library that was set up before the link to cuSOLVER was, without which TensorFlow uses no GPU, is set up anew', () => {
  const before = process.env['LOCKSTEP_CACHE'];
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-nvidia-'));
  process.env['LOCKSTEP_CACHE'] = directory;
  try {
    expect(tensorflowDamage('gpu')).toBe('it is not installed');
    const home = join(directory, 'engine', `tensorflow-gpu-${TENSORFLOW_VERSION}-${process.platform}-${process.arch}`);
    const place = join(home, 'nvidia', 'cusparse', 'lib');
    mkdirSync(place, { recursive: true });
    const { version } = createRequire(import.meta.url)('@tensorflow/tfjs-node/package.json') as { version: string };
    writeFileSync(join(home, 'manifest.json'), JSON.stringify({ binding: `tfjs-node ${version}`, files: [] }));
    expect(tensorflowDamage('gpu')).toBe('the link nvidia/cusparse/lib/libcusolver.so.11 is missing');
    writeFileSync(join(home, 'nvidia', 'libcusolver.so.11'), '');
    symlinkSync('../../libcusolver.so.11', join(place, 'libcusolver.so.11'));
    expect(tensorflowDamage('gpu')).toBeNull();
  } finally {
    if (before === undefined) delete process.env['LOCKSTEP_CACHE'];
    else process.env['LOCKSTEP_CACHE'] = before;
    rmSync(directory, { recursive: true, force: true });
  }
});

describe('the engine tensorflow-gpu on a machine with GPUs', () => {
  async function finding(env: Record<string, string>): Promise<unknown> {
    const before = { ...process.env };
    Object.assign(process.env, env);
    try {
      return await chooseEngineHere('tensorflow-gpu').catch((error: unknown) => error);
    } finally {
      process.env = before;
    }
  }

  test('but without its library: a wish for it names the GPUs and the set-up', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'lockstep-nvidia-'));
    try {
      const tool = join(directory, 'nvidia-smi');
      writeFileSync(tool, `#!/bin/sh\n${printing(TWO, TWO_LIST)}\n`);
      chmodSync(tool, 0o755);
      const PATH = `${directory}${delimiter}${process.env['PATH'] ?? ''}`;
      expect(await finding({ PATH, LOCKSTEP_CACHE: directory })).toMatchObject({
        code: 'E_ENGINE_UNAVAILABLE',
        message: expect.stringContaining('it is not set up, though there are 2 x NVIDIA H100 80GB HBM3'),
        remedy: expect.stringContaining('npm run setup -- --engine tensorflow-gpu'),
      });
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

  test('a package @tensorflow/tfjs-node-gpu that found its library is taken, the newest addon of it; one without is not', () => {
    const directory = mkdtempSync(join(tmpdir(), 'lockstep-nvidia-'));
    try {
      const home = join(directory, 'node_modules', '@tensorflow', 'tfjs-node-gpu');
      mkdirSync(join(home, 'lib', 'napi-v8'), { recursive: true });
      writeFileSync(join(home, 'package.json'), '{"name":"@tensorflow/tfjs-node-gpu","version":"4.22.0"}');
      expect(findUserBinding(directory)).toBeNull();
      const addon = join(home, 'lib', 'napi-v8', 'tfjs_binding.node');
      writeFileSync(addon, '');
      expect(findUserBinding(directory)).toBe(realpathSync(addon));
      expect(findUserBinding(join(directory, 'node_modules'))).toBe(realpathSync(addon));
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
