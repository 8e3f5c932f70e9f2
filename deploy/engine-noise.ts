// What the TensorFlow library writes to stderr: lines that come whenever it is loaded, at every log level, and tell nobody
// anything; and the one that says why it uses no GPU.

const NOISE = [
  /All log messages before absl::InitializeLog\(\)/,
  /oneDNN custom operations are on/,
  /cpu_feature_guard/,
  /rebuild TensorFlow with the appropriate compiler flags/,
];

export function isEngineNoise(line: string): boolean {
  return NOISE.some((pattern) => pattern.test(line));
}

/**
 * Why TensorFlow uses no GPU, in its own words, from its log at TF_CPP_MIN_LOG_LEVEL=0; null where it does not say. It never
 * names the library that it misses.
 */
export function gpuRefusal(log: string): string | null {
  const [, words] = /^[WE]\d{4} \S+ +\d+ (?:gpu_device|cuda_\w+)\.cc:\d+\] (.*)$/m.exec(log) ?? [];
  return words?.split('. ')[0] ?? null;
}
