// A confusion matrix as a table: rows are the true classes, columns what the model said.

const COLUMN = 6;

export function confusionText(classes: readonly string[], counts: readonly (readonly number[])[]): string {
  const wide = Math.max(...classes.map((name) => name.length));
  const head = classes.map((name) => name.slice(0, COLUMN - 1).padStart(COLUMN)).join('');
  const rows = counts.map((row, i) => {
    const total = row.reduce((a, b) => a + b, 0);
    const recall = total === 0 ? '' : `${((100 * (row[i] ?? 0)) / total).toFixed(1)} %`.padStart(9);
    return `${(classes[i] ?? '').padEnd(wide)}${row.map((count) => String(count).padStart(COLUMN)).join('')}${recall}`;
  });
  return [`${'true \\ said'.padEnd(wide)}${head}${'right'.padStart(9)}`, ...rows].join('\n');
}
