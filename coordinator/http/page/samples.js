// Test samples and images of the user's own: from bytes to the float32 values that the model was trained on, and to pixels that a
// canvas shows. The encodings are those of coordinator/core/samples.ts.

import { ask } from './access.js';

const clamp = (value) => Math.min(255, Math.max(0, Math.round(value)));

/** Reads the samples; `{ because }` where the job has none to show. */
export async function readSamples() {
  const header = await (await ask('/api/samples')).json();
  if ('because' in header) return header;
  const bytes = new Uint8Array(await (await ask('/api/samples/values')).arrayBuffer());
  const length = header.shape.reduce((a, b) => a * b, 1);
  const values = header.encoding === 'float32' ? new Float32Array(bytes.buffer) : Float32Array.from(bytes);
  if (header.encoding === 'byte/255') for (let i = 0; i < values.length; i++) values[i] = values[i] / 255;
  return { ...header, values, of: (i) => values.subarray(i * length, (i + 1) * length) };
}

/** Bytes 0 to 255 as the job's values, and back. Where its own are of no known kind, they are stretched over its range. */
function levels({ encoding, range: [least, greatest] }) {
  if (encoding === 'byte') return { toValue: (byte) => byte, toByte: (value) => clamp(value) };
  if (encoding === 'byte/255') return { toValue: (byte) => Math.fround(byte / 255), toByte: (v) => clamp(v * 255) };
  const span = greatest - least || 1;
  return {
    toValue: (byte) => Math.fround(least + (byte / 255) * span),
    toByte: (value) => clamp((255 * (value - least)) / span),
  };
}

/** Pixels of a sample's values. */
export function pixelsOf(samples, values) {
  const [height, width, channels] = samples.shape;
  const { toByte } = levels(samples);
  const image = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = toByte(values[i * channels + (channels === 1 ? 0 : c)]);
    image.data[4 * i + 3] = 255;
  }
  return image;
}

/** Values of an image file: its middle, as large as the model takes, in the job's range. Rejects what is no image. */
export async function valuesOfFile(samples, file) {
  const [height, width, channels] = samples.shape;
  const bitmap = await createImageBitmap(file);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [w, h] = [bitmap.width * scale, bitmap.height * scale];
  context.imageSmoothingQuality = 'high';
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const { toValue } = levels(samples);
  const values = new Float32Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    const [r, g, b] = data.subarray(4 * i, 4 * i + 3);
    if (channels === 1) values[i] = toValue(0.299 * r + 0.587 * g + 0.114 * b);
    else for (const [c, byte] of [r, g, b].entries()) values[3 * i + c] = toValue(byte);
  }
  return values;
}
