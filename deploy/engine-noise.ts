// Lines that the TensorFlow library writes to stderr whenever it is loaded, at every log level, and that tell nobody anything.

const NOISE = [
  /All log messages before absl::InitializeLog\(\)/,
  /oneDNN custom operations are on/,
  /cpu_feature_guard/,
  /rebuild TensorFlow with the appropriate compiler flags/,
];

export function isEngineNoise(line: string): boolean {
  return NOISE.some((pattern) => pattern.test(line));
}
