import { expect, test } from 'vitest';
import { chooseEngine, type Finding, type Findings, LADDER } from '../../deploy/ladder.ts';

const no = (because: string, remedy = 'Do this.'): Finding => ({ available: false, because, remedy });
const yes = (detail: string): Finding => ({ available: true, detail });

const findings: Findings = {
  'tensorflow-gpu': no('no NVIDIA driver', 'Install one.'),
  tensorflow: yes('TensorFlow 2.21.0 on the CPU'),
  webgpu: no('no adapter'),
  wasm: yes('TensorFlow.js in WebAssembly'),
};

test('auto takes the best that works, says so, and says why none better', () => {
  expect(chooseEngine('auto', findings)).toEqual({
    engine: 'tensorflow',
    said: ['tensorflow: TensorFlow 2.21.0 on the CPU', 'not tensorflow-gpu: no NVIDIA driver (Install one)'],
  });
});

test('auto goes down as far as it must, and names each that it passed', () => {
  const { engine, said } = chooseEngine('auto', { ...findings, tensorflow: no('no pip', 'Install pip.') });
  expect(engine).toBe('wasm');
  expect(said).toEqual([
    'wasm: TensorFlow.js in WebAssembly',
    'not tensorflow-gpu: no NVIDIA driver (Install one)',
    'not tensorflow: no pip (Install pip)',
    'not webgpu: no adapter (Do this)',
  ]);
});

test('a wish is met exactly, also where better would work', () => {
  expect(chooseEngine('wasm', findings)).toEqual({ engine: 'wasm', said: ['wasm: TensorFlow.js in WebAssembly'] });
});

test('a wish that cannot be met is an error that names the reason, the remedy and what works; nothing else is taken', () => {
  expect(() => chooseEngine('tensorflow-gpu', findings)).toThrow(
    expect.objectContaining({
      code: 'E_ENGINE_UNAVAILABLE',
      message: 'the engine tensorflow-gpu cannot run here: no NVIDIA driver',
      remedy: 'Install one. Or use --engine tensorflow, which works here.',
    }),
  );
});

test('where nothing works, every reason is named', () => {
  const nothing = Object.fromEntries(LADDER.map((name) => [name, no(`no luck with ${name}`)])) as unknown as Findings;
  expect(() => chooseEngine('auto', nothing)).toThrow(
    /no luck with tensorflow-gpu .*no luck with tensorflow .*no luck with webgpu .*no luck with wasm/,
  );
});
