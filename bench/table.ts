// A bench's rows as a table.

export interface Row {
  readonly case: string;
  readonly ours: number;
  /** Null where there is none to compare with; `peerName` says why. */
  readonly peer: number | null;
  readonly peerName: string;
  /** Above 1: we are better. */
  readonly ratio: number | null;
  readonly unit: string;
  readonly repeats: number;
}

/** Three digits that mean something, and whole numbers whole: 0.123, 1.23, 12.3, 1234. */
export function threeDigits(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/** A row; where there is no peer's figure, `missing` says why, next to its name. */
export function comparison(
  about: Pick<Row, 'case' | 'unit' | 'repeats'>,
  ours: number,
  peer: number | null,
  peerName: string,
  missing: string,
): Row {
  const { case: title, unit, repeats } = about;
  const named = peer === null ? `${peerName} (${missing})` : peerName;
  return { case: title, ours, peer, peerName: named, ratio: peer === null ? null : ours / peer, unit, repeats };
}

export function tableOf(rows: readonly Row[]): string {
  const cells = rows.map((r) => [
    r.case,
    `${threeDigits(r.ours)} ${r.unit}`,
    r.peer === null ? '–' : `${threeDigits(r.peer)} ${r.unit}`,
    r.peerName,
    r.ratio === null ? '–' : r.ratio.toFixed(2),
    String(r.repeats),
  ]);
  const all = [['case', 'ours', 'peer', 'peer is', 'ratio', 'repeats'], ...cells];
  const widths = all[0]?.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0))) ?? [];
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
