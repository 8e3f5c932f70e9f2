// Which bytes of a file a request wants (RFC 9110, 14): all of them, or one run, so that a download which was cut goes on where it ended.
// Of several runs at once the whole is given, as the RFC allows. Pure.

export type ByteRange =
  | { readonly kind: 'whole' }
  /** Both ends included. */
  | { readonly kind: 'part'; readonly first: number; readonly last: number }
  /** It begins beyond the end. */
  | { readonly kind: 'none' };

const WHOLE: ByteRange = { kind: 'whole' };

/**
 * @param header the Range header; undefined: none
 * @param ifRange the If-Range header: another version than `etag` is sent from its beginning
 */
export function rangeOf(
  header: string | undefined,
  ifRange: string | undefined,
  file: { readonly bytes: number; readonly etag: string },
): ByteRange {
  if (header === undefined || (ifRange !== undefined && ifRange !== file.etag)) return WHOLE;
  const [, from = '', to = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.trim()) ?? [];
  if (from === '' && to === '') return WHOLE;
  const end = file.bytes - 1;
  // `-N`: the last N.
  const first = from === '' ? Math.max(0, file.bytes - Number(to)) : Number(from);
  const last = from === '' || to === '' ? end : Math.min(end, Number(to));
  if (from !== '' && to !== '' && Number(to) < Number(from)) return WHOLE;
  return first > last ? { kind: 'none' } : { kind: 'part', first, last };
}
